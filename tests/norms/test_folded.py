"""Batch norm folded away: the same function without a normaliser, and plain training from there."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from short_runs import digits, fit, small
from torch import nn

import run
from da.engine.run_folder import read_result
from da.errors import UserError
from da.methods.dann import DANN
from da.methods.source_only import SourceOnly
from da.norms import batch_norms, convert_pretrained, normaliser
from da.norms.surgery import Affine
from da.norms.weight_align.layers import Aligned

Make = Callable[[str], nn.Module]


def with_statistics(model: nn.Module) -> nn.Module:
    """The model in float64, with statistics that are not those of the start."""
    generator = torch.Generator().manual_seed(5)
    for norm in batch_norms(model).values():
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.normal_(0, 0.3, generator=generator)
        norm.running_var.uniform_(0.3, 3, generator=generator)
    return model.double().eval()


# How many batch norms no single layer feeds, whose affine stays.
AFFINES = {
    "conv1d": 0, "conv3d": 0, "grouped": 0, "depthwise": 0, "linear": 0, "resnet50": 0,
    "vgg_bn": 0, "mobilenet_v3": 0, "densenet": 6,
}  # fmt: skip


@pytest.mark.parametrize("name", AFFINES)
def test_the_function_is_kept_to_rounding_and_no_batch_norm_is_left(name: str, make: Make) -> None:
    from conftest import inputs  # of this folder

    model, x = with_statistics(make(name)), inputs(name).double()
    expected = model(x)
    folded = normaliser("folded").apply(copy.deepcopy(model))
    torch.testing.assert_close(folded(x), expected, rtol=1e-9, atol=1e-9)
    assert not batch_norms(folded)
    assert sum(isinstance(m, Affine) for m in folded.modules()) == AFFINES[name]
    # Without a normaliser training mode is no other network.
    torch.testing.assert_close(folded.train()(x), expected, rtol=1e-9, atol=1e-9)


class Scaled(nn.Conv2d):
    """A convolution whose output does not depend on the scale of its weight."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight / self.weight.norm()
        return nn.functional.conv2d(x, weight, self.bias)


@pytest.mark.parametrize("kind", [Scaled, nn.ConvTranspose2d])
def test_a_layer_that_cant_take_a_scale_leaves_the_affine(kind: type[nn.Conv2d]) -> None:
    model = with_statistics(nn.Sequential(kind(3, 4, 3), nn.BatchNorm2d(4)))
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    expected = model(x)
    torch.testing.assert_close(normaliser("folded").apply(model)(x), expected)
    assert isinstance(model[1], Affine)


def test_a_batch_norm_shared_by_two_layers_leaves_each_its_own_bias() -> None:
    norm = nn.BatchNorm2d(4)
    first, second = nn.Conv2d(4, 4, 1, bias=False), nn.Conv2d(4, 4, 1, bias=False)
    model = with_statistics(nn.Sequential(first, norm, nn.ReLU(), second, norm))
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    expected = model(x)
    torch.testing.assert_close(normaliser("folded").apply(model)(x), expected)
    assert first.bias.data_ptr() != second.bias.data_ptr()


def test_a_batch_norm_over_tokens_is_not_over_the_outputs_of_the_linear_layer_before_it() -> None:
    model = with_statistics(nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(10)))
    x = torch.randn(4, 10, 8, dtype=torch.float64)
    expected = model(x)
    folded = normaliser("folded").apply(copy.deepcopy(model))
    torch.testing.assert_close(folded(x), expected)
    aligned = normaliser("wa").apply(copy.deepcopy(model))
    assert aligned(x).shape == expected.shape
    assert [type(layer) for layer in aligned] == [nn.Linear, Affine]
    torch.testing.assert_close(convert_pretrained(model, x.repeat(5, 1, 1)).model(x), expected)


@pytest.mark.parametrize("name", ["densenet", "mobilenet_v3"])
@pytest.mark.parametrize("norm", ["folded", "none", "wa", "converted"])
def test_what_is_frozen_stays_frozen_and_what_is_trained_is_trained(
    norm: str, name: str, make: Make
) -> None:
    from conftest import inputs  # of this folder

    for trained in (False, True):
        model = with_statistics(make(name)).requires_grad_(trained)
        if norm == "converted":
            model = convert_pretrained(model, inputs(name, 12)).model
        else:
            model = normaliser(norm).apply(model)
        assert {p.requires_grad for p in model.parameters()} == {trained}


