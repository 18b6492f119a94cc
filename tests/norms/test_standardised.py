"""timm's scaled weight standardisation as WeightAlign: the same function, and WA's properties."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from da.errors import UserError
from da.norms import WeightAlign, convert_pretrained, fold
from da.norms.joined_layers import SamePadding, pad_same
from da.norms.weight_align.layers import Aligned, AlignedConv2d
from da.norms.weight_align.standardised import is_standardised

timm = pytest.importorskip("timm", reason="timm is not installed: pip install -e '.[timm]'")
GAMMA = 1.7139588594436646  # of a ReLU, Brock et al. 2021


def build(same: bool = False, **options: Any) -> Any:
    from timm.layers import ScaledStdConv2d, ScaledStdConv2dSame

    torch.manual_seed(0)
    kind = ScaledStdConv2dSame if same else ScaledStdConv2d
    layer = kind(4, **{"out_channels": 6, "kernel_size": 3, "gamma": GAMMA, **options})
    nn.init.uniform_(layer.gain, 0.5, 1.5)
    if layer.bias is not None:
        nn.init.uniform_(layer.bias)
    return layer


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("gain", ["he", "variance-preserving", "auto"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2, "bias": False, "eps": 1e-2},
        {"kernel_size": 1, "gamma": 1.0},
        {"kernel_size": 5, "groups": 2, "dilation": 2},
        {"same": True},
        {"same": True, "stride": 2},
        {"same": True, "kernel_size": 7, "stride": 3, "bias": False},
        {"same": True, "kernel_size": 2, "groups": 2},
    ],
    ids=str,
)
def test_the_function_stays(options: dict[str, Any], gain: str) -> None:
    layer = build(**options).double()
    expected = [layer(images(2, 4, h, 11).double()) for h in (11, 12)]
    model = WeightAlign(gain=gain).apply(nn.Sequential(layer))
    assert not any(is_standardised(m) for m in model.modules())
    for h, value in zip((11, 12), expected, strict=True):
        got = model(images(2, 4, h, 11).double())
        torch.testing.assert_close(got, value, rtol=1e-12, atol=1e-12)


def test_the_weight_is_that_of_the_formula() -> None:
    layer = build(eps=1e-3)
    w = layer.weight.detach().double().numpy().reshape(6, -1)
    gain = layer.gain.detach().double().numpy().reshape(6, 1)
    centred = w - w.mean(1, keepdims=True)
    expected = gain * GAMMA / math.sqrt(36) * centred / np.sqrt(w.var(1, keepdims=True) + 1e-3)
    new = WeightAlign().apply(layer)
    assert isinstance(new, AlignedConv2d)
    assert new.eps == pytest.approx(1e-3 * 36 / 2)
    np.testing.assert_allclose(new.g.detach().numpy(), gain[:, 0] * GAMMA / math.sqrt(2), rtol=1e-6)
    got = new.aligned_weight().detach().numpy().reshape(6, -1)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)


def test_gradients_are_those_of_the_layer() -> None:
    layer = build().double()
    x = images(2, 4, 8, 8).double()
    layer(x).square().sum().backward()
    weight, gain = layer.weight.grad.clone(), layer.gain.grad.flatten()
    layer.zero_grad()
    new = WeightAlign().apply(layer)
    new(x).square().sum().backward()
    torch.testing.assert_close(new.weight.grad, weight)
    torch.testing.assert_close(new.g.grad, gain / (GAMMA / math.sqrt(2)))


def test_what_is_frozen_stays_frozen() -> None:
    layer = build()
    layer.gain.requires_grad_(False)
    new = WeightAlign().apply(layer)
    assert not new.g.requires_grad
    assert new.weight.requires_grad


def test_under_an_activation_normaliser_there_is_neither_g_nor_b() -> None:
    model = WeightAlign(activation="gn", insert=True).apply(
        nn.Sequential(build(same=True, stride=2))
    )
    [layer] = [m for m in model.modules() if isinstance(m, Aligned)]
    assert layer.g is None
    assert layer.bias is None
    assert any(isinstance(m, SamePadding) for m in model.modules())


def test_a_filter_of_one_weight_and_a_namesake_are_refused() -> None:
    from timm.layers import ScaledStdConv2d

    class ScaledStdConv2dLike(ScaledStdConv2d):
        pass

    with pytest.raises(UserError, match="filters of a single weight"):
        WeightAlign().apply(nn.Sequential(ScaledStdConv2d(4, 4, 1, groups=4)))
    with pytest.raises(UserError, match="is a ScaledStdConv2dLike"):
        WeightAlign().apply(nn.Sequential(ScaledStdConv2dLike(4, 4, 3)))


@pytest.mark.parametrize("size", [5, 8, 11])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(3, 2, 1), (2, 1, 1), (7, 3, 2), (1, 4, 1)]
)
def test_same_padding_gives_a_row_per_stride(
    size: int, kernel: int, stride: int, dilation: int
) -> None:
    x = images(1, 2, size, size + 3)
    padded = pad_same(x, (kernel, 3), (stride, 1), (dilation, 1))
    out = F.conv2d(padded, torch.ones(1, 2, kernel, 3), stride=(stride, 1), dilation=(dilation, 1))
    assert out.shape[2:] == (math.ceil(size / stride), size + 3)
    extra = padded.shape[2] - size
    top = extra // 2  # the end gets the odd one
    assert torch.equal(padded[:, :, top : top + size, 1:-1], x)
    assert padded.count_nonzero() == x.count_nonzero() == x.numel()  # what is added is 0


def test_gain_auto_sees_the_activation_before_the_padding() -> None:
    model = nn.Sequential(
        build(), nn.ReLU(), SamePadding(build(same=True, stride=2)), nn.Conv2d(6, 4, 3)
    )
    WeightAlign(gain="auto").apply(model)
    assert model[3].gain == pytest.approx(2.0, rel=1e-4)


def nf_resnet50() -> nn.Module:
    """timm's network as it is published, but for gains that are not those of the start."""
    torch.manual_seed(0)
    model = timm.create_model("nf_resnet50", num_classes=0).eval()
    for module in model.modules():
        if is_standardised(module):
            nn.init.uniform_(module.gain, 0.7, 1.3)
            nn.init.uniform_(module.bias, -0.1, 0.1)
    return model


