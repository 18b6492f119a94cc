"""From pretrained weights to WeightAlign: what fit and ablate convert, when, and what is kept."""

import json
import logging
import shutil
from pathlib import Path
from unittest.mock import ANY

import numpy as np
import pytest
import pytorch_lightning as L
import torch
import torch.nn.functional as F
import torchvision
from long_cases import rest_long
from torch import nn
from torchvision.models import ResNet18_Weights

from da.engine.result import Result
from da.engine.run_folder import read_result
from da.engine.spec import RunSpec
from da.engine.training import train
from da.errors import UserError
from da.grids.grid_file import read_grid
from da.methods.source_only import SourceOnly
from da.networks.backbones.base import build_backbone
from da.networks.calibration_images import calibration_images
from da.networks.conversion_messages import describe_conversion
from da.networks.pretrained_conversion import (
    changes_function,
    conversion_plan,
    convert_backbone,
)
from da.networks.published_classifier import prediction_agreement, read_published_classifier
from da.norms import WeightAlign, normaliser
from da.norms.weight_align.conversion import PLAIN
from da.ops.seeding import derive_seed, permutation
from datasets.digits import Digits
from datasets.files.array_cache import folder
from run import main

ROOT = folder(None)  # the digits stay in the user's cache, what is converted does not


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small network trained with batch norm on digits, its backbone's weights in a file."""
    module = SourceOnly(num_classes=10, bottleneck=None, task="rendered->optical", lr=0.1)
    trainer = L.Trainer(
        max_steps=80, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module, datamodule=Digits(steps_per_epoch=80, root=str(ROOT)))
    path = tmp_path_factory.mktemp("trained") / "weights.pth"
    torch.save(module.network.backbone.state_dict(), path)
    return module.eval(), str(path)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache; gives the files of conversions in it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return lambda: sorted((tmp_path / "cache" / "da").rglob("*.safetensors"))


@pytest.fixture
def fit(tmp_path, cache, trained, monkeypatch, capfd):
    """Runs fit in an empty folder; gives its result, its checkpoint's weights and what it said."""
    monkeypatch.chdir(tmp_path)
    options = ["--data.root", str(ROOT), "--model.bottleneck", "null", "--model.weights"]
    short = ["--data.steps_per_epoch", "2", "--trainer.max_epochs", "1"]

    def run_it(out, *more, weights=trained[1]):
        capfd.readouterr()
        assert main(["fit", *options, weights, *short, "--out", out, *map(str, more)]) == 0
        said = capfd.readouterr()
        assert said.err == ""
        result = json.loads((tmp_path / out / "result.json").read_text())
        state = torch.load(tmp_path / out / "last.ckpt", weights_only=True)["state_dict"]
        return result, state, said.out

    return run_it


def images(role="source", split="test", **kwargs):
    return torch.cat(list(Digits(root=str(ROOT), **kwargs).images(role, split)))


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(v, other[k]) for k, v in one.items())


STILL = ("--model.lr", 1e-30)  # training moves nothing that a float could show


def test_fit_starts_from_the_function_that_the_weights_had(fit, trained, cache):
    before, _ = trained
    result, state, said = fit("wa", "--model.norm", "wa", *STILL)
    after = SourceOnly(num_classes=10, bottleneck=None, norm="wa", norm_options=dict(PLAIN)).eval()
    after.load_state_dict(state)
    shown = images()
    with torch.no_grad():
        one, other = before.network.backbone(shown), after.network.backbone(shown)
        kept = before.network.classifier(one).argmax(1) == before.network.classifier(other).argmax(
            1
        )
    lost = (one - other).square().sum() / (one - one.mean(0)).square().sum()
    found = result["conversion"]
    assert kept.float().mean() > 0.8
    assert found["error"] == pytest.approx(lost.item(), rel=0.5)  # of other images
    assert (found["on"], found["images"], found["held_out"]) == ("source", 512, 256)
    assert (found["agreement"], found["cached"]) == (None, False)  # the file holds no classifier
    layers = [n for n, m in after.network.backbone.named_modules() if hasattr(m, "aligned_weight")]
    assert found["worst_layer"] in layers
    assert found["worst_error"] > 0
    lines = said.splitlines()
    assert lines[0] == "converting digits_resnet to WA …"
    assert lines[1].startswith("converted digits_resnet to WA on 512 source images, in ")
    assert f"(worst layer {found['worst_layer']}, " in lines[1]
    share = result["alignment"]
    assert share["left"] == ["stem.0", "blocks.0.downsample.0"]  # of 3 and 16 inputs
    assert lines[1].endswith(
        f"; aligned are {share['of_layers'] - 2} of {share['of_layers']} convolutions"
        f" ({100 * share['layers'] / share['of_layers']:.1f} %) with"
        f" {100 * share['weights'] / share['of_weights']:.1f} % of their weights"
        " (plain: stem.0, blocks.0.downsample.0)"
    )
    assert len(cache()) == 1

    # A second run takes it from the cache and is the same.
    again, same, said = fit("again", "--model.norm", "wa", *STILL)
    assert said.startswith("converted digits_resnet to WA on 512 source images, from cache: ")
    assert equal(state, same)
    assert again["evaluations"] == result["evaluations"]
    assert again["conversion"] == {**found, "seconds": ANY, "cached": True}
    assert len(cache()) == 1

    # Where no conversion is asked for, none is made; raw weights start somewhere else.
    loss = {"wa": result["initial_loss"]}
    for name, *more in (
        ("bn", "--model.conversion", "both"),
        ("off", "--model.norm", "wa", "--model.conversion", "off"),
    ):
        plain, _, said = fit(name, *more)
        loss[name] = plain["initial_loss"]
        assert plain["conversion"] is None
        assert "convert" not in said
    assert len(cache()) == 1
    assert abs(loss["wa"] - loss["bn"]) < 0.4 * abs(loss["off"] - loss["bn"])


