"""A user's own folder of images of any size and kind, through the commands, and how it fails."""

import itertools
import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import run
from da.networks.backbones.base import build_backbone

#: File name and mode of the images of every class, each of another size.
MODES = {"a.png": "L", "b.gif": "P", "c.png": "RGBA", "d.jpg": "CMYK", "e.png": "I;16"}
DATA = "--data Folder --data.root images --data.source a --data.target b --data.image_size 32"
FIT = f"{DATA} --data.batch_size 4 --data.steps_per_epoch 2 --trainer.max_epochs 1"

GRID = {
    "data": "datasets.folder.Folder",
    "data_args": {"image_size": 32},
    "tasks": ["a->b"],
    "methods": ["SourceOnly"],
    "norms": ["bn", "wa"],
    "model": {"backbone": "digits_resnet", "bottleneck": 8},
    "seeds": [0],
    "batch_size": 4,
    "epochs": 1,
    "steps_per_epoch": 1,
    "lr": "published",
    "published_lr": 0.01,
}


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Two domains of two classes, an image of each mode in each."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for domain, label in itertools.product("ab", ("cat", "dog")):
        for name, mode in MODES.items():
            path = tmp_path / "images" / domain / label / name
            path.parent.mkdir(parents=True, exist_ok=True)
            height, width = rng.integers(5, 80, 2)
            if mode == "I;16":
                grey = rng.integers(0, 65536, (height, width), dtype=np.uint16)
                Image.fromarray(grey).save(path)
                continue
            pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(path)
    return tmp_path / "images"


@pytest.fixture
def call(capfd):
    """Runs a command; gives what it said on both streams."""

    def run_it(line, code=0):
        capfd.readouterr()
        got = run.main(line.split())
        out, err = capfd.readouterr()
        assert got == code, err or out
        return out, err

    return run_it


def test_check_fit_test_and_resume(images, call):
    out, _ = call("data check Folder --root images")
    assert "alpha 2, CMYK 2, 16-bit 2" in out
    assert "all is well: 20 images decoded, all can be read" in out

    call(f"fit {FIT} --out run")
    result = json.loads((images.parent / "run/result.json").read_text())
    assert result["evaluations"][0]["forms"][""]["target/test"]["n"] == 10
    assert result["preprocessing"]["image_size"] == 32

    call("test run/last.ckpt")
    scores = json.loads((images.parent / "run/test.json").read_text())["scores"][""]
    trained = result["evaluations"][0]["forms"][""]["target/test"]
    for key in ("accuracy", "cross_entropy"):
        assert scores["target/test"][key] == pytest.approx(trained[key], rel=1e-4, abs=1e-6)

    def manifest(options):
        call(f"test run/last.ckpt --forms target-stats --out t.json {options}")
        return torch.load("saved.ckpt", weights_only=True).get("data_manifest")

    assert manifest("--save saved.ckpt") == result["data_manifest"]
    (images.parent / "saved.ckpt").unlink()
    other = "--data.source b --data.target a"
    assert manifest(f"--save saved.ckpt {other}") is None, "it is of other images"

    # The same data go on; others are refused before anything is trained.
    more = f"fit {FIT} --trainer.max_epochs 2 --ckpt_path run/last.ckpt --out"
    call(f"{more} same")
    Image.new("RGB", (9, 9)).save(images / "b/dog/new.png")
    _, err = call(f"{more} other", code=2)
    assert "error: data: 'run/last.ckpt' was trained on other images" in err
    assert err.count("\n") == 1
    assert not (images.parent / "other").exists()
    # A checkpoint from before manifests were kept says nothing of its data.
    saved = torch.load("run/last.ckpt", weights_only=True)
    del saved["data_manifest"]
    torch.save(saved, "old.ckpt")
    call(f"fit {FIT} --trainer.max_epochs 2 --ckpt_path old.ckpt --out old")


@pytest.mark.long
def test_ablate(images, call):
    (images.parent / "grid.yaml").write_text(
        yaml.safe_dump({**GRID, "data_args": {**GRID["data_args"], "root": str(images)}})
    )
    out, _ = call("ablate grid.yaml --workers 1 --out out")
    assert "wa - bn" in out
    results = [json.loads(p.read_text()) for p in (images.parent / "out").rglob("result.json")]
    assert [r["preprocessing"]["image_size"] for r in results] == [32, 32]


@pytest.mark.long
def test_a_vision_transformer_trains_with_adamw_at_the_size_it_is_built_for(images, call):
    timm = pytest.importorskip("timm", reason="timm is not installed: pip install -e '.[timm]'")
    assert timm.list_models("vit_tiny_patch16_224")
    model = "--model DANN --model.backbone timm/vit_tiny_patch16_224 --model.optimizer adamw"
    line = f"fit {FIT} {model} --model.lr 1e-3 --model.critic_width 16"
    call(f"{line.replace('image_size 32', 'image_size 224')} --out run")
    result = json.loads((images.parent / "run/result.json").read_text())
    assert result["preprocessing"]["image_size"] == 224
    state = torch.load("run/last.ckpt", weights_only=False)["state_dict"]
    start = build_backbone("timm/vit_tiny_patch16_224").state_dict()
    trained = {k: state[f"network.backbone.{k}"] for k in start}
    assert all(value.isfinite().all() for value in trained.values())
    scales = [k for k in start if k.endswith("norm1.weight")]  # of layer norms, which start at 1
    assert scales
    assert not any(torch.equal(trained[k], start[k]) for k in scales)


