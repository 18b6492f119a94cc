"""Predictions need the network and the images alone, and no bad file costs another its row."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import run


@pytest.fixture(scope="module")
def moved(tmp_path_factory, trained):
    """A checkpoint whose data are no longer where they were."""
    content = torch.load(trained / "bn" / "last.ckpt", weights_only=True)
    content["spec"]["data_args"]["root"] = "/no/such/folder"
    path = tmp_path_factory.mktemp("moved") / "bn.ckpt"
    torch.save(content, path)
    return path


@pytest.fixture
def photos(tmp_path, two_domains):
    """Three images, two of them in folders."""
    folder = tmp_path / "photos"
    (folder / "a" / "b").mkdir(parents=True)
    for name, path in (("red", "0.png"), ("green", "a/1.png"), ("red", "a/b/2.png")):
        shutil.copy(two_domains / "dark" / name / "03.png", folder / path)
    return folder


@pytest.fixture
def call(tmp_path, monkeypatch, capfd):
    """Runs a command; gives its exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run_it(*words):
        capfd.readouterr()
        code = run.main([str(word) for word in words])
        return code, *capfd.readouterr()

    return run_it


def rows_of(path):
    return list(csv.DictReader(path.open(encoding="utf-8")))


def test_predictions_need_no_data_and_have_every_class(tmp_path, call, moved, photos, two_domains):
    code, out, _ = call("predict", moved, "--images", photos)
    assert (code, out.splitlines()[-1]) == (0, "written: predictions.csv (3 images)")
    rows = rows_of(tmp_path / "predictions.csv")
    assert [row["file"] for row in rows] == ["0.png", "a/1.png", "a/b/2.png"]
    for row in rows:
        p = {name: float(row[name]) for name in ("green", "red")}
        assert sum(p.values()) == pytest.approx(1, abs=2e-6)
        assert row["class"] == max(p, key=p.get)
        assert float(row["probability"]) == max(p.values())
    # As with the data, whose module prepares the images then.
    assert call("predict", moved, "--images", photos, "--data.root", two_domains,
                "--out", "with.csv")[0] == 0  # fmt: skip
    assert rows_of(tmp_path / "with.csv") == rows
    # And one file alone.
    assert call("predict", moved, "--images", photos / "a" / "1.png", "--out", "one.csv")[0] == 0
    assert rows_of(tmp_path / "one.csv") == [{**rows[1], "file": "1.png"}]


def test_options_of_images_are_heeded_without_the_data(tmp_path, call, moved, photos):
    call("predict", moved, "--images", photos, "--out", "a.csv")
    call("predict", moved, "--images", photos, "--out", "b.csv", "--data.eval_batch_size", 2)
    call("predict", moved, "--images", photos, "--out", "c.csv", "--data.mean", "[0,0,0]")
    a, b, c = ([float(row["red"]) for row in rows_of(tmp_path / f"{x}.csv")] for x in "abc")
    assert a == pytest.approx(b, abs=2e-6)
    assert a != pytest.approx(c, abs=1e-3)
    code, _, err = call("predict", moved, "--images", photos, "--stats", "source")
    assert (code, err.count("\n")) == (2, 1)
    assert "/no/such/folder" in err


def test_a_bad_file_and_an_odd_name_cost_no_other_its_row(tmp_path, call, moved, photos):
    (photos / "broken.jpg").write_text("nothing")
    Image.new("RGB", (9, 9)).save(photos / "new\nline.png")
    try:
        (photos / "0.png").rename(photos / os.fsdecode(b"caf\xe9.png"))
    except OSError:
        pytest.skip("the file system takes names in UTF-8 alone")
    code, out, err = call("predict", moved, "--images", photos, "--format", "json")
    assert code == 1
    assert out.splitlines()[-1] == (
        "written: predictions.json (4 images; 1 left out, as they can't be read; 1 with an escaped "
        "name)"
    )
    assert "broken.jpg' can't be read: it is no image" in err
    content = json.loads((tmp_path / "predictions.json").read_text())
    assert [p["file"] for p in content["predictions"]] == [
        "a/1.png", "a/b/2.png", "caf\\xe9.png", "new\nline.png"
    ]  # fmt: skip
    assert [*content["unreadable"]] == ["broken.jpg"]
    for one in content["predictions"]:
        p = list(one["probabilities"].values())
        assert p == sorted(p, reverse=True)
        assert (one["class"], one["probability"]) == next(iter(one["probabilities"].items()))
    assert call("predict", moved, "--images", photos, "--stats", "images")[0] == 1
    assert [row["file"] for row in rows_of(tmp_path / "predictions.csv")][2] == "caf\\xe9.png"


def test_what_nobody_would_notice_of_the_files_is_said_and_costs_no_row(
    tmp_path, call, moved, photos
):
    (photos / "notes.txt").write_text("nothing")
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime")]
    frames[0].save(photos / "pages.tif", save_all=True, append_images=frames[1:])
    Image.fromarray(np.full((32, 32), 4000, np.uint16)).save(photos / "dark.png")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(photos / "inside.jpg", quality=95)
    content = bytearray((photos / "inside.jpg").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = bytes(400)
    (photos / "inside.jpg").write_bytes(content)
    code, out, err = call("predict", moved, "--images", photos, "--format", "json")
    assert (code, out.splitlines()[-1]) == (
        0,
        "written: predictions.json (6 images; 1 damaged inside)",
    )
    for words in (
        "1 file is passed over, as it isn't called like an image (.txt 1)",
        "a file holds several frames or pages, of which the first is read ('pages.tif')",
        "no grey image of 16 bits (1) has a value above 4,000, which takes 12 bits",
        f"predicted all the same: image '{photos / 'inside.jpg'}' is damaged inside",
    ):
        assert err.count(words) == 1, err
    assert "\nCorrupt" not in f"\n{err}"  # the decoder names no file
    content = json.loads((tmp_path / "predictions.json").read_text())
    assert len(content["predictions"]) == 6
    assert [*content["damaged"]] == ["inside.jpg"]


def test_where_nothing_can_be_read_nothing_is_written(tmp_path, call, moved):
    (tmp_path / "a.png").write_text("nothing")
    code, out, err = call("predict", moved, "--images", "a.png")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "no image could be read: image 'a.png' can't be read" in err
    assert not (tmp_path / "predictions.csv").exists()