@pytest.mark.parametrize(
    ("norm", "lost"), rest_long([("wa+bn", 0.1), ("wa+gn", 0.6)], [("wa+gn", 0.6)])
)
def test_fit_starts_so_with_a_normaliser_of_activations_too_and_goes_on(fit, cache, norm, lost):
    few = ("--model.norm", norm, "--model.conversion_images", 96)
    result, state, said = fit("one", *few, *STILL)
    found = result["conversion"]
    assert (found["images"], found["distilled"]) == (96, norm == "wa+gn")
    assert found["error"] < lost
    assert said.startswith(f"converting digits_resnet to {norm.upper()} …\n")
    assert result["alignment"]["left"] == ["stem.0", "blocks.0.downsample.0"]
    again, same, _ = fit("two", *few, *STILL)
    assert again["conversion"] == {**found, "seconds": ANY, "cached": True}
    assert equal(state, same)
    options = "--trainer.max_epochs", 2, "--ckpt_path", "one/last.ckpt"
    more, _, said = fit("more", *few, *STILL, *options)
    assert "convert" not in said
    assert more["conversion"] == {**found, "seconds": ANY}
    assert len(cache()) == 1


def a_start(weights="w", **kwargs):
    options = {"backbone": "digits_resnet", "weights": weights, "norm": "wa", "norm_options": None}
    defaults = {"scope": ("backbone",), "conversion": "source", "conversion_images": 32}
    return conversion_plan({**options, **defaults, **kwargs})


def converted(weights, target="optical", seed=0, source="rendered", **kwargs):
    """The report of a conversion, and the weights after it."""
    start = a_start(weights, **kwargs)
    aligned = normaliser(start.norm, **start.options).apply(build_backbone(start.backbone))
    data = Digits(root=str(ROOT), source=source, target=target, seed=seed)
    report = convert_backbone(aligned, start, data, "cpu")
    return report, aligned.state_dict()


def test_runs_share_what_is_of_the_same_weights_options_and_images(trained, cache, tmp_path):
    _, weights = trained
    report, first = converted(weights)
    assert not report["cached"]
    torch.save({"state_dict": torch.load(weights, weights_only=True)}, tmp_path / "copy.pt")
    for same in ({"target": "photo"}, {"seed": 3}, {"weights": str(tmp_path / "copy.pt")}):
        report, state = converted(**{"weights": weights, **same})
        assert report["cached"]
        assert equal(state, first)
    state = torch.load(weights, weights_only=True)
    state["stem.0.weight"][0, 0, 0, 0] += 1e-3
    torch.save(state, tmp_path / "other.pth")
    others = (
        {"weights": str(tmp_path / "other.pth")},
        {"norm_options": {"gain": "variance-preserving"}},
        {"conversion_images": 33},
        {"conversion": "both"},
        {"source": "photo"},
    )
    for other in others:
        report, state = converted(**{"weights": weights, **other})
        assert not report["cached"]
        assert not equal(state, first)
    assert len(cache()) == 6


