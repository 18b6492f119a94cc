"""Weight normalisation against torch.nn.utils' and against no normaliser, from which it starts."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from da.errors import UserError
from da.norms import fold, normaliser
from da.norms.identity import BranchScale
from da.norms.weight_norm import WeightNormed


def test_it_starts_from_what_the_network_computes_without_a_normaliser(
    make: Callable[[str], nn.Module],
) -> None:
    x = torch.randn(4, 3, 32, 32)
    for name in ("resnet18", "densenet"):
        plain, normed = (normaliser(norm).apply(make(name)).eval() for norm in ("none", "wn"))
        torch.testing.assert_close(normed(x), plain(x), rtol=1e-4, atol=1e-5)


def test_outputs_and_gradients_are_those_of_torch(bare: tuple[nn.Module, Tensor]) -> None:
    model, x = bare
    layer = normaliser("wn").apply(model)[0]
    assert isinstance(layer, WeightNormed)
    nn.init.uniform_(layer.g, 0.5, 2)
    theirs = weight_norm(fold(layer))
    outputs = [m(x) for m in (layer, theirs)]
    torch.testing.assert_close(*outputs)
    for y in outputs:
        y.square().sum().backward()
    original = theirs.parametrizations.weight
    torch.testing.assert_close(layer.g.grad, original.original0.grad.flatten())
    # torch's direction is a weight of the length g, ours one of the first weight's.
    lengths = [w.flatten(1).norm(dim=1) for w in (layer.weight, original.original1)]
    gradients = [w.grad.flatten(1) for w in (layer.weight, original.original1)]
    torch.testing.assert_close(
        *(g * length[:, None] for g, length in zip(gradients, lengths, strict=True)),
        rtol=1e-4,
        atol=1e-4,
    )


def test_shared_weights_and_other_normalisers_are_refused() -> None:
    layers = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3), nn.BatchNorm1d(3))
    tied = copy.deepcopy(layers)
    tied[2].weight = tied[0].weight
    with pytest.raises(UserError, match="'0' and '2' of Sequential share one weight"):
        normaliser("wn").apply(tied)
    with pytest.raises(UserError, match=r"'4' is a LayerNorm.*'wn' does not remove"):
        normaliser("wn").apply(nn.Sequential(*layers, nn.LayerNorm(3)))


def test_filters_that_are_empty_have_a_direction_and_finite_gradients() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    with torch.no_grad():
        model[1].weight[1] = 0
        model[0].weight[2] = 0
    was = model[0].weight.detach().clone()
    x = torch.randn(2, 3, 5, 5)
    plain = normaliser("none").apply(copy.deepcopy(model))
    normed = normaliser("wn").apply(model)
    torch.testing.assert_close(normed(x), plain(x))
    torch.testing.assert_close(normed[0].weight[1], was[1])  # what it was before its scale of 0
    assert normed[0].g.tolist()[1:3] == [0, 0]
    normed(x).square().mean().backward()
    assert all(p.grad.isfinite().all() for p in normed.parameters())
    assert normed[0].g.grad[1] != 0  # it comes back


@pytest.mark.parametrize("name", ["none", "wn"])
def test_residual_branches_of_scale_zero_are_not_dead(name: str) -> None:
    model = normaliser(name).apply(torchvision.models.resnet18(zero_init_residual=True))
    model(torch.randn(2, 3, 32, 32)).square().mean().backward()
    factors = [m.scale for m in model.modules() if isinstance(m, BranchScale)]
    assert len(factors) == 8
    assert all(factor.grad.isfinite().all() and factor.grad.abs() > 0 for factor in factors)
