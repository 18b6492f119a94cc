"""Both forms of weight standardisation against timm's convolutions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from da.errors import UserError
from da.norms import fold, normaliser
from da.norms.weight_align.layers import Aligned

X = torch.randn(2, 6, 7, 7, generator=torch.Generator().manual_seed(0))


def convolutions() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(6, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 8, 3, groups=2, bias=False), nn.BatchNorm2d(8)),
    )


def test_standardised_filters_under_group_norm_are_timms() -> None:
    timm = pytest.importorskip("timm.layers", reason="timm is missing")
    model = convolutions()
    theirs = timm.StdConv2d(6, 8, 3, padding=0)
    theirs.weight.data.copy_(model[0].weight)
    model = normaliser("ws+gn", groups=4).apply(model)
    assert model[0].g is None
    assert model[0].bias is None
    assert model[1].num_groups == 4
    torch.testing.assert_close(model[0](X), theirs(X))
    expected = nn.functional.group_norm(theirs(X), 4)
    torch.testing.assert_close(model[1](model[0](X)), expected)


def test_under_group_norm_no_common_scale_of_a_layer_passes() -> None:
    state = convolutions().state_dict()
    found = []
    for name in ("ws+gn", "wa+gn"):
        model = convolutions()
        model.load_state_dict(state)
        found.append(normaliser(name).apply(model)(X))
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)


def test_scaled_filters_are_timms_and_their_scale_follows_the_activation() -> None:
    timm = pytest.importorskip("timm.layers", reason="timm is missing")
    model = convolutions()
    for norm in (model[1], model[4]):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias)
    relu = math.sqrt(2 / (1 - 1 / math.pi))
    theirs = [
        timm.ScaledStdConv2d(6, 8, 3, padding=0),
        timm.ScaledStdConv2d(8, 8, 3, padding=0, groups=2, gamma=relu),
    ]
    for other, conv, norm in zip(theirs, model[::3], model[1::3], strict=True):
        other.weight.data.copy_(conv.weight)
        other.gain.data.copy_(norm.weight.view(-1, 1, 1, 1))
        other.bias.data.copy_(norm.bias)
    model = normaliser("sws").apply(model)
    expected = theirs[1](theirs[0](X).relu())
    torch.testing.assert_close(model(X), expected, rtol=1e-4, atol=1e-4)
    plain = fold(model)
    assert not any(isinstance(m, Aligned) for m in plain.modules())
    torch.testing.assert_close(plain(X), model(X))


def test_options_of_weightalign_that_they_have_not_are_refused() -> None:
    for name, option in (("ws+gn", "gain"), ("sws", "gain"), ("ws+gn", "residual")):
        with pytest.raises(
            UserError, match=rf"unknown option of {name.replace('+', '.')} '{option}'"
        ):
            normaliser(name, **{option: "he"})
    with pytest.raises(UserError, match="unknown residual 'two'"):
        normaliser("sws", residual="two")
