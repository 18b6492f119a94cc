"""A folder of pictures as the target: fit, test and analyse show no accuracy of it."""

import json

import pytest
from PIL import Image
from short_runs import SHORT_FIT

import run


@pytest.fixture(scope="module")
def photos(two_domains, tmp_path_factory):
    """The images of the darker domain in one folder, without what they show."""
    folder = tmp_path_factory.mktemp("media") / "camera"
    for number, path in enumerate(sorted((two_domains / "dark").rglob("*.png"))):
        place = folder / ("later" if number > 15 else "")
        place.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            image.save(place / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def fitted(two_domains, photos, tmp_path_factory):
    """The folder of a run, its options, and a CSV of four labels."""
    out = tmp_path_factory.mktemp("unlabelled") / "run"
    data = [
        *("--data", "Folder", "--data.root", str(two_domains), "--data.source", "bright"),
        *("--data.target", str(photos), "--data.image_size", "32", "--data.resize", "32"),
        *("--data.batch_size", "4", "--data.eval_batch_size", "8"),
    ]
    few = out.parent / "few.csv"
    few.write_text("file,class\n0.png,green\n1.png,green\n19.png,red\nlater/18.png,red\n")
    options = ["fit", "--model", "DANN", *data, *SHORT_FIT]
    assert run.main([*options, "--out", str(out)]) == 0
    return out, options, few


def test_its_scores_are_shown_and_no_accuracy(fitted, photos, capfd, monkeypatch):
    out, options, _ = fitted
    # It is at its end, so that this only resumes; the folder may have moved since.
    moved = photos.rename(photos.parent.parent / photos.name)
    again = [str(moved) if word == str(photos) else word for word in options]
    assert run.main([*again, "--out", str(out), "--ckpt_path", str(out / "last.ckpt")]) == 0
    moved.rename(photos)
    assert "already done" in capfd.readouterr().out
    result = json.loads((out / "result.json").read_text())
    assert (result["sources"], result["target"], result["remarks"]) == (["bright"], "camera", [])
    for streams in result["evaluations"][-1]["forms"].values():
        assert streams["target/test"]["n"] == 20
        assert streams["target/test"]["accuracy"] is None
        assert streams["target/test"]["label_free"]["InformationMaximisation"] is not None
    from da.cli.fit import show
    from da.engine.run_folder import read_result

    monkeypatch.setenv("COLUMNS", "150")
    show(read_result(out))
    said = " ".join(capfd.readouterr().out.split())
    assert "the 20 images of the target have no labels" in said
    assert "InformationMaximisation" in said
    assert "oracle" not in said
    assert "target test" not in said


def test_a_few_labels_are_evaluated_on(fitted, capfd):
    out, _, few = fitted
    line = ["test", str(out / "last.ckpt"), "--forms", "trained", "--out", str(out / "t.json")]
    assert run.main(line) == 0
    assert "no labels" in capfd.readouterr().out
    assert run.main([*line, "--data.target_labels", str(few)]) == 0
    assert "4 of 20" in capfd.readouterr().out
    scores = json.loads((out / "t.json").read_text())["scores"][""]["target/test"]
    assert (scores["n"], scores["unlabelled"]) == (4, 16)
    assert scores["accuracy"] in (0.0, 0.25, 0.5, 0.75, 1.0)


def test_what_waits_for_its_accuracy_is_refused(fitted, capfd):
    _, options, _ = fitted
    stopping = "--trainer.callbacks+=EarlyStopping"
    monitor = "--trainer.callbacks.monitor=accuracy/target/test"
    assert run.main([*options, stopping, monitor]) == 2
    err = capfd.readouterr().err
    assert (
        "unknown value to monitor 'accuracy/target/test'; did you mean 'accuracy/source/test'?"
        in err
    )
