"""The whole of it as real processes: fit, test, predict, ablate; killed, resumed, refused."""

import csv
import json
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.digits import Digits
from run import main

ROOT = Path(__file__).parents[1]
FIT = ["--data.steps_per_epoch", "10", "--data.batch_size", "8", "--model.norm", "wa"]

GRID = """
data: datasets.digits.Digits
tasks: [rendered->optical]
methods: [SourceOnly, DANN]
norms: [bn, wa]
model: {backbone: digits_resnet, bottleneck: 16}
seeds: [0]
batch_size: 8
epochs: 2
steps_per_epoch: 4
lr: published
published_lr: 0.05
"""


def start(folder, *arguments):
    return subprocess.Popen(
        [sys.executable, ROOT / "run.py", *map(str, arguments)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts what runs behind it with Ctrl-C ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def run(folder, *arguments, code=0):
    process = start(folder, *arguments)
    out, err = process.communicate(timeout=280)
    assert process.returncode == code, err or out
    return out, err


@pytest.fixture(params=["in process", pytest.param("real", marks=pytest.mark.long)])
def command(request, tmp_path, monkeypatch, capfd):
    """Runs a command in an empty folder; gives what it said on both streams."""
    monkeypatch.chdir(tmp_path)

    def in_process(*arguments, code=0):
        capfd.readouterr()
        assert main(list(map(str, arguments))) == code
        return capfd.readouterr()

    return in_process if request.param == "in process" else partial(run, tmp_path)


def until(condition, process):
    for _ in range(2400):
        if condition():
            return
        if process.poll() is not None:
            pytest.fail(f"ended with {process.returncode}: {process.communicate()}")
        time.sleep(0.05)
    pytest.fail("waited for two minutes")


def read(path):
    return json.loads(path.read_text())


def images_of(folder, count):
    """Target test images as files; gives the labels by file name."""
    data = Digits().set_of("target", "test")
    images = (data.images(np.arange(count)).permute(0, 2, 3, 1).numpy()).astype(np.uint8)
    folder.mkdir()
    names = [f"{i:03d}.png" for i in range(count)]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(folder / name)
    return dict(zip(names, map(str, data.labels[:count]), strict=True))


def test_fit_then_test_then_predict(tmp_path, command, alike):
    out, err = command("fit", *FIT, "--trainer.max_epochs", 2, "--out", "run")
    assert err == ""
    assert out.splitlines()[0].startswith("epoch 1/2: ")
    assert "label-free (InformationMaximisation)" in out
    result = read(tmp_path / "run/result.json")
    assert [(e["epoch"], e["step"]) for e in result["evaluations"]] == [(1, 10), (2, 20)]
    assert result["spec"]["norm"] == "wa"
    assert (tmp_path / "run/metrics/metrics.csv").exists()

    out, err = command("test", "run/last.ckpt")
    assert err == ""
    tested = read(tmp_path / "run/test.json")["scores"][""]
    trained = result["evaluations"][-1]["forms"][""]
    for stream in ("source/test", "target/test"):
        assert alike(tested[stream], trained[stream], 1e-4)

    count = tested["target/test"]["n"]
    labels = images_of(tmp_path / "images", count)
    out, err = command("predict", "run/last.ckpt", "--images", "images", "--out", "p.csv")
    assert err == ""
    assert f"written: p.csv ({count} images)" in out
    rows = list(csv.DictReader((tmp_path / "p.csv").open()))
    assert [row["file"] for row in rows] == sorted(labels)
    correct = sum(row["class"] == labels[row["file"]] for row in rows)
    assert correct / count == pytest.approx(tested["target/test"]["accuracy"], abs=1e-6)
    assert all(0.1 <= float(row["probability"]) <= 1 for row in rows)

    # A finished run is neither trained again nor overwritten.
    before = (tmp_path / "run/result.json").stat().st_mtime_ns
    _, err = command("fit", *FIT, "--trainer.max_epochs", 2, "--out", "run", code=2)
    assert err == (
        "error: out: 'run' holds a finished run; to train on, give --ckpt_path run/last.ckpt with "
        "a larger --trainer.max_epochs; or name another folder\n"
    )
    again = ["fit", *FIT, "--trainer.max_epochs", 2, "--ckpt_path", "run/last.ckpt"]
    assert "already done: run/result.json" in command(*again)[0]
    assert (tmp_path / "run/result.json").stat().st_mtime_ns == before
    text = (tmp_path / "run/result.json").read_text()
    (tmp_path / "run/result.json").write_text(text.replace("epoch", "epocj", 1))
    assert "result: 'run/result.json' is damaged: its checksum" in command(*again, code=2)[1]


def test_a_run_of_steps_ends_with_an_evaluation(tmp_path, command, alike):
    out, err = command("fit", *FIT, "--trainer.max_steps", 13, "--out", "run")
    assert err == ""
    assert [line[:9] for line in out.splitlines()[:2]] == ["epoch 1: ", "epoch 2: "]
    result = read(tmp_path / "run/result.json")
    assert [(e["epoch"], e["step"]) for e in result["evaluations"]] == [(1, 10), (2, 13)]
    saved = torch.load(tmp_path / "run/last.ckpt", weights_only=True)
    assert saved["global_step"] == 13
    command("test", "run/last.ckpt", "--out", "t.json")
    tested = read(tmp_path / "t.json")["scores"][""]["target/test"]
    last = result["evaluations"][-1]["forms"][""]["target/test"]
    assert alike(tested, last, 1e-4)
    again = ["fit", *FIT, "--ckpt_path", "run/last.ckpt", "--trainer.max_steps"]
    assert (
        "already done: run/result.json; to train on, raise --trainer.max_steps"
        in (command(*again, 13)[0])
    )
    command(*again, 24)
    result = read(tmp_path / "run/result.json")
    steps = [(e["epoch"], e["step"]) for e in result["evaluations"]]
    assert steps == [(1, 10), (2, 13), (2, 20), (3, 24)]
    # Steps alone are the length of the run: the default number of epochs is 10.
    short = ["--data.steps_per_epoch", 1, "--data.batch_size", 2, "--trainer.max_steps", 12]
    command("fit", "--model.norm", "wa", *short, "--out", "long")
    assert read(tmp_path / "long/result.json")["evaluations"][-1]["step"] == 12


def test_predict_takes_images_of_any_size_and_mode(tmp_path, command):
    command("fit", *FIT, "--trainer.max_epochs", 1, "--out", "run")
    folder = tmp_path / "images"
    folder.mkdir()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))
    for mode, name in (("RGB", "a.jpg"), ("L", "b.png"), ("RGBA", "c.png"), ("P", "d.gif")):
        image.convert(mode).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    command("predict", "run/last.ckpt", "--images", "images", "--out", "p.csv")
    rows = list(csv.reader((tmp_path / "p.csv").open()))
    assert rows[0] == ["file", "class", "probability", *map(str, range(10))]
    assert [row[0] for row in rows[1:]] == ["a.jpg", "b.png", "c.png", "d.gif"]
    (folder / "e.png").write_bytes(b"not an image")
    before = (tmp_path / "p.csv").read_bytes()
    arguments = ["predict", "run/last.ckpt", "--images", "images", "--out", "p.csv"]
    out, err = command(*arguments, code=1)
    passed_over, left_out = err.splitlines()
    assert "1 file is passed over, as it isn't called like an image (.txt 1)" in passed_over
    assert left_out.startswith("left out: ")
    assert "e.png" in left_out
    assert out.splitlines()[-1] == "written: p.csv (4 images; 1 left out, as they can't be read)"
    assert (tmp_path / "p.csv").read_bytes() == before


