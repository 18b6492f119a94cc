"""Checkpoints that test and predict take: of fit, and of a plain loop that knows nothing of it."""

import csv
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from in_process_pool import in_process
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import run
from da.cli.test import without_batch_norm
from da.grids.session import Session
from da.networks.backbones.base import build_backbone
from da.norms import normaliser
from da.ops.seeding import derive_seed, permutation

CLASSES = ("blue", "green", "red")
SHORT = ["--data.steps_per_epoch", "3", "--trainer.max_epochs", "1"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two domains of 3 classes, 12 images each, 32 × 32: each its colour, the target darker."""
    root = tmp_path_factory.mktemp("domains")
    random = np.random.default_rng(0)
    for domain, scale, shift in (("bright", 1.0, 60), ("dark", 0.4, 0)):
        for label, name in enumerate(CLASSES):
            (root / domain / name).mkdir(parents=True)
            for i in range(12):
                image = random.normal(60, 20, (32, 32, 3))
                image[..., 2 - label] += 60
                image = np.clip(scale * image + shift, 0, 255).astype(np.uint8)
                Image.fromarray(image).save(root / domain / name / f"{i:02d}.png")
    return root


def read(root, domain):
    """Images as ImageNet's networks take them, and labels: by Pillow and NumPy alone."""
    files = sorted((root / domain).rglob("*.png"))
    pixels = np.stack([np.asarray(Image.open(file), np.float64) for file in files])
    pixels = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    labels = [CLASSES.index(file.parent.name) for file in files]
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float(), torch.tensor(labels)


class Bottlenecked(nn.Module):
    """The layout of TLLib's classifiers: the ResNet keeps an idle classifier of its own."""

    def __init__(self, classes=3):
        super().__init__()
        self.backbone = torchvision.models.resnet18()
        self.bottleneck = nn.Sequential(nn.Linear(512, 16), nn.BatchNorm1d(16), nn.ReLU())
        self.head = nn.Linear(16, classes)

    def forward(self, x):
        fc, self.backbone.fc = self.backbone.fc, nn.Identity()
        x = self.backbone(x)
        self.backbone.fc = fc
        return self.head(self.bottleneck(x))


def trained(network, root, steps=60):
    """A plain loop."""
    images, labels = read(root, "bright")
    optimiser = torch.optim.SGD(network.train().parameters(), lr=0.01, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        chosen = torch.randperm(len(images), generator=generator)[:12]
        optimiser.zero_grad()
        F.cross_entropy(network(images[chosen]), labels[chosen]).backward()
        optimiser.step()
    return network.eval()


@pytest.fixture(scope="module")
def whole(root):
    torch.manual_seed(1)
    return trained(torchvision.models.resnet18(num_classes=3), root)


@pytest.fixture(scope="module")
def split(root):
    torch.manual_seed(2)
    return trained(Bottlenecked(), root)


def adapted(network, images):
    """Batch norm's statistics on images alone: PyTorch's own cumulative average, equal batches.

    The images come class by class; the batches mix them, as everywhere here.
    """
    images = images[permutation(derive_seed("mixed"), 0, len(images))]
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = None
        norm.reset_running_stats()
    network.train()
    with torch.no_grad():
        for batch in images.split(18):
            assert len(batch) == 18
            network(batch)
    return network.eval()


def expected(network, images):
    with torch.no_grad():
        return network(images)


@pytest.fixture
def data(root):
    return (
        f"--model.backbone resnet18 --data Folder --data.root {root} --data.source bright "
        "--data.target dark --data.image_size 32 --data.resize 32 --data.eval_batch_size 18"
    )


@pytest.fixture
def call(tmp_path, monkeypatch, capfd):
    """Runs a command in an empty folder; gives what it said on standard output."""
    monkeypatch.chdir(tmp_path)

    def run_it(line):
        capfd.readouterr()
        code = run.main(line.split())
        out, err = capfd.readouterr()
        # Small images for a network of large ones: that is said, and wanted here.
        other = [line for line in err.splitlines() if not line.endswith("yours is used")]
        assert (code, other) == (0, []), err
        return out

    return run_it


@pytest.fixture
def refused(refused_words):
    """As ``refused_words``, of a command line."""
    return lambda line: refused_words(*line.split())


def file_of(network, layout, folder):
    """The network as other programs leave it behind."""
    state = network.state_dict()
    if layout == "safetensors":
        path = folder / "office.safetensors"
        save_file(state, path)
        return path
    path = folder / "office.pth"
    if layout == "a loop's":
        content = {"epoch": 3, "arch": "resnet18", "best": 0.5}
        state = content | {"state_dict": {f"module.{k}": v for k, v in state.items()}}
    torch.save(state, path)
    return path


@pytest.mark.parametrize(
    ("kind", "layout"),
    [
        pytest.param("whole", "plain", marks=pytest.mark.long),
        pytest.param("whole", "a loop's", marks=pytest.mark.long),
        ("split", "safetensors"),
    ],
)
def test_a_checkpoint_from_elsewhere_scores_as_in_a_plain_loop_in_every_form(
    request, tmp_path, call, root, data, kind, layout
):
    network = request.getfixturevalue(kind)
    state = {k: v.clone() for k, v in network.state_dict().items()}
    file = file_of(network, layout, tmp_path)
    out = call(f"test {file} {data}")
    assert f"{file}: backbone resnet18 from " in out.splitlines()[0]
    assert "bn@source-stats" in out  # in full where nothing folds lines
    assert ("bottleneck of 16" in out, "left out" in out) == (kind == "split",) * 2
    scores = json.loads((tmp_path / "office.test.json").read_text())["scores"]
    assert list(scores) == ["", "source-stats", "target-stats"]
    domains = {role: read(root, name) for role, name in (("source", "bright"), ("target", "dark"))}
    try:
        for form in scores:
            if form:
                adapted(network, domains[form.removesuffix("-stats")][0])
            for role, (images, labels) in domains.items():
                logits = expected(network, images)
                found = scores[form][f"{role}/test"]
                assert found["n"] == 36
                accuracy = (logits.argmax(1) == labels).double().mean().item()
                assert found["accuracy"] == pytest.approx(accuracy)
                entropy = F.cross_entropy(logits, labels).item()
                assert found["cross_entropy"] == pytest.approx(entropy, rel=1e-3)
    finally:
        network.load_state_dict(state)
    # The case is one where the forms differ, and the network has learned something.
    entropies = [scores[form]["target/test"]["cross_entropy"] for form in scores]
    assert len({round(x, 2) for x in entropies}) == 3
    assert scores[""]["source/test"]["accuracy"] > 0.5


@pytest.mark.parametrize("stats", [None, "target", "images"])
def test_predictions_with_any_statistics_are_those_of_a_plain_loop(
    tmp_path, call, root, data, split, stats
):
    state = {k: v.clone() for k, v in split.state_dict().items()}
    file = file_of(split, "a loop's", tmp_path)
    folder = root / "dark" / "green"
    option = f"--stats {stats}" if stats else ""
    call(f"predict {file} {data} --images {folder} {option} --data.eval_batch_size 18")
    rows = list(csv.DictReader((tmp_path / "predictions.csv").open()))
    assert [row["file"] for row in rows] == [f"{i:02d}.png" for i in range(12)]
    images, labels = read(root, "dark")
    chosen = images[labels == 1]
    try:
        if stats == "images":
            norms = [m for m in split.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
            for norm in norms:
                norm.momentum = 1.0
            split.train()
            expected(split, chosen)  # one batch
            split.eval()
        elif stats:
            adapted(split, images)
        p = torch.softmax(expected(split, chosen), dim=1)
    finally:
        split.load_state_dict(state)
    for row, likely in zip(rows, p, strict=True):
        found = likely[CLASSES.index(row["class"])].item()
        assert found == pytest.approx(float(row["probability"]), abs=2e-4)
        assert found >= likely.max().item() - 4e-4


def test_a_form_is_kept_in_a_checkpoint_that_any_command_takes(
    tmp_path, call, refused, root, data, split
):
    file = file_of(split, "plain", tmp_path)
    out = call(f"test {file} {data} --forms target-stats --save adabn.ckpt --out a.json")
    assert "written: a.json, adabn.ckpt" in out
    first = json.loads((tmp_path / "a.json").read_text())["scores"]
    assert list(first) == ["target-stats"]
    out = call("test adabn.ckpt --forms trained --out b.json")
    assert "statistics of dark" in out
    second = json.loads((tmp_path / "b.json").read_text())["scores"]
    for stream, scores in first["target-stats"].items():
        assert second[""][stream] == pytest.approx(scores, rel=1e-5)
    images = f"--images {root / 'dark' / 'red'}"
    call(f"predict adabn.ckpt {images} --out a.csv")
    call(f"predict {file} {data} {images} --stats target --out b.csv")
    ours, theirs = (list(csv.DictReader((tmp_path / n).open())) for n in ("a.csv", "b.csv"))
    for a, b in zip(ours, theirs, strict=True):
        assert (a["file"], a["class"]) == (b["file"], b["class"])
        assert float(a["probability"]) == pytest.approx(float(b["probability"]), abs=1e-5)
    said = refused("fit --ckpt_path adabn.ckpt")
    assert "holds a network and no training to resume; test and predict take it" in said


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """Checkpoints of fit: three steps with batch norm, and with WeightAlign."""
    out = tmp_path_factory.mktemp("ours")
    for norm in ("bn", "wa"):
        assert run.main(["fit", "--model.norm", norm, "--out", str(out / norm), *SHORT]) == 0
    return out


def test_a_checkpoint_of_fit_with_other_statistics_can_be_trained_on(tmp_path, call, ours):
    call(f"test {ours}/bn/last.ckpt --forms target-stats --save a/last.ckpt --out a.json")
    before, after = (
        torch.load(path, weights_only=True)
        for path in (ours / "bn" / "last.ckpt", tmp_path / "a" / "last.ckpt")
    )
    same = {k for k, v in before["state_dict"].items() if torch.equal(v, after["state_dict"][k])}
    other = before["state_dict"].keys() - same
    assert {k.rpartition(".")[2] for k in other} >= {"running_mean", "running_var"}
    assert not {k for k in other if k.endswith(("weight", "bias"))}
    assert after["statistics"] == "optical"
    call(
        "fit --ckpt_path a/last.ckpt --model.norm bn --data.steps_per_epoch 3 "
        "--trainer.max_epochs 2"
    )
    epochs = [
        e["epoch"] for e in json.loads((tmp_path / "a/result.json").read_text())["evaluations"]
    ]
    assert epochs == [1, 2]


def test_forms_are_chosen_by_name(call, tmp_path, ours):
    call(f"test {ours}/bn/last.ckpt --forms target-stats,trained --out a.json")
    assert list(json.loads((tmp_path / "a.json").read_text())["scores"]) == ["", "target-stats"]
    call(f"test {ours}/wa/last.ckpt --out b.json")
    assert list(json.loads((tmp_path / "b.json").read_text())["scores"]) == [""]


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("--model.lr 3", "model.lr"),
        ("--model.init_args.optimizer=adam", "model.optimizer"),
        ("--model.weights imagenet", "model.weights"),
        ("--data.steps_per_epoch 3", "data.steps_per_epoch"),
        ("--trainer.max_epochs 9", "trainer.max_epochs"),
    ],
)
def test_an_option_of_training_is_refused_where_nothing_is_trained(refused, ours, words, option):
    said = refused(f"test {ours}/bn/last.ckpt {words}")
    assert f"{option}: test starts from a checkpoint and trains nothing; leave it out" in said


def test_options_of_an_adapter_need_one(refused, ours):
    for words in ("--adapter_batch 8", "--adapter_options.lr 0.1"):
        said = refused(f"test {ours}/bn/last.ckpt {words}")
        assert "there is no adapter to take it; name one with --adapter" in said


def test_an_adapter_that_would_change_nothing_is_refused(refused, ours):
    assert refused(f"test {ours}/wa/last.ckpt --adapter BatchStatistics") == (
        "adapter BatchStatistics changes batch norm's statistics alone, and this network has no "
        "batch norm (its norm is 'wa'): it would predict as it was trained; leave it out"
    )


@pytest.mark.parametrize(("norm", "has"), [("transnorm", "keeps those of each"), ("gn", "none")])
def test_statistics_of_each_domain_are_not_called_none(norm, has):
    network = normaliser(norm).apply(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    module = SimpleNamespace(evaluated=lambda: network, hparams={"norm": norm})
    assert has in str(without_batch_norm("stats: 'target'", module))


def test_a_folder_in_place_of_its_checkpoint_is_refused_with_the_file(refused, ours):
    assert "bn' is a folder; give the file, such as" in refused(f"test {ours}/bn")


def test_forms_that_are_not_there_are_refused_by_name(refused, tmp_path, ours):
    bn, wa = ours / "bn" / "last.ckpt", ours / "wa" / "last.ckpt"
    said = refused(f"test {bn} --forms target")
    assert "unknown form 'target'; did you mean 'target-stats'? One of: source-stats, tar" in said
    assert refused(f"test {wa} --forms trained,target-stats") == (
        "forms: 'target-stats' re-estimates batch norm's statistics, and this network has none: "
        "its norm is 'wa'; leave it out"
    )
    said = refused(f"predict {wa} --images . --stats target")
    assert said.startswith("stats: 'target' re-estimates batch norm's statistics, and this network")
    assert "stats: expected one of source, target, images or null; got 'both'" in refused(
        f"predict {bn} --images . --stats both"
    )
    assert "save: one form goes into a checkpoint" in refused(f"test {bn} --save a.ckpt")
    (tmp_path / "a.ckpt").write_text("mine")
    said = refused(f"test {bn} --forms trained --save a.ckpt")
    assert said == "save: 'a.ckpt' exists; name a new file"


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_files_from_elsewhere_that_do_not_fit(refused, tmp_path, data, split):
    whole = torchvision.models.resnet18(num_classes=3)
    file_of(whole, "plain", tmp_path)
    said = refused(f"test office.pth {data} --model.bottleneck 256")
    assert "bottleneck: 'office.pth' has none, the model 256; leave --model.bottleneck out" in said
    said = refused(f"test office.pth {data} --model.weights imagenet")
    assert "weights: 'office.pth' holds the weights; leave --model.weights out" in said
    said = refused("test office.pth --model.backbone resnet18")
    assert said == "checkpoint: 'office.pth' has 3 classes, the data 10"
    said = refused("test office.pth")
    assert "does not fit digits_resnet: " in said
    assert "name the network that it was trained with, --model.backbone NAME" in said
    said = refused(f"test office.pth {data} --model.norm gn")
    assert "tensors differ, first backbone.network." in said
    assert "'gn' is not what it was trained with" in said
    assert "it was not written by fit" in refused("fit --ckpt_path office.pth")
    marker = tmp_path / "it ran"
    torch.save({"state_dict": whole.state_dict(), "args": Evil(marker)}, tmp_path / "evil.pth")
    said = refused(f"test evil.pth {data}")
    assert "'evil.pth' can't be read: it is no file of tensors; give the .ckpt that fit" in said
    assert not marker.exists()


def test_options_that_are_in_no_tensor_are_compared(refused, call, ours):
    wa = ours / "wa" / "last.ckpt"
    said = refused(f"test {wa} --model.norm_options.gain balanced")
    assert said.endswith(
        "was trained with norm_options {}, the model has {'gain': 'balanced'}; where none are "
        "given they are the checkpoint's"
    )
    call(f"test {wa} --forms trained --out a.json --model.norm_options {{}}")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--trainer.precision bf16-mixed", "precision: '{}' was trained with 32-true, now bf16-m"),
        ("--trainer.accumulate_grad_batches 2", "accumulate_grad_batches: '{}' was trained with 1"),
        ("--trainer.gradient_clip_val 1", "gradient_clip_val: '{}' was trained with 5.0, now 1.0"),
    ],
)
def test_training_does_not_go_on_with_another_trainer(refused, ours, option, said):
    path = ours / "wa" / "last.ckpt"
    line = f"fit --ckpt_path {path} --model.norm wa {option} --out run --data.steps_per_epoch 3"
    found = refused(f"{line} --trainer.max_epochs 2")
    assert found.removeprefix("trainer.").startswith(said.format(path))
    assert found.endswith("resume with the same settings, or start a new run")


