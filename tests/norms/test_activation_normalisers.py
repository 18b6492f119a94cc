"""The normalisers of activations, no normaliser, and the names."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from da.errors import UserError
from da.norms import batch_norms, normaliser, normaliser_names
from da.norms.group_norm import groups_for
from da.norms.instance_norm import InstanceNormLayer
from da.norms.surgery import Affine

Make = Callable[[str], nn.Module]


def over(x: Tensor, axes: tuple[int, ...]) -> np.ndarray:
    """Normalised over axes with numpy."""
    a = x.double().numpy()
    return (a - a.mean(axes, keepdims=True)) / np.sqrt(a.var(axes, keepdims=True) + 1e-5)


def test_names_are_found_on_disk() -> None:
    single = {"bn", "gn", "in", "ln", "none", "wa"}
    assert set(normaliser_names()) >= single | {"wa+bn", "wa+gn", "wa+in", "wa+ln"}


@pytest.mark.parametrize("name", ["wa+", "+bn", "wa+none", "wa+wa", "bn+wa", "WA", "", "no"])
def test_unknown_names_are_refused_with_the_right_ones(name: str) -> None:
    with pytest.raises(UserError, match=r"unknown normaliser .*wa\+ln"):
        normaliser(name)


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("gn", {"group": 4}, "unknown option of gn 'group'; did you mean 'groups'"),
        ("none", {"insert": True}, "unknown option of none 'insert'"),
        ("wa", {"activation": "gn"}, "unknown option of wa 'activation'"),
        ("wa+gn", {"single_image": True}, r"unknown option of wa\+gn 'single_image'"),
        ("gn", {"groups": 0}, "groups is a whole number from 1, not 0"),
        ("gn", {"groups": "8"}, "groups is a whole number from 1, not '8'"),
        ("in", {"insert": "yes"}, "insert is true or false, not 'yes'"),
        ("bn", {"single_image": 1}, "single_image is true or false, not 1"),
    ],
)
def test_wrong_options_are_refused(name: str, options: dict[str, object], match: str) -> None:
    with pytest.raises(UserError, match=match):
        normaliser(name, **options)


def test_batch_norm_is_left_as_it_is(make: Make) -> None:
    model = make("resnet18")
    before = list(model.modules())
    assert normaliser("bn").apply(model) is model
    assert list(model.modules()) == before
    assert normaliser("bn", single_image=True).single_image
    assert normaliser("wa+bn", single_image=True).single_image
    assert not normaliser("wa").single_image


@pytest.mark.parametrize("name", ["gn", "in", "ln"])
def test_every_batch_norm_is_swapped_and_its_affine_carries_over(make: Make, name: str) -> None:
    model = make("densenet").eval()
    before = {n: m.state_dict() for n, m in batch_norms(model).items()}
    normaliser(name).apply(model)
    assert not batch_norms(model)
    for path, state in before.items():
        new = model.get_submodule(path)
        assert torch.equal(new.weight, state["weight"])
        assert torch.equal(new.bias, state["bias"])
        assert not new.training


@pytest.mark.parametrize(
    ("name", "options", "axes"),
    [("gn", {"groups": 3}, (2, 3, 4)), ("ln", {}, (1, 2, 3, 4)), ("in", {}, (3, 4))],
)
def test_they_normalise_as_defined(
    name: str, options: dict[str, object], axes: tuple[int, ...]
) -> None:
    model = nn.Sequential(nn.BatchNorm2d(6))
    nn.init.uniform_(model[0].weight)
    nn.init.uniform_(model[0].bias)
    normaliser(name, **options).apply(model)
    x = torch.randn(2, 6, 4, 5) * 3 + 1
    unit = over(x.view(2, 3, 2, 4, 5), axes).reshape(2, 6, 4, 5)
    scale, shift = (p.detach().numpy().reshape(1, 6, 1, 1) for p in model.parameters())
    np.testing.assert_allclose(model(x).detach(), unit * scale + shift, rtol=1e-4, atol=1e-5)


def test_groups_fall_back_to_a_divisor_of_two_channels_or_more() -> None:
    for channels in range(1, 130):
        groups = groups_for(channels, 32)
        assert channels % groups == 0
        assert groups <= 32
        assert groups == 1 or channels // groups >= 2
        bigger = [g for g in range(groups + 1, 33) if channels % g == 0 and channels // g >= 2]
        assert not bigger


def test_vectors_are_normalised_by_gn_and_ln_and_scaled_by_in() -> None:
    wide = torch.randn(3, 16)
    for name, axes, options in (("gn", (2,), {"groups": 2}), ("ln", (1, 2), {})):
        model = normaliser(name, **options).apply(nn.BatchNorm1d(16))
        expected = over(wide.view(3, 2, 8), axes).reshape(3, 16)
        np.testing.assert_allclose(model(wide).detach(), expected, rtol=1e-4, atol=1e-5)
    for width, groups in ((256, 32), (64, 8), (12, 1), (4, 1)):
        assert normaliser("gn").apply(nn.BatchNorm1d(width)).num_groups == groups
    x = torch.randn(3, 8)
    model = normaliser("in").apply(nn.BatchNorm1d(8))
    nn.init.constant_(model.weight, 2.0)
    nn.init.constant_(model.bias, 1.0)
    torch.testing.assert_close(model(x), 2 * x + 1)
    sequence = torch.randn(3, 8, 5)
    expected = torch.from_numpy(over(sequence, (2,))).float()
    torch.testing.assert_close(model(sequence), 2 * expected + 1, rtol=1e-4, atol=1e-5)


def test_instance_norm_passes_maps_of_one_position() -> None:
    layer = InstanceNormLayer(4)
    x = torch.randn(2, 4, 1, 1)
    torch.testing.assert_close(layer.train()(x), x)


@pytest.mark.parametrize("name", ["bn", "gn", "in", "ln", "wa+bn", "wa+gn", "wa+in", "wa+ln"])
def test_insert_puts_one_after_each_convolution_that_has_none(make: Make, name: str) -> None:
    model = normaliser(name, insert=True).apply(make("vgg"))
    convolutions = [m for m in model.features if isinstance(m, nn.Sequential)]
    assert len(convolutions) == 3
    for conv, norm in convolutions:
        assert isinstance(conv, nn.Conv2d)
        assert norm.weight.shape == (conv.out_channels,)
    assert model(torch.randn(2, 3, 32, 32)).isfinite().all()
    partly = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3))
    normaliser(name, insert=True).apply(partly)
    assert not isinstance(partly[0], nn.Sequential)
    assert isinstance(partly[3], nn.Sequential)


def test_insert_leaves_gates_and_concatenations_that_are_normalised(make: Make) -> None:
    for name in ("densenet", "mobilenet_v3", "resnet18"):
        before = len(batch_norms(make(name)))
        assert len(batch_norms(normaliser("bn", insert=True).apply(make(name)))) == before


@pytest.mark.parametrize("name", ["gn", "in", "ln", "wa+bn", "wa+gn"])
def test_without_a_batch_norm_there_is_nothing_to_swap(make: Make, name: str) -> None:
    with pytest.raises(UserError, match=r"VGG has no batch norm .*insert: true"):
        normaliser(name).apply(make("vgg"))


def test_none_computes_the_affine_without_the_normalising(make: Make) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4))
    for norm in (model[1], model[3]):
        nn.init.uniform_(norm.weight, -1, 1)
        nn.init.uniform_(norm.bias, -1, 1)
    x = torch.randn(2, 3, 5, 5)
    y = F.conv2d(x, model[0].weight)  # batch norm removes the convolution's own bias
    for norm in (model[1], model[3]):
        y = y * norm.weight.view(4, 1, 1) + norm.bias.view(4, 1, 1)
        y = y.relu() if norm is model[1] else y
    normaliser("none").apply(model)
    torch.testing.assert_close(model(x), y)
    assert type(model[0]) is nn.Conv2d
    assert isinstance(model[3], Affine)
    with pytest.raises(UserError, match=r"'0' is a LayerNorm.*use 'bn'"):
        normaliser("none").apply(nn.Sequential(nn.LayerNorm(3)))
