"""timm's models as they are: aligned, folded and converted, family by family."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from da.errors import UserError
from da.norms import WeightAlign, available_normalisers, convert_pretrained, fold
from da.norms.joined_layers import SamePadding, split_joined_layers
from da.norms.weight_align.layers import Aligned

timm = pytest.importorskip("timm", reason="timm is not installed: pip install -e '.[timm]'")

# A small member of each family, with the number of its convolutions that are no gates.
FAMILIES = {
    "resnet10t": 14,
    "seresnext26d_32x4d": 31,
    "tf_efficientnet_lite0": 49,
    "mobilenetv2_050": 52,
    "tf_mobilenetv3_small_minimal_100": 35,
    "regnety_002": 44,
    "densenet121": 120,
    "ghostnet_050": 81,
    "rexnet_100": 49,
    "mnasnet_small": 46,
    "dla34": 38,
    "skresnet18": 28,
}
# Its classifier alone has 120 million weights.
LARGE = pytest.param("vgg11_bn", 10, marks=pytest.mark.long)


def build(name: str, **options: Any) -> Any:
    """timm's model with scales and shifts that are not those of the start, and no dropout."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=7, drop_rate=0.0, **options)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return model


def images(name: str, count: int = 2) -> Tensor:
    """For a model; of sizes that are no multiple of the strides where SAME pads by them."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, 71 if name.startswith("tf_") else 64, 64, generator=generator)


def near(a: Tensor, b: Tensor, tolerance: float = 2e-5) -> bool:
    return float((a - b).abs().max()) <= tolerance * float(b.abs().max())


def activations(model: nn.Module) -> int:
    kinds = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish)
    return sum(isinstance(m, kinds) for m in model.modules())


@pytest.mark.parametrize(("name", "layers"), [*FAMILIES.items(), LARGE])
def test_a_family_is_aligned_as_it_is(name: str, layers: int) -> None:
    model = build(name)
    before = activations(model)
    padded = {k.split(".")[-1] for k, m in model.named_modules() if "Same" in type(m).__name__}
    model = WeightAlign().apply(model)
    assert sum(isinstance(m, Aligned) for m in model.modules()) == layers
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
    assert activations(model) == before
    assert any(isinstance(m, SamePadding) for m in model.modules()) == bool(padded)
    x = images(name)
    with torch.no_grad():
        expected = model.eval()(x)
        plain = fold(model)
        assert near(plain(x), expected)
        alone = model.train()(x[:1])
    assert expected.isfinite().all()
    assert near(alone, expected[:1])
    assert not any(isinstance(m, Aligned) for m in plain.modules())


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "densenet121", "skresnet18"])
def test_taken_apart_it_computes_the_same(name: str) -> None:
    model = build(name)
    apart = split_joined_layers(copy.deepcopy(model))
    assert any(type(m).__name__ == "BatchNormAct2d" for m in model.modules())
    assert not any(type(m).__name__ in ("BatchNormAct2d", "Conv2dSame") for m in apart.modules())
    for training in (True, False):
        x = images(name, 3)
        with torch.no_grad():
            assert torch.equal(apart.train(training)(x), model.train(training)(x))


def test_dropping_inside_of_a_batch_norm_survives() -> None:
    from timm.layers import BatchNormAct2d

    norm = BatchNormAct2d(4, drop_layer=lambda: nn.Dropout(0.5), act_layer=nn.SiLU)
    model = WeightAlign().apply(nn.Sequential(nn.Conv2d(3, 4, 3), norm))
    kinds = [type(m) for m in model.modules() if not list(m.children())]
    assert kinds[1:] == [nn.Identity, nn.Dropout, nn.SiLU]
    x = images("any")
    with torch.no_grad():
        assert not torch.equal(model.train()(x), model.train()(x))
        assert torch.equal(model.eval()(x), model.eval()(x))


@pytest.mark.parametrize("norm", ["gn", "in", "dsbn", "none", "wa"])
def test_every_normaliser_finds_the_batch_norms_inside(norm: str) -> None:
    model = build("mobilenetv2_050")
    before = activations(model)
    model = available_normalisers()[norm]().apply(model)
    kept = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert len(kept) == (104 if norm == "dsbn" else 0)
    assert activations(model) == before


def test_where_it_is_refused_nothing_has_changed() -> None:
    model = build("tf_efficientnet_lite0")
    model.blocks[0][0].conv_pw = nn.ConvTranspose2d(32, 16, 1)
    modules = list(model.named_modules())
    with pytest.raises(UserError, match=r"conv_pw' is a ConvTranspose2d.*exclude="):
        WeightAlign().apply(model)
    assert list(model.named_modules()) == modules


@pytest.mark.parametrize(
    ("kind", "layer"),
    [
        ("StdConv2d", lambda: timm.layers.StdConv2d(3, 4, 3)),
        ("StdConv2dSame", lambda: timm.layers.StdConv2dSame(3, 4, 3)),
    ],
)
def test_a_convolution_that_treats_its_weight_in_its_own_way_is_refused_by_name(
    kind: str, layer: Any
) -> None:
    model = nn.Sequential(nn.Sequential(), layer(), nn.BatchNorm2d(4))
    with pytest.raises(UserError, match=rf"'1' is a {kind}, .*leave it out with exclude='1'"):
        WeightAlign().apply(model)


@pytest.mark.parametrize("alone", [False, True])
def test_a_layer_may_be_the_whole_model(alone: bool) -> None:
    from timm.layers import Conv2dSame

    layer = Conv2dSame(3, 4, 3, stride=2)
    new = WeightAlign().apply(layer if alone else nn.Sequential(layer))
    with torch.no_grad():
        assert new(torch.zeros(1, 3, 11, 8)).shape == (1, 4, 6, 4)


def settled(model: nn.Module, name: str) -> nn.Module:
    """In evaluation mode, with running statistics of images."""
    model.train()
    with torch.no_grad():
        for _ in range(15):
            model(images(name, 16))
    return model.eval()


def converted(name: str) -> None:
    """Converts a family; only what has the original's structure and function passes."""
    model = settled(build(name), name)
    x = images(name, 24)
    with torch.no_grad():
        expected = model(x)
    conversion = convert_pretrained(model, x, images(name, 8))
    with torch.no_grad():
        assert torch.equal(model(x), expected)
        outputs = conversion.model(x)
        assert near(fold(conversion.model)(x), outputs)
        # Aligned without the fit, it computes something else altogether.
        unfitted = WeightAlign().apply(copy.deepcopy(model)).eval()(x)
    spread = (expected - expected.mean(0)).square().sum()
    error, start = ((y - expected).square().sum() / spread for y in (outputs, unfitted))
    assert error < 0.5 * start
    assert conversion.layers


def test_efficientnet_lite_is_converted_as_it_is() -> None:
    converted("tf_efficientnet_lite0")


@pytest.mark.long
@pytest.mark.parametrize("name", [n for n in FAMILIES if n != "tf_efficientnet_lite0"])
def test_a_family_is_converted_as_it_is(name: str) -> None:
    converted(name)