class Tied(nn.Module):
    """Two convolutions with one weight, which the first or the second has a batch norm behind."""

    def __init__(self, second: bool):
        super().__init__()
        self.first, self.second = (nn.Conv2d(2, 2, 3, padding=1, bias=False) for _ in range(2))
        self.second.weight = self.first.weight
        self.norm, self.norm_is_second = nn.BatchNorm2d(2), second

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.norm_is_second:
            return self.norm(self.second(self.first(x).relu())).mean((2, 3))
        return self.second(self.norm(self.first(x)).relu()).mean((2, 3))


@pytest.mark.parametrize("second", [False, True])
def test_a_weight_that_two_layers_share_is_refused_by_both_names(second: bool) -> None:
    model = with_statistics(Tied(second))
    expected = model(torch.ones(1, 2, 8, 8, dtype=torch.float64))
    both = "'first' and 'second' of Tied share one weight, and "
    folding = f"{both}folding a batch norm changes one without the other; give each a weight"
    for name in ("folded", "none"):
        with pytest.raises(UserError, match=folding):
            normaliser(name).apply(model)
    with pytest.raises(UserError, match=folding):
        normaliser("wa", exclude=["first", "second"]).apply(model)
    with pytest.raises(UserError, match=f"{both}conversion changes one"):
        convert_pretrained(model, torch.randn(20, 2, 8, 8))
    assert torch.equal(model(torch.ones(1, 2, 8, 8, dtype=torch.float64)), expected)
    # Aligned, each has a scale of its own and the weight stays shared.
    aligned = normaliser("wa").apply(model)
    assert aligned.first.weight is aligned.second.weight


def test_the_heads_go_without_as_under_none_and_nothing_is_aligned(pretrained: str) -> None:
    parts, states = {}, {}
    for norm, weights in (("folded", pretrained), ("none", None)):
        module = small(DANN, norm=norm, weights=weights)
        module.prepare()
        parts[norm] = module
        states[norm] = {
            k: v for k, v in module.state_dict().items() if not k.startswith("network.backbone")
        }
    folded = parts["folded"]
    assert not batch_norms(folded)
    assert not any(isinstance(m, Aligned) for m in folded.modules())
    assert states["folded"].keys() == states["none"].keys()
    assert all(torch.equal(v, states["none"][k]) for k, v in states["folded"].items())
    expected = {"backbone": "folded", "bottleneck": "none", "critic": "none"}
    assert folded.part_norms == expected


def test_training_starts_from_the_pretrained_function_and_moves_all_of_it(pretrained: str) -> None:
    options = {"weights": pretrained, "bottleneck": None, "seed": 3}
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    module = small(SourceOnly, norm="folded", **options)
    plain = small(SourceOnly, norm="bn", **options).eval()
    torch.testing.assert_close(module(x), plain(x), rtol=1e-4, atol=1e-5)
    before = copy.deepcopy(module.state_dict())
    fit(module, digits(batch_size=8))
    assert all(not torch.equal(v, before[k]) for k, v in module.state_dict().items())


@pytest.mark.long
@pytest.mark.parametrize("norm", ["bn-frozen", "folded"])
def test_a_run_says_what_each_part_has_and_its_checkpoint_is_read_back(
    norm: str, pretrained: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    weights = Path("weights.pth")
    weights.symlink_to(pretrained)
    short = ["--data.steps_per_epoch", "2", "--trainer.max_epochs", "1", "--model.norm", norm]
    line = ["fit", *short, "--model.weights"]
    assert run.main([*line, str(weights), "--out", "a"]) == 0
    heads = {"bn-frozen": "bn", "folded": "none"}[norm]
    result = read_result(Path("a"))
    assert result.part_norms == {"backbone": norm, "bottleneck": heads}
    forms = ["", "source-stats", "target-stats"] if norm == "bn-frozen" else [""]
    assert result.forms == forms
    # The file of weights is not read again, and the checkpoint is one itself.
    weights.unlink()
    assert run.main(["test", "a/last.ckpt"]) == 0
    found = json.loads(Path("a/test.json").read_text())["scores"][""]["target/test"]["accuracy"]
    expected = result.evaluations[-1].forms[""]["target/test"].accuracy
    assert found == pytest.approx(expected, abs=1e-3)
    assert run.main([*line, "a/last.ckpt", "--out", "b"]) == 0
