"""The wheel: what it carries, and that it does in an empty folder what a checkout does."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import run
from da import installation

ROOT = Path(__file__).parents[1]
BUILD = "from setuptools import build_meta; build_meta.build_wheel('../wheel')"
FIT = ["fit", "--trainer.accelerator", "cpu", "--out"]
SHORT = [
    *("--data.steps_per_epoch", "2", "--trainer.max_epochs", "1", "--model.bottleneck", "8"),
]
"""Behind the configuration, which says otherwise."""

IN_AN_EMPTY_FOLDER = f"""
import torch

torch.set_num_threads(1)
import datasets

assert datasets.OF_SOMEONE_ELSE
from da.cli._main import main
from da.data_sets import find_data_set
from da_datasets.digits import Digits

for name in ("Digits", "datasets.digits.Digits", "da_datasets.digits.Digits"):
    assert find_data_set(name) is Digits, name
assert main([*{FIT!r}, "runs/installed", "--config", "configs/digits.yaml", *{SHORT!r}]) == 0
assert main(["ablate", "ablations/digits_small", "--dry-run"]) == 0
assert "datasets.digits" not in __import__("sys").modules
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder in which the wheel is unpacked, as an installation does it."""
    place = tmp_path_factory.mktemp("package")
    source, wheel = place / "source", place / "wheel"
    wheel.mkdir()
    for part in ("da", "datasets", "configs"):
        shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / part, source / part)
    built = subprocess.run(
        [sys.executable, "-c", BUILD], cwd=source, capture_output=True, text=True, timeout=200
    )
    assert built.returncode == 0, built.stderr[-2000:]
    (file,) = wheel.glob("*.whl")
    with zipfile.ZipFile(file) as packed:
        packed.extractall(place / "site")
    return place / "site"


@pytest.fixture
def foreign(tmp_path) -> Path:
    """A folder with a package that has the name of Hugging Face's."""
    package = tmp_path / "foreign" / "datasets"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("OF_SOMEONE_ELSE = True\n", encoding="utf-8")
    return package.parent


def python(code: str, *path: Path, cwd: Path) -> str:
    """What a script prints in a process of its own, with folders to import from, in this order."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_wheel_carries_the_library_the_data_sets_and_the_configurations(site):
    wanted = {f"da/{configs}" for configs in files_of("configs", "*")}
    wanted |= {*files_of("da", "*.py"), *files_of("da/reports/page", "*")}
    wanted |= {f"da_{path}" for path in files_of("datasets", "*.py")}
    carried = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert {path for path in carried if ".dist-info/" not in path} == wanted
    (entry_points,) = site.glob("*.dist-info/entry_points.txt")
    assert "da = da.cli._main:entry" in entry_points.read_text(encoding="utf-8")


def files_of(folder: str, pattern: str) -> list[str]:
    found = [path for path in (ROOT / folder).rglob(pattern) if path.is_file()]
    return [p.relative_to(ROOT).as_posix() for p in found if "__pycache__" not in p.parts]


@pytest.mark.long
def test_installed_it_trains_as_a_checkout_does_beside_another_datasets(
    site, foreign, tmp_path, monkeypatch, capsys
):
    said = python(IN_AN_EMPTY_FOLDER, site, foreign, cwd=tmp_path)
    assert "configs/digits.yaml: no such file here; it is the library's, " in said
    assert "ablations/digits_small: no such file here; it is the library's, " in said

    monkeypatch.chdir(tmp_path)
    options = "runs/installed/config.json"  # in which classes have the names that they have there
    assert "da_datasets.digits.Digits" in Path(options).read_text(encoding="utf-8")
    assert run.main([*FIT, "runs/checkout", "--config", options]) == 0
    results = [
        json.loads(Path(f"runs/{name}/result.json").read_text(encoding="utf-8"))
        for name in ("installed", "checkout")
    ]
    assert results[0]["run"] == results[1]["run"]
    assert results[0]["spec"] == results[1]["spec"]
    assert results[0]["data_manifest"] == results[1]["data_manifest"]
    assert [e["step"] for e in results[0]["evaluations"]] == [2]
    assert results[0]["evaluations"] == results[1]["evaluations"]


def test_a_checkout_behind_another_datasets_takes_its_own(foreign, tmp_path):
    code = (
        "from da.installation import DATA_SETS, importable_name\n"
        "import datasets, da_datasets\n"
        "print(datasets.OF_SOMEONE_ELSE, DATA_SETS, *da_datasets.__path__)\n"
        "print(importable_name('datasets.digits.Digits'), importable_name('datasets.no.Such'))\n"
    )
    said = python(code, foreign, ROOT, cwd=tmp_path).splitlines()
    assert said[0] == f"True da_datasets {ROOT / 'datasets'}"
    assert said[1] == "da_datasets.digits.Digits datasets.no.Such"


def test_in_a_checkout_both_names_are_one_package(tmp_path):
    code = (
        "import da.installation, datasets, da_datasets, da_datasets.files, datasets.files\n"
        "from importlib.util import find_spec\n"
        "assert da_datasets is datasets and da_datasets.files is datasets.files\n"
        "assert find_spec('da_datasets.nothing') is None\n"
    )
    python(code, ROOT, cwd=tmp_path)


@pytest.mark.parametrize(
    ("called", "program"),
    [
        ("run.py", "python run.py"),
        ("/venv/bin/da", "da"),
        ("da.exe", "da"),
        ("/lib/da/__main__.py", "python -m da"),
        ("/lib/pytest/__main__.py", "python run.py"),
    ],
)
def test_help_and_errors_name_the_program_as_it_was_called(called, program, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [called])
    assert run.main(["--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: {program} COMMAND [options]")
    assert run.main(["data", "fetch"]) == 2
    error = f"error: name the data set: {program} data fetch VisDA2017 --root DIR"
    assert capsys.readouterr().err.strip() == error


def test_configurations_have_short_names():
    file = ROOT / "configs" / "ablations" / "digits.yaml"
    for name in ("configs/ablations/digits.yaml", "ablations/digits.yaml", "ablations/digits"):
        assert installation.packaged_config(name) == file
    for name in (str(file), "../configs/digits.yaml", "ablations", "no_such_grid"):
        assert installation.packaged_config(name) is None
