"""The published digits, from their files to the table: real networks, all tasks, some methods."""

import csv
import json
import shutil

import numpy as np
import pytest
import yaml
from digits_files import PARTS, tree

import run
from da.grids import session
from da.reports.references import config

pytestmark = pytest.mark.long

TASKS = {"svhn->mnist": "S→M", "mnist->usps": "M→U", "usps->mnist": "U→M"}
PUBLISHED = {"SourceOnly": (74.1, 82.1, 74.6), "DANN": (90.8, 91.7, 95.2)}
METHODS = (*PUBLISHED, "EntropyMinimisation")
OF_SVHN = {"SourceOnly": 0.1, "DANN": 0.03, "EntropyMinimisation": 0.03}


def cut(folder, **settings):
    """The published settings but for the length of the run."""
    content = yaml.safe_load(config("digits").read_text()) | {"epochs": 2, "steps_per_epoch": 2}
    path = folder / "digits.yaml"
    path.write_text(yaml.safe_dump(content | settings))
    return str(path)


def command(folder, root):
    """What trains the methods on all tasks, twice."""
    line = ["reproduce", cut(folder), "--root", str(root), "--seeds", "0,1", "--workers", "1"]
    return [*line, "--method", ",".join(METHODS)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tree(tmp_path_factory.mktemp("digits"))


@pytest.fixture(autouse=True)
def _generated(monkeypatch):
    monkeypatch.setattr(session, "TRAIN", "digits_files:train")


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory):
    """The methods on all tasks, twice."""
    folder = tmp_path_factory.mktemp("reproduced")
    line = command(folder, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "TRAIN", "digits_files:train")
        assert run.main([*line, "--out", str(folder / "out")]) == 0
    return folder / "out"