def test_both_domains_when_asked_and_never_the_target_otherwise(trained, cache, capsys):
    _, weights = trained
    found = {}
    for target in ("optical", "photo"):
        for on in ("source", "both"):
            report, found[target, on] = converted(weights, target, conversion=on)
            assert (report["on"], report["images"]) == (on, 32)
    assert equal(found["optical", "source"], found["photo", "source"])
    assert not equal(found["optical", "both"], found["photo", "both"])
    assert not equal(found["optical", "both"], found["optical", "source"])
    assert "on 32 source and target images" in capsys.readouterr().out
    assert len(cache()) == 3


class Watched(Digits):
    """Digits that note which images are asked for."""

    def __init__(self, **kwargs):
        super().__init__(root=str(ROOT), **kwargs)
        self.seen = []

    def set_of(self, role, split):
        self.seen.append((role, split))
        return super().set_of(role, split)


def test_the_images_are_a_fixed_draw_of_the_training_split():
    data = Watched(source="rendered", target="optical")
    chosen, held_out = calibration_images(data, a_start(conversion_images=512))
    assert set(data.seen) == {("source", "train")}
    every = images(split="train", source="rendered", target="optical")
    order = torch.from_numpy(permutation(derive_seed("conversion"), 0, len(every)))
    assert torch.equal(chosen, every[order[:512]])
    assert torch.equal(held_out, every[order[512:768]])
    data = Watched(source="rendered", target="optical")
    chosen, again = calibration_images(data, a_start(conversion="both", conversion_images=512))
    assert set(data.seen) == {("source", "train"), ("target", "train")}
    assert torch.equal(chosen[:256], every[order[:256]])
    assert len(chosen) == 512
    assert not len(np.intersect1d(order[:256], order[256:512]))
    assert torch.equal(again, every[order[256:512]])  # measured on the source in either case
    # A small domain keeps a tenth out: 601 images, of which 540 are the most.
    data = Watched(source="optical", target="rendered")
    chosen, held_out = calibration_images(data, a_start(conversion_images=10_000))
    assert (len(chosen), len(held_out)) == (540, 61)


class Centred(WeightAlign):
    """A normaliser of one's own, with an option fewer."""

    name = "centred"

    def __init__(self, *, gain="he", min_channels=1):
        super().__init__(gain=gain, min_channels=min_channels)


OWN = f"{Centred.__module__}.Centred"


def test_a_normaliser_by_its_path_or_a_subclass_is_converted_as_wa_is(trained, cache):
    _, weights = trained
    by_path = "da.norms.weight_align.normaliser.WeightAlign"
    _, expected = converted(weights)
    report, state = converted(weights, norm=by_path)
    assert report["cached"]
    assert equal(state, expected)
    assert a_start(weights, norm=OWN).options == {"min_channels": 4}
    report, state = converted(weights, norm=OWN)
    assert not report["cached"]
    assert not equal(state, expected)
    assert 0 < report["error"] < 0.5
    module = SourceOnly(num_classes=10, norm=OWN, weights=weights)
    assert module.conversion_plan.options == {"min_channels": 4}
    assert module.alignment()["left"] == ["stem.0"]
    assert a_start(norm=by_path, norm_options={"activation": "gn"}).options == {
        "activation": "gn",
        **PLAIN,
    }


def test_a_checkpoint_under_wa_is_read_by_wa_however_it_is_named(tmp_path):
    by_path = "da.norms.weight_align.normaliser.WeightAlign"
    module = SourceOnly(num_classes=10, norm="wa")
    spec = {"norm": "wa", "norm_options": {}, "model_args": {}}
    content = {"spec": spec, "state_dict": module.state_dict(), "backbone": "network.backbone"}
    content["classes"] = [str(digit) for digit in range(10)]
    torch.save(content, tmp_path / "a.ckpt")
    options = {"norm_options": dict.fromkeys(PLAIN, 1), "weights": str(tmp_path / "a.ckpt")}
    again = SourceOnly(num_classes=10, norm=by_path, **options)
    assert equal(again.network.backbone.state_dict(), module.network.backbone.state_dict())


def cut(file):
    file.write_bytes(file.read_bytes()[:-1000])


def emptied(file):
    file.write_bytes(b"")


def flipped(file):
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, emptied, flipped])
def test_a_broken_file_of_the_cache_is_made_again(trained, cache, caplog, damage):
    _, weights = trained
    _, first = converted(weights)
    (file,) = cache()
    damage(file)
    with caplog.at_level(logging.WARNING):
        report, second = converted(weights)
    assert f"{file} is broken (" in caplog.text
    assert not report["cached"]
    assert equal(first, second)
    assert cache() == [file]
    assert converted(weights)[0]["cached"]


