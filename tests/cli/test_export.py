"""Exported networks give what the checkpoint gives, wherever they are loaded."""

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import run

FORMATS = {"onnx": ".onnx", "torch-export": ".pt2", "safetensors": ".safetensors", "torch": ".pth"}


@pytest.fixture
def call(tmp_path, monkeypatch, capfd):
    """Runs a command; gives its exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run_it(*words):
        capfd.readouterr()
        code = run.main([str(word) for word in words])
        return code, *capfd.readouterr()

    return run_it


def predicted(path):
    rows = list(csv.DictReader(path.open()))
    return [(r["file"], r["class"], float(r["green"]), float(r["red"])) for r in rows]


@pytest.mark.parametrize(
    ("form", "norm"),
    [
        pytest.param("onnx", "wa", marks=pytest.mark.long),
        *(("torch-export", "bn"), ("safetensors", "wa"), ("torch", "bn")),
    ],
)
def test_an_exported_network_predicts_as_the_checkpoint(
    tmp_path, call, trained, two_domains, form, norm
):
    if form == "onnx":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    checkpoint, file = trained / norm / "last.ckpt", f"net{FORMATS[form]}"
    code, out, err = call("export", checkpoint, "--format", form, "--out", file)
    assert (code, err) == (0, "")
    assert "checked on 20 images (target dark, test split), together and one alone" in out
    assert f"written: {file}, {file}.json" in out
    images = two_domains / "bright"
    assert call("predict", checkpoint, "--images", images, "--out", "a.csv")[0] == 0
    assert call("predict", file, "--images", images, "--out", "b.csv")[0] == 0
    first, second = predicted(tmp_path / "a.csv"), predicted(tmp_path / "b.csv")
    assert [r[:2] for r in first] == [r[:2] for r in second]
    np.testing.assert_allclose([r[2:] for r in first], [r[2:] for r in second], atol=2e-5)
    beside = json.loads((tmp_path / f"{file}.json").read_text())
    assert beside["classes"] == ["green", "red"]
    assert beside["preprocessing"]["image_size"] == 32
    assert beside["preprocessing"]["mean"] == pytest.approx([0.485, 0.456, 0.406])
    assert (beside["norm"], beside["format"]) == (norm, form)
    assert beside["compared"]["images"] == 20
    assert beside["compared"]["difference"] <= 1e-4
    code, _, err = call("export", checkpoint, "--format", form, "--out", file)
    assert (code, err) == (2, f"error: out: '{file}' exists; name a new file, or remove it\n")


def test_onnx_takes_any_batch_and_tells_classes_and_preprocessing(tmp_path, call, trained):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    assert call("export", trained / "wa" / "last.ckpt", "--out", "net.onnx")[0] == 0
    session = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
    said = session.get_modelmeta().custom_metadata_map
    assert json.loads(said["classes"]) == ["green", "red"]
    assert json.loads(said["preprocessing"])["resize"] == 32
    images = np.random.default_rng(0).normal(size=(7, 3, 32, 32)).astype(np.float32)
    (together,) = session.run(["logits"], {"images": images})
    for size in (1, 2, 5):
        (part,) = session.run(["logits"], {"images": images[:size]})
        np.testing.assert_allclose(part, together[:size], atol=1e-5)
    assert [p.name for p in tmp_path.iterdir()].count("net.onnx.data") == 0  # all in one file


def test_the_docs_snippet_says_what_predict_says(tmp_path, call, trained, two_domains, capfd):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    text = (Path(__file__).parents[2] / "docs" / "usage.md").read_text()
    code = text.partition("<!-- onnx -->\n```python\n")[2].partition("```")[0]
    call("export", trained / "bn" / "last.ckpt", "--out", "office.onnx")
    shutil.copy(two_domains / "dark" / "red" / "03.png", tmp_path / "photo.jpg")
    call("predict", "office.onnx", "--images", "photo.jpg")
    ((_, label, _, _),) = predicted(tmp_path / "predictions.csv")
    exec(code, {})
    assert capfd.readouterr().out.strip() == label


def test_without_images_to_check_it_on_nothing_is_exported(tmp_path, call, trained, two_domains):
    content = torch.load(trained / "wa" / "last.ckpt", weights_only=True)
    content["spec"]["data_args"]["root"] = "/no/such/folder"
    torch.save(content, tmp_path / "moved.ckpt")
    code, _, err = call("export", "moved.ckpt", "--format", "torch")
    assert (code, err.count("\n")) == (2, 1)
    assert "there are no images to check the exported network on (" in err
    assert "--images FOLDER" in err
    assert not (tmp_path / "moved.pth").exists()
    folder = two_domains / "bright" / "red"
    code, out, _ = call("export", "moved.ckpt", "--format", "torch", "--images", folder)
    assert code == 0
    assert f"checked on 10 images (of '{folder}')" in out
    assert (tmp_path / "moved.pth").exists()


def test_what_can_not_be_exported_is_one_line(tmp_path, call, trained):
    wa = trained / "wa" / "last.ckpt"
    for words, said in (
        ([wa, "--format", "tflite"], "unknown format 'tflite'"),
        ([wa, "--format", "torch", "--out", "a.onnx"], "a file of format torch ends in .pth"),
        ([trained / "wa"], "is a folder; give the file"),
        (["no.ckpt"], "no file 'no.ckpt'"),
    ):
        code, out, err = call("export", *words)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert said in err
    torch.save({"fc.weight": torch.zeros(2, 3)}, tmp_path / "a.pth")
    code, _, err = call("export", "a.pth")
    assert (code, "--save NEW.ckpt makes one" in err) == (2, True)


def test_the_packages_of_a_format_are_named_as_anybody_can_install_them(
    tmp_path, call, trained, monkeypatch
):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    code, out, err = call("export", trained / "wa" / "last.ckpt", "--out", "net.onnx")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert "format 'onnx' needs the package 'onnxscript'" in err
    assert err.endswith(": pip install onnx onnxscript onnxruntime\n")
    assert not (tmp_path / "net.onnx").exists()


def test_a_damaged_export_is_named(tmp_path, call, trained, two_domains):
    call("export", trained / "bn" / "last.ckpt", "--format", "torch-export", "--out", "net.pt2")
    whole = (tmp_path / "net.pt2").read_bytes()
    (tmp_path / "net.pt2").write_bytes(whole[: len(whole) // 2])
    code, out, err = call("predict", "net.pt2", "--images", two_domains / "dark")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert "'net.pt2' can't be read as a .pt2 file" in err
