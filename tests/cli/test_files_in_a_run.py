"""Files that go or change while a run is under way, or before it goes on: real processes."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from da.engine.resuming import refuse_other_data
from da.engine.spec import RunSpec
from da.engine.training import build_method_and_data, train
from da.errors import UserError

ROOT = Path(__file__).parents[2]
DATA = "--data Folder --data.root images --data.source a --data.target b --data.image_size 32"
FIT = f"fit {DATA} --data.batch_size 4 --model.bottleneck 8 --data.steps_per_epoch"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder whose ``images`` are of two domains."""
    folder = tmp_path_factory.mktemp("run")
    random = np.random.default_rng(0)
    for domain in "ab":
        for label in ("cat", "dog"):
            place = folder / "images" / domain / label
            place.mkdir(parents=True)
            for i in range(4):
                pixels = random.integers(0, 256, (40, 40 + i, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{i}.jpg")
    return folder


@pytest.fixture(scope="module")
def trained(images):
    """The same with a run of one short epoch on them, without a cache."""
    program = start(images, f"{FIT} 2 --trainer.max_epochs 1 --data.cache false --out run")
    assert program.wait(120) == 0, program.stderr.read()
    return images


@pytest.fixture
def folder(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "copy")


def start(folder, line):
    return subprocess.Popen(
        [sys.executable, ROOT / "run.py", *line.split()],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until_training(folder, program):
    """Waits until steps of the first epoch are on disk, which is after a hundred of them."""
    for _ in range(1200):
        if any(path.stat().st_size for path in folder.glob("long/metrics/metrics.csv")):
            return
        assert program.poll() is None, program.stderr.read()
        time.sleep(0.05)
    pytest.fail("waited for a minute")


def refused(folder, line):
    """The one line of a run that is refused."""
    program = start(folder, line)
    _, said = program.communicate(timeout=120)
    assert program.returncode == 2
    assert said.count("\n") == 1, said
    return said


@pytest.mark.long
@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_is_deleted_in_the_first_epoch_ends_the_run_by_its_name(folder, workers):
    line = f"{FIT} 100000 --trainer.max_epochs 1 --data.cache false --data.num_workers {workers}"
    program = start(folder, f"{line} --out long")
    until_training(folder, program)
    (folder / "images/b/dog/2.jpg").unlink()
    out, error = program.communicate(timeout=120)
    assert program.returncode == 2
    expected = "error: image 'images/b/dog/2.jpg' can't be read: No such file or directory"
    assert error.startswith(expected), error
    assert error.count("\n") == 1
    assert "Traceback" not in out
    assert not (folder / "long/result.json").exists()  # nothing counts as done


@pytest.mark.long
def test_the_last_checkpoint_stays_and_goes_on_once_the_file_is_back(folder):
    line = f"{FIT} 2 --data.cache false --out long --trainer.max_epochs"
    last = folder / "long/last.ckpt"
    program = start(folder, f"{line} 100000")
    for _ in range(1200):
        if last.exists():
            break
        assert program.poll() is None, program.stderr.read()
        time.sleep(0.05)
    lost = folder / "images/a/cat/1.jpg"
    content = lost.read_bytes()
    lost.unlink()
    _, error = program.communicate(timeout=120)
    assert program.returncode == 2
    assert error.startswith("error: image 'images/a/cat/1.jpg' can't be read: No such file")
    kept = torch.load(last, weights_only=True)
    epochs = kept["epoch"] + 1
    assert kept["global_step"] == 2 * epochs
    # Without the file the run would go on with other images: it is refused, and with it goes on.
    more = f"{line} {epochs + 1} --ckpt_path long/last.ckpt"
    said = refused(folder, more)
    assert "'long/last.ckpt' was trained on other images than there are now" in said
    assert "(source 'a': 8 images then, 7 now)" in said
    lost.write_bytes(content)
    assert start(folder, more).wait(120) == 0
    evaluations = json.loads((folder / "long/result.json").read_text())["evaluations"]
    assert evaluations[-1]["step"] == 2 * (epochs + 1)


@pytest.mark.long
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: (root / "b/cat/0.jpg").unlink(), "target 'b': 8 images then, 7 now"),
        (
            lambda root: Image.new("RGB", (9, 9)).save(root / "a/dog/0.jpg"),
            "source 'a': 8 images as then, but not the same",
        ),
        (
            lambda root: (root / "b/cat/0.jpg").rename(root / "b/dog/9.jpg"),
            "target 'b': 8 images as then, but not the same",
        ),
    ],
    ids=["deleted", "changed", "moved to another class"],
)
def test_a_resume_on_other_images_is_refused_and_says_which(folder, change, words):
    change(folder / "images")
    line = f"{FIT} 2 --trainer.max_epochs 2 --data.cache false --ckpt_path run/last.ckpt"
    said = refused(folder, f"{line} --out more")
    assert said.startswith("error: data: 'run/last.ckpt' was trained on other images than there")
    assert words in said
    other = {"a": "target 'b'", "b": "source 'a'"}[words.partition("'")[2][0]]
    assert other not in said
    assert not (folder / "more").exists()


def test_an_older_checkpoint_is_gone_on_with_and_a_note_says_that_images_are_not_compared(caplog):
    now = {"data_manifest": "new", "data_sets": {"source 'a'": [8, "x"], "target 'b'": [8, "y"]}}
    refuse_other_data(now, {"data_manifest": "by another rule"}, "old.ckpt")
    assert caplog.messages == [
        "'old.ckpt' is older than the record of images: they are not compared"
    ]
    refuse_other_data(now, dict(now), "same.ckpt")
    refuse_other_data(now, None, "none.ckpt")
    before = {"data_manifest": "old", "data_sets": now["data_sets"] | {"source 'a'": [7, "z"]}}
    with pytest.raises(UserError, match=r"\(source 'a': 7 images then, 8 now\)"):
        refuse_other_data(now, before, "new.ckpt")


@pytest.mark.long
def test_with_the_cache_a_file_that_is_deleted_does_not_matter(folder, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    program = start(folder, f"{FIT} 400 --trainer.max_epochs 1 --out long")
    until_training(folder, program)
    (folder / "images/b/dog/2.jpg").unlink()
    _, error = program.communicate(timeout=120)
    assert program.returncode == 0, error
    result = json.loads((folder / "long/result.json").read_text())
    assert result["evaluations"][0]["forms"][""]["target/test"]["n"] == 8
    first = json.loads((folder / "run/result.json").read_text())
    assert result["data_manifest"] == first["data_manifest"]  # of the images that it had


@pytest.mark.parametrize("cache", [True, False])
def test_a_cell_of_a_grid_is_done_from_the_cache_and_names_the_file_without(
    images, cache, monkeypatch, tmp_path
):
    folder = shutil.copytree(images, tmp_path / "copy")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    data_args = {"root": str(folder / "images"), "image_size": 32, "cache": cache}
    settings = {"data": "datasets.folder.Folder", "source": "a", "target": "b", "norm": "bn"}
    length = {"batch_size": 4, "epochs": 2, "steps_per_epoch": 4, "lr": 0.01, "seed": 0}
    cell = RunSpec(**settings, **length, method="SourceOnly", data_args=data_args)
    lost = folder / "images/b/dog/2.jpg"

    def lose(_):
        lost.unlink(missing_ok=True)

    if not cache:
        with pytest.raises(UserError, match=r"b/dog/2\.jpg' can't be read: No such file"):
            train(cell, tmp_path, lose)
        return
    whole = build_method_and_data(cell)[1].manifest
    assert train(cell, tmp_path, lose).data_manifest == whole
    assert not lost.exists()