def test_a_resumed_run_is_not_converted_again_and_a_checkpoint_holds_it(
    fit, cache, tmp_path, alike
):
    options = ["--model.norm", "wa", "--model.anneal_alpha", "0"]
    options += ["--model.conversion_images", "32", "--trainer.max_epochs"]
    whole, expected, _ = fit("whole", *options, 2)
    fit("part", *options, 1)
    for file in cache():
        file.unlink()
    resumed, state, said = fit("resumed", *options, 2, "--ckpt_path", "part/last.ckpt")
    assert cache() == []
    assert "convert" not in said
    assert equal(state, expected)
    assert resumed["evaluations"] == whole["evaluations"]
    assert resumed["conversion"] == {**whole["conversion"], "seconds": ANY, "cached": True}
    assert main(["test", "resumed/last.ckpt"]) == 0
    assert cache() == []
    tested = json.loads((tmp_path / "resumed/test.json").read_text())["scores"][""]
    last = resumed["evaluations"][-1]["forms"][""]
    for stream in ("source/test", "target/test"):
        assert alike(tested[stream], last[stream], 1e-4)


def cell(weights, **kwargs):
    settings = {
        "data": "datasets.digits.Digits", "source": "rendered", "target": "optical",
        "method": "SourceOnly", "norm": "wa", "lr": 0.01,
        "model_args": {"weights": weights, "conversion_images": 32},
        "batch_size": 8, "epochs": 1, "steps_per_epoch": 2, "seed": 0,
    }  # fmt: skip
    return RunSpec(**{**settings, "data_args": {"root": str(ROOT)}, **kwargs})


def test_a_cell_of_a_grid_records_it_and_old_results_stay_valid(trained, cache, tmp_path, capfd):
    _, weights = trained
    results = [
        train(cell(weights, norm=norm), tmp_path / norm, lambda _: None) for norm in ("wa", "bn")
    ]
    for result in results:
        assert Result.model_validate_json(result.model_dump_json()) == result
        old = json.loads(result.model_dump_json())
        del old["conversion"]
        assert Result.model_validate(old).conversion is None
    assert results[1].conversion is None
    found = results[0].conversion
    assert (found.on, found.images, found.cached) == ("source", 32, False)
    assert "converted digits_resnet" in capfd.readouterr().out  # the cell's log


GRID = """
data: datasets.digits.Digits
data_args: {{root: {root}}}
tasks: [rendered->optical]
methods: [SourceOnly]
norms: [bn, wa]
model: {{bottleneck: null, weights: {weights}, conversion: off}}
sweep: {{model.conversion: [source, both, off]}}
seeds: [0, 1]
batch_size: 32
epochs: 1
steps_per_epoch: 30
lr: published
published_lr: 0.05
"""


@pytest.fixture
def grid(tmp_path, trained, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("grid.yaml").write_text(GRID.format(root=ROOT, weights=trained[1]))
    return Path("grid.yaml")


def test_off_is_the_name_of_a_choice_in_a_grid(grid, capsys):
    assert read_grid(grid, {}).model["conversion"] == "off"
    assert main(["ablate", str(grid), "--dry-run"]) == 0
    assert "model.conversion off" in capsys.readouterr().out
    assert not Path("runs").exists()
    grid.write_text(grid.read_text().replace("bottleneck: null", "bottleneck: no"))
    with pytest.raises(UserError, match="no is a name in YAML"):
        read_grid(grid, {})


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("[bn, wa]", "{bn: , wa+gn: {insert: true}}", "norm 'wa+gn' with insert on pretrained wei"),
        ("[source, both, off]", "[source, sauce]", "unknown conversion 'sauce'; did you mean"),
        ("bottleneck: null", "conversion_images: many", "a whole number from 2, got many"),
    ],
)
def test_a_grid_that_no_cell_could_start_is_refused_at_once(grid, capsys, old, new, text):
    grid.write_text(grid.read_text().replace(old, new))
    assert main(["ablate", str(grid), "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert text in said
    assert said.count("\n") == 1


@pytest.mark.long
def test_a_grid_of_bn_and_wa_from_pretrained_weights(grid, cache, capfd):
    assert main(["ablate", str(grid), "--out", "out", "--workers", "2"]) == 0
    assert "wa - bn" in capfd.readouterr().out
    found = {}
    for path in Path("out").glob("cells/*/result.json"):
        result = read_result(path.parent)
        spec = result.spec
        place = spec.norm, spec.model_args["conversion"], spec.seed
        found[place] = result
    assert len(found) == 12
    for (norm, conversion, _), result in found.items():
        if norm == "bn" or conversion == "off":
            assert result.conversion is None
        else:
            assert result.conversion.on == conversion
    # Two workers may make the same at the same time; all cells then share it.
    assert len(cache()) == 2
    accuracy = {
        place: result.evaluations[-1].forms[""]["source/test"].accuracy
        for place, result in found.items()
    }
    for seed in (0, 1):
        for on in ("source", "both"):
            assert accuracy["wa", on, seed] > accuracy["wa", "off", seed] + 0.15
            assert accuracy["wa", on, seed] > accuracy["bn", on, seed] - 0.15


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"norm": "wa+bn", "norm_options": {"insert": True}},
            r"norm 'wa\+bn' with insert on .* leave insert out, or .*--model.conversion off",
        ),
        ({"conversion_images": 1}, "conversion_images: expected a whole number from 2, got 1"),
        (
            {"conversion": "sauce"},
            "unknown conversion 'sauce'; did you mean 'source'",
        ),
    ],
)
def test_what_cannot_be_converted_is_refused_by_name(options, text):
    with pytest.raises(UserError, match=text) as caught:
        SourceOnly(**{"num_classes": 10, "norm": "wa", "weights": "no.pth"} | options)
    assert "\n" not in str(caught.value)