def test_a_checkpoint_of_an_earlier_version_is_tested_and_not_trained_on(
    tmp_path, call, refused, ours
):
    content = torch.load(ours / "wa" / "last.ckpt", weights_only=True)
    spec = content.pop("spec")
    options = {"norm": "wa", "lr": spec["lr"], "allow_bn_weights": True}
    data = {"source": "rendered", "target": "optical", "batch_size": 32, "steps_per_epoch": 3}
    content["settings"] = {
        "model": {"class_path": "da.methods.source_only.SourceOnly", "init_args": options},
        "data": {"class_path": "datasets.digits.Digits", "init_args": data},
        "seed_everything": 0,
    }
    content["state_dict"] = {
        name.removeprefix("network."): value for name, value in content["state_dict"].items()
    }
    torch.save(content, tmp_path / "old.ckpt")
    call("test old.ckpt --out old.json")
    call(f"test {ours}/wa/last.ckpt --out new.json")
    old, new = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("old", "new"))
    assert old["scores"] == new["scores"]
    (tmp_path / "old.json").unlink()
    said = refused("fit --ckpt_path old.ckpt --model.norm wa --data.steps_per_epoch 3")
    assert "'old.ckpt' was written by an earlier version, whose trainings can't be resumed" in said


def test_a_checkpoint_that_a_grid_kept_is_one_of_fit(tmp_path, call, refused, monkeypatch):
    monkeypatch.setattr(Session, "pool", in_process)
    grid = """
data: Digits
tasks: [photo->optical]
methods: {DANN: {critic_width: 8}}
norms: [wa]
model: {bottleneck: 16}
seeds: [3]
epochs: 1
steps_per_epoch: 3
lr: published
published_lr: 0.01
"""
    (tmp_path / "grid.yaml").write_text(grid)
    call("ablate grid.yaml --out grid --keep --workers 1")
    (kept,) = (tmp_path / "grid" / "cells").glob("*/last.ckpt")
    call(f"test {kept} --out cell.json")
    found = json.loads((tmp_path / "cell.json").read_text())
    assert found["task"] == "photo->optical"  # its own data, not the digits' default
    result = json.loads((kept.parent / "result.json").read_text())
    last = result["evaluations"][-1]["forms"][""]
    for stream in ("source/test", "target/test"):
        assert found["scores"][""][stream]["accuracy"] == last[stream]["accuracy"]
    said = call(
        "fit --model DANN --model.critic_width 8 --model.norm wa --model.bottleneck 16 "
        "--model.lr 0.01 --seed_everything 3 --data.source photo --data.target optical "
        f"--data.steps_per_epoch 3 --trainer.max_epochs 2 --ckpt_path {kept} --out more"
    )
    assert "epoch 2/2" in said
    said = refused(f"fit --model.norm wa --data.steps_per_epoch 3 --ckpt_path {kept}")
    assert said.startswith("data.source: ")
    # Its backbone starts another training: as it is, since its weights are aligned already.
    call(
        f"fit --model.weights {kept} --model.norm wa --model.conversion off "
        "--data.steps_per_epoch 3 --trainer.max_epochs 1 --out started"
    )