@pytest.fixture
def out(finished, tmp_path, monkeypatch):
    """The finished grid, to do with as one likes."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(finished, tmp_path / "out")


def results(out):
    """By method and task, in the order of the seeds."""
    found = {}
    read = [json.loads(path.read_text()) for path in out.glob("cells/*/result.json")]
    for result in sorted(read, key=lambda r: r["spec"]["seed"]):
        cell = result["spec"]
        found.setdefault((cell["method"], f"{cell['source']}->{cell['target']}"), []).append(result)
    return found


def accuracies(result):
    """In percent at the last, label-free and oracle epoch."""
    test = [100 * e["forms"][""]["target/test"]["accuracy"] for e in result["evaluations"]]
    scores = [
        e["forms"][""]["target/validation"]["label_free"]["InformationMaximisation"]
        for e in result["evaluations"]
    ]
    return test[-1], test[int(np.argmax(scores))], max(test)


def test_every_method_on_every_task_is_trained_as_published(out):
    found = results(out)
    assert set(found) == {(method, task) for method in METHODS for task in TASKS}
    for (method, task), (first, _) in found.items():
        cell = first["spec"]
        dtn = task == "svhn->mnist"
        assert cell["model_args"]["backbone"] == ("dtn" if dtn else "lenet")
        assert first["preprocessing"] == {
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
            "image_size": 32 if dtn else 28,
        }
        rates = {"svhn->mnist": OF_SVHN[method], "mnist->usps": 0.01, "usps->mnist": 0.1}
        assert (cell["batch_size"], cell["lr"]) == (128, rates[task])
        assert cell["model_args"]["bottleneck"] == (None if method == "SourceOnly" else 256)
        sizes = {k: v["n"] for k, v in first["evaluations"][-1]["forms"][""].items()}
        train, test = PARTS.values()
        assert sizes == {
            **{"source/validation": train, "target/validation": train},
            **{"source/test": test, "target/test": test},
        }
        assert [e["step"] for e in first["evaluations"]] == [2, 4]
    manifests = {(task, r["data_manifest"]) for (_, task), pair in found.items() for r in pair}
    assert len(manifests) == len({manifest for _, manifest in manifests}) == len(TASKS)


def test_the_table_holds_the_results_and_the_published_numbers(out):
    rows = list(csv.DictReader((out / "reproduce.csv").open()))
    assert len(rows) == len(METHODS) * (len(TASKS) + 1)
    found = results(out)
    for row in rows:
        method, task = row["method"], row["task"]
        tasks = TASKS if task == "average" else [task]
        # Of the average: seed by seed, the mean over tasks.
        values = np.mean([[accuracies(r) for r in found[method, t]] for t in tasks], axis=0)
        for name, column in zip(("last", "label-free", "oracle"), values.T, strict=True):
            assert float(row[f"{name} mean"]) == pytest.approx(column.mean(), abs=1e-4)
            assert float(row[f"{name} std"]) == pytest.approx(column.std(ddof=1), abs=1e-4)
            assert row[f"{name} seeds"] == "2"
        # Which epoch the numbers are of is not stated: they are shown, and nothing is concluded.
        known = dict(zip(TASKS, PUBLISHED.get(method, ()), strict=False)).get(task)
        assert row["published"] == ("" if known is None else str(known))
        assert row["selection"] == ("" if known is None else "not stated")
        assert (row["difference"], row["inside"]) == ("", "")
    text = (out / "reproduce.md").read_text()
    for method, numbers in PUBLISHED.items():
        for label, number in zip(TASKS.values(), numbers, strict=True):
            start = f"| {label} | mean over samples | {number} | not stated | "
            line = next(line for line in text.splitlines() if line.startswith(start))
            assert line.endswith("| – | selection not stated |"), method
    assert text.count("| no number of these settings |") == 3 + 3  # of ours, and of the averages
    assert "## SourceOnly (published as source only), bn, published learning rate" in text


def test_a_missing_cell_is_shown_and_a_method_is_chosen_in_any_spelling(out, capsys):
    gone = results(out)["DANN", "usps->mnist"][0]["run"]
    (out / "cells" / gone / "result.json").unlink()
    assert run.main(["reproduce", "digits", "--out", "out", "--compare", "--method", "dann"]) == 0
    said = capsys.readouterr().out
    assert "SourceOnly" not in said
    lines = {line.split(" | ")[0]: line for line in said.splitlines() if line.startswith("| ")}
    assert lines["| U→M"].count("| missing (1 of 2) ") == 3
    assert lines["| average (2 of 3 tasks)"].count("| missing (5 of 6) ") == 3
    assert "missing" not in lines["| S→M"] + lines["| M→U"]


def test_the_same_command_trains_what_is_missing_alone(out, root, capsys):
    before = {path.parent.name: path.stat().st_mtime_ns for path in out.glob("cells/*/result.json")}
    gone = results(out)["SourceOnly", "mnist->usps"][1]["run"]
    (out / "cells" / gone / "result.json").unlink()
    line = command(out.parent, root)
    assert run.main([*line, "--out", "out"]) == 0
    after = {path.parent.name: path.stat().st_mtime_ns for path in out.glob("cells/*/result.json")}
    assert {name for name in before if before[name] != after[name]} == {gone}
    assert "missing" not in capsys.readouterr().out


def test_quick_keeps_the_schedules_and_has_a_folder_of_its_own(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["--root", str(root), "--quick", "--method", "dann", "--tasks", "mnist->usps"]
    assert run.main(["reproduce", "digits", *options, "--dry-run"]) == 0
    assert "lr 0.01     batch 128 steps 2 x 2500 seeds 0,1,2" in capsys.readouterr().out
    line = ["reproduce", cut(tmp_path, epochs=3, steps_per_epoch=2000), *options, "--seeds", "0"]
    assert run.main([*line, "--dry-run"]) == 0
    assert "steps 2 x 2000 seeds 0" in capsys.readouterr().out
    line[1] = cut(tmp_path)
    assert run.main([*line, "--workers", "1"]) == 0
    said = capsys.readouterr().out
    assert "QUICK: at most 5,000 steps" in said
    assert "| M→U | mean over samples | 91.7 | not stated | " in said
    (cell,) = (tmp_path / "runs/reproduce-digits-quick/cells").iterdir()
    settings = json.loads((cell / "result.json").read_text())["spec"]
    assert settings["model_args"]["horizon"] == 10_000


@pytest.mark.parametrize("name", ["train_32x32.mat", "usps.t.bz2"])
def test_files_that_are_not_there_are_refused_before_anything_is_trained(
    name, root, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(root, tmp_path / "data")
    (tmp_path / "data" / name).rename(tmp_path / "elsewhere")
    line = ["reproduce", "digits", "--root", "data", "--method", "dann", "--out", "out"]
    assert run.main([*line, "--workers", "1"]) == 2
    error = capfd.readouterr().err
    domain = {"t": "svhn", "u": "usps"}[name[0]]
    assert error.startswith(f"error: domain '{domain}' can't be read from 'data'")
    assert "'python run.py data fetch DigitsFive --root DIR' gets it or says how" in error
    assert error.count("\n") == 1
