"""The help of fit says what there is and what the defaults are, and loads nothing for it."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import da.norms
import run
from da.cli._fit_help import COMMON, backbone_names, class_names, normaliser_names
from da.data_sets import data_sets
from da.engine.components import available_methods, defaults_of
from da.networks.backbones.base import backbone_families
from datasets.digits import Digits

ROOT = Path(__file__).parents[2]


def test_the_names_are_those_on_disk():
    assert class_names("da/methods", "Method") == sorted(available_methods())
    assert class_names("datasets", "LightningDataModule") == sorted(data_sets())
    assert normaliser_names() == da.norms.normaliser_names()
    assert set(backbone_families()) <= set(backbone_names())


def test_the_defaults_are_those_of_the_code():
    model, data = defaults_of(available_methods()["SourceOnly"]), defaults_of(Digits)
    for option, (default, _) in COMMON.items():
        part, _, name = option.removeprefix("--").partition(".")
        if part not in ("model", "data") or name == "lr":
            continue
        value = (model if part == "model" else data).get(name)
        assert default == ("" if value is None else str(value)), option


def test_the_help_begins_with_what_can_be_named(capsys):
    assert run.main(["fit", "--help"]) == 0
    out = capsys.readouterr().out
    order = ["usage: ", "methods: ", "normalisers: ", "backbones: ", "data sets: ", "--data.source"]
    places = [out.index(text) for text in [*order, "options of the trainer", "examples:"]]
    assert places == sorted(places)
    assert max(map(len, out.splitlines())) <= 100


def test_the_help_loads_no_torch():
    script = "import sys, run; run.main(['fit', '--help']); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_both_spellings(word, capsys):
    assert run.main(["fit", word]) == 0
    assert inspect.cleandoc(capsys.readouterr().out).startswith("usage: python run.py fit")