def test_classes_are_matched_by_name(tmp_path, call, refused, ours, root):
    content = torch.load(ours / "bn" / "last.ckpt", weights_only=True)
    first = json.loads(read_scores(call, f"test {ours}/bn/last.ckpt", tmp_path))
    order = [*range(1, 10), 0]
    content["classes"] = [content["classes"][i] for i in order]
    for name in ("network.classifier.weight", "network.classifier.bias"):
        content["state_dict"][name] = content["state_dict"][name][order]
    torch.save(content, tmp_path / "turned.ckpt")
    second = json.loads(read_scores(call, "test turned.ckpt", tmp_path))
    assert second["scores"] == first["scores"]
    content["classes"][0] = "eleven"
    torch.save(content, tmp_path / "named.ckpt")
    (tmp_path / "scores.json").unlink()
    said = refused("test named.ckpt")
    assert said == (
        "checkpoint: 'named.ckpt' was trained on other classes than the data have (only in the "
        "data: 1; only in the checkpoint: eleven); rename the data's, or give data of the same "
        "classes"
    )


def read_scores(call, line, folder):
    call(f"{line} --out scores.json")
    return (folder / "scores.json").read_text()


def test_a_fine_tuned_network_needs_its_starting_weights_no_more(tmp_path, call):
    torch.save(build_backbone("digits_resnet").state_dict(), tmp_path / "start.pth")
    line = "fit --model.weights start.pth --data.steps_per_epoch 3 --trainer.max_epochs"
    call(f"{line} 1 --out run")
    (tmp_path / "start.pth").unlink()
    call("test run/last.ckpt")
    call(f"{line} 2 --ckpt_path run/last.ckpt --out more")
    settings = torch.load(tmp_path / "more/last.ckpt", weights_only=True)
    assert settings["hyper_parameters"]["weights"] == "start.pth"
    assert settings["hyper_parameters"]["lr"] == 0.01  # the rate of fine-tuning
    assert settings["global_step"] == 6


