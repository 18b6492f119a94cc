"""The pure function against the formula, and the layers as PyTorch modules."""

from __future__ import annotations

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from da.norms import align, fold, naive_align
from da.norms.weight_align.layers import (
    ALIGNED,
    AlignedConv1d,
    AlignedConv2d,
    AlignedConv3d,
    AlignedLinear,
)

SHAPES = [(5, 7), (4, 3, 5), (6, 4, 3, 3), (8, 1, 3, 3), (3, 2, 2, 2, 2)]


def numpy_align(weight: Tensor, g: Tensor, gain: float, eps: float) -> Tensor:
    """The definition, filter by filter."""
    rows = []
    for w, scale in zip(weight.double().numpy(), g.double().numpy(), strict=True):
        n = w.size
        rows.append(scale * (w - w.mean()) / np.sqrt(n / gain * np.mean((w - w.mean()) ** 2) + eps))
    return torch.from_numpy(np.stack(rows))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("gain", "eps"), [(2.0, 1e-10), (2.9337, 1e-10), (1.0, 0.3), (2.0, 5.0)])
def test_align_is_the_formula(shape: tuple[int, ...], gain: float, eps: float) -> None:
    weight, g = torch.randn(shape, dtype=torch.float64), torch.randn(shape[0], dtype=torch.float64)
    expected = numpy_align(weight, g, gain, eps)
    torch.testing.assert_close(align(weight, g, gain, eps), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(naive_align(weight, g, gain, eps), expected, rtol=1e-10, atol=1e-12)
    half = align(weight.float(), g.float(), gain, eps)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half.double(), expected, rtol=1e-4, atol=1e-5)


def test_epsilon_is_1e_10_on_the_quantity_that_is_1_at_he_initialisation() -> None:
    n = 288
    weight = torch.randn(2, 32, 3, 3, dtype=torch.float64)
    weight /= weight.flatten(1).std(1, correction=0).view(2, 1, 1, 1)
    weight *= (1e-10 / (n / 2)) ** 0.5  # now (n / 2) var = eps
    norm = (align(weight).flatten(1) ** 2).sum(1)
    torch.testing.assert_close(norm, torch.ones_like(norm), rtol=1e-6, atol=0)  # 2 / (1 + 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_those_of_the_formula(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    g = torch.randn(shape[0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(align, (weight, g))
    assert torch.autograd.gradgradcheck(align, (weight, g))
    towards = torch.randn(shape, dtype=torch.float64)
    ours = torch.autograd.grad((align(weight, g) * towards).sum(), (weight, g))
    naive = torch.autograd.grad((naive_align(weight, g) * towards).sum(), (weight, g))
    for a, b in zip(ours, naive, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_one_fused_forward_and_one_backward_without_reordering() -> None:
    weight = torch.randn(8, 6, 3, 3).to(memory_format=torch.channels_last).requires_grad_()
    g = torch.ones(8, requires_grad=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        out = align(weight, g)
        out.backward(torch.ones_like(out))
    called = {event.key: event.count for event in profile.key_averages()}
    assert called["aten::native_group_norm"] == called["aten::native_group_norm_backward"] == 1
    assert not {"aten::clone", "aten::contiguous", "aten::mean", "aten::var_mean"} & set(called)
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, align(weight.contiguous(), g))
    assert weight.grad is not None
    assert weight.grad.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "layer",
    [
        AlignedConv1d(3, 4, 3, padding=1),
        AlignedConv2d(4, 6, 3, stride=2, padding=1, groups=2, padding_mode="reflect"),
        AlignedConv3d(2, 3, 2, dilation=2, bias=False),
        AlignedLinear(5, 4, gain=1.0),
        AlignedConv2d(3, 4, (3, 1), padding="same", scale=False),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_act_as_the_plain_layer_with_the_aligned_weight(layer: nn.Module) -> None:
    channels = getattr(layer, "in_channels", None) or layer.in_features
    x = torch.randn(2, channels, *[8] * len(getattr(layer, "kernel_size", ())))
    plain = fold(layer)
    assert type(plain) in ALIGNED
    assert isinstance(layer, type(plain))
    torch.testing.assert_close(layer(x), plain(x))
    n = layer.weight[0].numel()
    g = layer.g if layer.g is not None else torch.ones(len(layer.weight))
    expected = numpy_align(layer.weight.detach(), g.detach(), layer.gain, 1e-10)
    torch.testing.assert_close(plain.weight.double(), expected, rtol=1e-4, atol=1e-5)
    norms = plain.weight.detach().flatten(1).square().sum(1)
    torch.testing.assert_close(norms, torch.full_like(norms, layer.gain), rtol=1e-4, atol=1e-5)
    assert n > 1


def test_layers_copy_pickle_save_and_load() -> None:
    model = nn.Sequential(AlignedConv2d(3, 4, 3, gain=1.5), nn.Flatten(), AlignedLinear(16, 2))
    x = torch.randn(2, 3, 4, 4)
    expected = model(x)
    assert torch.equal(copy.deepcopy(model)(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(model))(x), expected)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = nn.Sequential(AlignedConv2d(3, 4, 3, gain=1.5), nn.Flatten(), AlignedLinear(16, 2))
    assert not torch.equal(other(x), expected)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(x), expected)
    assert "gain=1.5" in repr(model)


def test_folding_a_copy_leaves_the_original_working() -> None:
    model = nn.Sequential(AlignedConv2d(3, 4, 3))
    x = torch.randn(1, 3, 5, 5)
    expected = model(x)
    fold(copy.deepcopy(model))
    assert torch.equal(fold(fold(model))(x), expected)
    assert torch.equal(model(x), expected)
    assert type(model[0]) is AlignedConv2d


def test_a_channels_last_network_folds_to_a_channels_last_one() -> None:
    model = nn.Sequential(AlignedConv2d(3, 4, 3), nn.Flatten(), AlignedLinear(16, 2))
    model.to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    plain = fold(model)
    assert plain[0].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(plain(x), model(x))