def weights_of(path):
    return torch.load(path, weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    run(folder, "fit", *FIT, "--trainer.max_epochs", 6, "--out", "run")
    return folder / "run"


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)]
)
def test_an_interrupted_fit_says_so_and_is_resumed_to_the_same_end(
    tmp_path, uninterrupted, number, code
):
    options = [*FIT, "--trainer.max_epochs", 6]
    process = start(tmp_path, "fit", *options, "--out", "run")
    until((tmp_path / "run/last.ckpt").exists, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert not (tmp_path / "run/result.json").exists()
    if code > 0:
        assert "stopped; go on with --ckpt_path run/last.ckpt" in err
    assert 10 <= torch.load(tmp_path / "run/last.ckpt", weights_only=True)["global_step"] < 60
    run(tmp_path, "fit", *options, "--ckpt_path", "run/last.ckpt")
    whole, resumed = weights_of(uninterrupted / "last.ckpt"), weights_of(tmp_path / "run/last.ckpt")
    assert all(torch.equal(v, resumed[k]) for k, v in whole.items())
    ours, theirs = (read(p / "result.json") for p in (tmp_path / "run", uninterrupted))
    for key in ("evaluations", "initial_loss", "lr_over_norm2", "feature_deviation"):
        assert ours[key] == theirs[key], key
    logged = [p.name for p in (tmp_path / "run").glob("metrics*")]
    assert sorted(logged) == ["metrics", "metrics-2"]  # what was logged before the stop stays


@pytest.mark.long
def test_an_interrupted_fit_with_other_settings_is_not_resumed(tmp_path, uninterrupted):
    options = ["fit", *FIT, "--ckpt_path", uninterrupted / "last.ckpt", "--out", "run"]
    _, err = run(tmp_path, *options, "--model.lr", "0.3", code=2)
    assert "error: model.lr: " in err
    assert not (tmp_path / "run").exists()


def identities(out):
    """Which file each result is: a result that is written again is another file."""
    return {
        path.parent.name: (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in out.glob("cells/*/result.json")
    }


def tidy(out):
    """All columns of the runs but those that are times."""
    rows = csv.DictReader((out / "runs.csv").open())
    return sorted([(k, v) for k, v in r.items() if not k.startswith("seconds")] for r in rows)


@pytest.mark.long
def test_a_killed_ablation_goes_on_and_ends_in_the_same_tables(tmp_path):
    (tmp_path / "grid.yaml").write_text(GRID)
    command = ["ablate", "grid.yaml", "--workers", 1]
    out, err = run(tmp_path, *command, "--out", "whole")
    assert err == ""
    assert "wa - bn" in out
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert len(identities(whole)) == 4

    process = start(tmp_path, *command, "--out", "cut")
    until(lambda: len(identities(cut)) >= 2, process)
    process.kill()
    process.communicate()
    finished = identities(cut)
    assert 2 <= len(finished) < 4, "killed too late"
    out, _ = run(tmp_path, *command, "--out", "cut")
    assert "wa - bn" in out
    assert {k: v for k, v in identities(cut).items() if k in finished} == finished
    assert identities(cut).keys() == identities(whole).keys()
    assert (cut / "table.csv").read_bytes() == (whole / "table.csv").read_bytes()
    assert tidy(cut) == tidy(whole)

    finished = identities(cut)
    run(tmp_path, *command, "--out", "cut")  # nothing left to do
    assert identities(cut) == finished
    for name in ("report.md", "table.csv", "runs.csv", "figure.png"):
        assert (cut / name).stat().st_size > 0