def test_nf_resnet50_is_a_wa_network_already() -> None:
    x, model = images(2, 3, 64, 64), nf_resnet50()
    layers = sum(is_standardised(m) for m in model.modules())
    parameters = sum(p.numel() for p in model.parameters())
    with torch.no_grad():
        expected = model(x)
        WeightAlign().apply(model)
        got = model(x)
        alone = model.train()(x[:1])
        plain = fold(model)
        folded = plain(x)
    aligned = [m for m in model.modules() if isinstance(m, Aligned)]
    assert len(aligned) == layers == 53
    assert sum(p.numel() for p in model.parameters()) == parameters
    largest = expected.abs().max()
    assert largest > 0.1
    assert (got - expected).abs().max() <= 1e-5 * largest
    assert (alone - expected[:1]).abs().max() <= 1e-5 * largest
    assert (folded - expected).abs().max() <= 1e-5 * largest
    assert {type(m) for m in plain.modules() if isinstance(m, nn.Conv2d)} == {nn.Conv2d}
    for layer in aligned:  # mean 0, and variance 2 / n up to the network's own epsilon
        n, rows = layer.weight[0].numel(), layer.weight.detach().flatten(1)
        variance = rows.var(1, correction=0)
        unit = (layer.aligned_weight() / layer.g.view(-1, 1, 1, 1)).detach().flatten(1)
        assert unit.mean(1).abs().max() < 1e-6
        torch.testing.assert_close(
            unit.var(1, correction=0) * n / 2, variance / (variance + 1e-5), rtol=1e-4, atol=0
        )


@pytest.mark.parametrize("residual", ["depth", "zero"])
def test_residual_options_leave_its_blocks_as_they_are(residual: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model("nf_resnet26", num_classes=3).eval()
    for module in (m for n, m in model.named_modules() if n.endswith("conv3")):
        nn.init.uniform_(module.gain, 0.5, 1.5)  # they start at 0
    converted = convert_pretrained(
        model, images(20, 3, 32, 32), normaliser=WeightAlign(residual=residual)
    )
    assert converted.error < 1e-8
    x = images(2, 3, 32, 32)
    with torch.no_grad():
        expected = model(x)
        got = WeightAlign(residual=residual).apply(model)(x)
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_residual_block_of_plain_layers_beside_standardised_ones_is_scaled() -> None:
    class Block(nn.Module):
        def __init__(self, last: nn.Module):
            super().__init__()
            self.last = last

        def forward(self, x: Tensor) -> Tensor:
            return x + self.last(x)

    standard = build(padding=1)
    plain = nn.Conv2d(4, 4, 3, padding=1)
    own = build(out_channels=4, padding=1)
    model = nn.Sequential(Block(own), *(Block(copy.deepcopy(plain)) for _ in range(4)), standard)
    wanted = own.gain.detach().flatten() * GAMMA / math.sqrt(2)
    WeightAlign(residual="depth").apply(model)
    torch.testing.assert_close(model[0].last.g.detach(), wanted, rtol=1e-5, atol=0)
    for block in model[1:5]:
        torch.testing.assert_close(block.last.g.detach(), torch.full((4,), 0.5))