def test_what_is_no_conversion():
    assert a_start() is not None
    for options in (
        {"weights": None},
        {"norm": "bn"},
        {"norm": "gn"},
        {"scope": ("bottleneck", "critic")},
        {"conversion": "off"},
        {"conversion": "off", "norm": "wa+gn"},
        {"scope": (), "norm": "wa+gn"},
    ):
        assert a_start(**options) is None


class Standardised(nn.Conv2d):
    """A convolution that treats its weight in its own way."""


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: build_backbone("digits_resnet"), True),
        (lambda: build_backbone("lenet"), True),  # no batch norm, but its filters are aligned
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), True),
        (lambda: nn.Sequential(Standardised(3, 4, 3), nn.ReLU()), False),
    ],
)
def test_only_what_surgery_changes_is_converted(build, expected):
    plain, aligned = build(), build()
    assert not changes_function(plain, aligned)
    if expected:
        aligned = normaliser("wa").apply(aligned)
    assert changes_function(plain, aligned) == expected


def test_a_network_without_batch_norm_keeps_its_function_too(tmp_path, cache):
    weights = str(tmp_path / "lenet.pth")
    torch.save(build_backbone("lenet").state_dict(), weights)
    report, state = converted(weights, backbone="lenet", conversion_images=128)
    plain, aligned = (
        build_backbone("lenet", weights),
        normaliser("wa", **PLAIN).apply(build_backbone("lenet", weights)),
    )
    shown = images()
    with torch.no_grad():
        wanted, raw = (network.eval()(shown) for network in (plain, aligned))
        aligned.load_state_dict(state)
        given = aligned(shown)
    lost = [
        ((x - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum()).item()
        for x in (given, raw)
    ]
    assert lost[0] < 0.2 < 0.5 < lost[1]
    assert report["error"] == pytest.approx(lost[0], rel=0.5)


def test_what_the_conversion_refuses_comes_with_a_way_on(trained, cache):
    with pytest.raises(UserError, match=r"conversion of 'digits_resnet': 'blocks\.") as caught:
        converted(trained[1], norm_options={"exclude": ["blocks.0.bn1"]})
    assert str(caught.value).endswith(
        "or start from the weights as they are with --model.conversion off"
    )
    assert cache() == []


def test_the_untrained_network_that_is_inspected_is_the_converted_one(
    trained, cache, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    options = ["--model.weights", trained[1], "--model.conversion_images", "32"]
    options += ["--data.root", str(ROOT), "--images", "8", "--out", "drawn"]
    assert main(["inspect", "activations", "--norms", "bn,wa", *options]) == 0
    assert capsys.readouterr().out.count("converted digits_resnet to WA on 32 source images") == 1
    assert len(cache()) == 1


# The classifier that the weights were published with.


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A classifier of torchvision in a file."""
    torch.manual_seed(0)
    network = torchvision.models.resnet18().eval()
    nn.init.normal_(network.fc.weight)
    path = tmp_path_factory.mktemp("published") / "resnet18.pth"
    torch.save(network.state_dict(), path)
    return network, str(path)


def test_agreement_is_that_of_the_published_classifier(published, tmp_path):
    network, path = published
    start = a_start(path, backbone="resnet18")
    plain = build_backbone("resnet18", path).eval()
    head = read_published_classifier(plain, start.backbone, start.weights)
    shown = torch.randn(40, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(F.linear(plain(shown), *head), network(shown))
        other = build_backbone("resnet18", path).eval()
        for name, parameter in other.named_parameters():
            if name.startswith("network.layer4"):
                parameter.mul_(1 + 0.3 * torch.randn(parameter.shape))
        changed = F.linear(other(shown), network.fc.weight, network.fc.bias)
        expected = (changed.argmax(1) == network(shown).argmax(1)).float().mean().item()
    assert 0 < expected < 1
    assert prediction_agreement(plain, other, shown, head) == pytest.approx(expected)
    assert prediction_agreement(plain, plain, shown, head) == 1
    assert prediction_agreement(plain, other, shown[:0], head) is None
    assert prediction_agreement(plain, other, shown, None) is None


def test_the_published_classifier_of_imagenet_weights(published, tmp_path, monkeypatch):
    network, path = published
    file = tmp_path / "hub/checkpoints" / Path(ResNet18_Weights.IMAGENET1K_V1.url).name
    file.parent.mkdir(parents=True)
    shutil.copy(path, file)  # as it lies there after a download
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    plain = build_backbone("resnet18", "imagenet")
    weight, bias = read_published_classifier(plain, "resnet18", "imagenet")
    assert torch.equal(weight, network.fc.weight)
    assert torch.equal(bias, network.fc.bias)
    elsewhere = a_start("imagenet", backbone="timm/resnet18")  # timm's are in a cache of its own
    assert read_published_classifier(plain, elsewhere.backbone, elsewhere.weights) is None


@pytest.mark.parametrize("name", ["vgg11", "vgg11_bn", "resnet50"])
def test_the_published_classifier_is_told_from_other_matrices(name, tmp_path):
    with torch.device("meta"):
        whole, plain = torchvision.models.get_model(name), build_backbone(name)
    state = {
        k: torch.zeros(1).expand(v.shape) if v.ndim else torch.tensor(0)
        for k, v in whole.state_dict().items()
    }
    key = "fc" if name == "resnet50" else "classifier.6"
    state[f"{key}.bias"] = torch.arange(1000.0)
    torch.save(state, tmp_path / "w.pth")
    start = a_start(str(tmp_path / "w.pth"), backbone=name)
    weight, bias = read_published_classifier(plain, start.backbone, start.weights)
    assert weight.shape == (1000, plain.num_features)
    assert bias[7] == 7
    for gone in ("weight", "bias"):
        del state[f"{key}.{gone}"]
    torch.save(state, tmp_path / "w.pth")
    assert read_published_classifier(plain, start.backbone, start.weights) is None


def test_the_published_classifier_counts_in_the_report(trained, tmp_path, cache, monkeypatch):
    """digits_resnet refuses a file with a classifier, as no family of digits has one: a family
    that ignores it, as those of torchvision do."""
    module, path = trained
    state = torch.load(path, weights_only=True)
    head = {f"fc.{k}": v for k, v in module.network.classifier.state_dict().items()}
    torch.save({**state, **head}, tmp_path / "w.pth")
    load = "da.networks.backbones.digits.load_weights"
    from da.networks.backbones.base import load_weights

    monkeypatch.setattr(load, lambda model, file: load_weights(model, file, ignore=("fc.",)))
    start = a_start(str(tmp_path / "w.pth"))
    found, state = converted(start.weights)
    aligned = normaliser("wa", **PLAIN).apply(build_backbone("digits_resnet"))
    aligned.load_state_dict(state)
    _, held_out = calibration_images(Digits(root=str(ROOT)), start)
    with torch.no_grad():
        one = module(held_out).argmax(1)
        other = module.network.classifier(aligned.eval()(held_out)).argmax(1)
    assert found["agreement"] == pytest.approx((one == other).float().mean().item())
    assert 0.5 < found["agreement"] < 1
    low, high = found["agreement_interval"]
    assert low < found["agreement"] < high
    said = f"{100 * found['agreement']:.1f} % [{100 * low:.1f}, {100 * high:.1f}] of predictions"
    assert f"{said} kept on {len(held_out)} others, " in describe_conversion(start, found, None)
