"""AutoDIAL: mixtures of two domains against the statistics of drawn mixtures, and its bound."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from da.norms import normaliser
from da.norms.autodial import AutoDialLayer
from da.norms.base import tell_domains
from da.types import Segment

BOTH = (Segment("source", 6), Segment("target", 6))


def layer(alpha: float) -> AutoDialLayer:
    norm = normaliser("autodial").apply(nn.BatchNorm2d(4).double())
    assert isinstance(norm, AutoDialLayer)
    nn.init.constant_(norm.alpha, alpha)
    tell_domains(norm, BOTH)
    return norm


@pytest.mark.parametrize("alpha", [0.5, 2 / 3, 1.0])
def test_a_sample_is_normalised_by_the_mixture(alpha: float) -> None:
    source, target = torch.randn(2, 6, 4, 3, 2, dtype=torch.float64)
    target = 2 * target - 1
    found = layer(alpha)(torch.cat([source, target]))
    for own, other, part in ((source, target, found[:6]), (target, source, found[6:])):
        # The mixture as a batch in which each value stands as often as its share is.
        times = round(3 * alpha * 2), round(3 * (1 - alpha) * 2)
        mixture = torch.cat([own] * times[0] + [other] * times[1])
        var, mean = torch.var_mean(mixture, (0, 2, 3), correction=0, keepdim=True)
        torch.testing.assert_close(part, (own - mean) / (var + 1e-5).sqrt())


def test_at_a_half_it_is_one_batch_norm_of_both_domains() -> None:
    x = torch.randn(12, 4, 3, 2, dtype=torch.float64)
    x[6:] = 3 * x[6:] + 1
    torch.testing.assert_close(layer(0.5)(x), F.batch_norm(x, None, None, training=True))


@pytest.mark.parametrize(("value", "bound"), [(1.2, 1.0), (0.4, 0.5)])
def test_the_share_stops_at_its_bounds_and_comes_back(value: float, bound: float) -> None:
    norm = layer(value)
    x = torch.randn(12, 4, 3, 2, dtype=torch.float64)
    x[6:] += 1
    outside = copy.deepcopy(norm).eval()
    inside = layer(bound)
    torch.testing.assert_close(norm(x), inside(x))
    assert norm.alpha.item() == bound
    torch.testing.assert_close(outside(x), layer(bound).eval()(x))
    gradients = [torch.autograd.grad(m(x).pow(3).sum(), m.alpha)[0] for m in (norm, inside)]
    assert float(gradients[0]) != 0
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("alpha", [0.2, 1.3])
def test_a_plain_layer_of_a_domain_is_in_bounds_right_after_a_step(alpha):
    norm = normaliser("autodial").apply(nn.BatchNorm2d(3)).train()
    norm.source_mean.fill_(2)
    with torch.no_grad():
        norm.alpha.fill_(alpha)
    trained = norm.of_domain("source")
    with torch.no_grad():
        norm.alpha.fill_(alpha)
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(trained(x), norm.eval().of_domain("source")(x))