def test_scores_of_two_files_in_a_folder_and_of_a_diverged_network(tmp_path, call, ours):
    content = torch.load(ours / "wa" / "last.ckpt", weights_only=True)
    for name in ("a.ckpt", "b.ckpt"):
        torch.save(content, tmp_path / name)
        content["state_dict"]["network.classifier.bias"] += torch.tensor(float("nan"))
    first = call("test a.ckpt --forms trained")
    assert "written: a.test.json" in first
    before = (tmp_path / "a.test.json").read_bytes()
    call("test b.ckpt --forms trained")
    assert (tmp_path / "a.test.json").read_bytes() == before
    strict = json.loads((tmp_path / "b.test.json").read_text(), parse_constant=pytest.fail)
    assert strict["scores"][""]["source/test"]["cross_entropy"] is None


def test_an_output_that_can_not_be_written_is_one_line(tmp_path, refused, ours):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    wa = ours / "wa" / "last.ckpt"
    assert refused(f"test {wa} --forms trained --out folder") == "folder: Is a directory"
    assert refused(f"test {wa} --forms trained --out file/a.json") in (
        "file: File exists",
        "file: Not a directory",
    )


def test_the_rest_of_an_epoch_is_not_called_done(tmp_path, call, refused):
    short = "--data.steps_per_epoch 3"
    call(f"fit {short} --trainer.max_steps 4 --out run")
    more = f"fit {short} --ckpt_path run/last.ckpt --trainer"
    assert refused(f"{more}.max_epochs 2") == (
        "trainer.max_epochs: 'run/last.ckpt' lies within epoch 2, at step 4, and the rest of an "
        "epoch is trained by steps; give --trainer.max_steps instead"
    )
    assert "already done" in call(f"{more}.max_epochs 1")
    call(f"{more}.max_steps 6")
    assert torch.load(tmp_path / "run/last.ckpt", weights_only=True)["global_step"] == 6
    assert "already done" in call(f"{more}.max_epochs 2")