def test_weights_decide_the_normalisation_and_the_size(images, call, caplog):
    timm = pytest.importorskip("timm", reason="timm is not installed: pip install -e '.[timm]'")
    name = "test_vit"
    if not timm.list_models(name):
        pytest.skip(f"timm {timm.__version__} has no {name}, whose pixels are not ImageNet's")
    torch.save(timm.create_model(name).state_dict(), "vit.pth")
    model = f"--model.backbone timm/{name} --model.weights vit.pth --model.bottleneck 8"
    line = f"fit {FIT} {model}".replace("--data.image_size 32", "")
    call(f"{line} --out run")
    assert "were trained with" not in caplog.text
    used = json.loads((images.parent / "run/result.json").read_text())["preprocessing"]
    half = [0.5] * 3
    assert used == {"mean": half, "std": half, "image_size": 160}
    out, _ = call("test run/last.ckpt")  # 160 again, or the network would refuse
    assert "written: run/test.json" in out
    call(f"{line} --data.mean [0.1,0.2,0.3] --out own")
    said = "data.mean is (0.1, 0.2, 0.3), and the weights of timm/test_vit were trained with"
    assert said in caplog.text
    used = json.loads((images.parent / "own/result.json").read_text())["preprocessing"]
    assert used["mean"] == [0.1, 0.2, 0.3]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_goes_in_the_middle_of_a_training_is_named(images, call, workers, monkeypatch):
    from da.methods.base import Method

    path = images / "b/cat/d.jpg"
    before = Method.on_train_start

    def lose(self):
        before(self)
        path.unlink()

    monkeypatch.setattr(Method, "on_train_start", lose)
    line = f"fit {FIT} --data.cache false --data.num_workers {workers} --out run"
    _, err = call(line.replace("max_epochs 1", "max_epochs 4"), code=2)
    last = err.splitlines()[-1]
    assert last.startswith("error: image 'images/b/cat/d.jpg' can't be read: No such file")


def test_a_file_that_changes_between_two_runs_is_read_anew(images, call):
    Image.new("RGB", (40, 40), "white").save(images / "a/cat/c.png")
    call(f"fit {FIT} --out one")
    Image.new("RGB", (40, 41), "black").save(images / "a/cat/c.png")
    call(f"fit {FIT} --out two")
    one, two = (
        json.loads((images.parent / name / "result.json").read_text()) for name in ("one", "two")
    )
    assert one["data_manifest"] != two["data_manifest"]
    assert one["evaluations"] != two["evaluations"]


REFUSED = {
    "truncated": ("a/cat/d.jpg", lambda p: p.write_bytes(p.read_bytes()[:-200]), "can't be read"),
    "empty": ("a/cat/d.jpg", lambda p: p.write_bytes(b""), "can't be read"),
    "text": ("b/dog/a.png", lambda p: p.write_text("<html>"), "can't be read"),
    "link": ("b/dog/z.png", lambda p: p.symlink_to("/nonexistent.png"), "which does not exist"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_bad_file_is_named_by_fit(images, call, kind):
    name, spoil, reason = REFUSED[kind]
    spoil(images / name)
    _, err = call(f"fit {FIT} --out run", code=2)
    last = err.splitlines()[-1]
    assert f"error: image 'images/{name}'" in last
    assert reason in last


def test_an_empty_file_is_named_before_the_first_step_also_without_a_cache(images, call):
    (images / "b/dog/e.png").write_bytes(b"")
    _, err = call(f"fit {FIT} --data.cache false --out run", code=2)
    said = "error: image 'images/b/dog/e.png' can't be read: it is empty (zero bytes); repair"
    assert err.splitlines()[-1].startswith(said)
    assert not (images.parent / "run").exists()


def test_an_empty_target(images, call):
    for path in [*(images / "b").rglob("*.*")]:
        path.unlink()
    _, err = call(f"fit {FIT}", code=2)
    assert "class 'cat' of domain 'b' holds no images" in err
    for path in (images / "b").iterdir():
        path.rmdir()
    _, err = call(f"fit {FIT}", code=2)
    assert "domain 'b' has no folders of classes" in err


def test_a_domain_against_itself_is_asked_for(images, call):
    _, err = call(f"fit {FIT} --data.target a", code=2)
    assert "source and target are both 'a': choose two domains, or set allow_same" in err
    call(f"fit {FIT} --data.target a --data.allow_same true --out run")
