import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import log_loss
from torch import nn

from da.methods.critics import build_critic, domain_loss


def logits_of(*sizes, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    return [scale * torch.randn(n, 1, generator=generator, dtype=torch.float64) for n in sizes]


def test_domain_loss_agrees_with_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(6, 1, generator=generator, dtype=torch.float64)
    target = torch.randn(6, 1, generator=generator, dtype=torch.float64)
    p = torch.sigmoid(torch.cat([source, target])).flatten().numpy()
    expected = log_loss([1] * 6 + [0] * 6, p)
    assert domain_loss(source, target).item() == pytest.approx(expected, rel=1e-12)


def test_domain_loss_weighs_domains_equally_and_starts_at_log_2():
    assert domain_loss(torch.zeros(2), torch.zeros(9)).item() == pytest.approx(np.log(2))


def test_critic_has_three_layers_and_one_output():
    linears = [m for m in build_critic(12, 8) if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linears] == [(12, 8), (8, 8), (8, 1)]


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("weighted", [False, True])
def test_smoothed_and_weighted_it_agrees_with_a_loop_over_the_samples(smoothing, weighted):
    source, target = logits_of(5, 8, scale=3.0)
    weights = [torch.linspace(0.5, 1.5, len(x), dtype=torch.float64) for x in (source, target)]
    expected = 0.0
    for logits, w, label in (
        (source, weights[0], 1 - smoothing),
        (target, weights[1], smoothing),
    ):
        for i, d in enumerate(logits.flatten().tolist()):
            p = 1 / (1 + math.exp(-d))
            entropy = -label * math.log(p) - (1 - label) * math.log(1 - p)
            expected += 0.5 * entropy * (w[i].item() if weighted else 1.0) / len(logits)
    found = domain_loss(source, target, smoothing, *(weights if weighted else ()))
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_without_smoothing_it_is_the_plain_loss_bit_for_bit_with_its_gradient():
    found = []
    for loss in (
        lambda s, t: domain_loss(s, t, 0.0),
        lambda s, t: 0.5 * (F.softplus(-s).mean() + F.softplus(t).mean()),
    ):
        source, target = (x.float().requires_grad_() for x in logits_of(7, 9, scale=20.0))
        value = loss(source, target)
        value.backward()
        found.append((value.detach(), source.grad, target.grad))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_the_best_critic_of_smoothed_labels_is_as_unsure_as_they_are():
    best = torch.full((4, 1), math.log(0.9 / 0.1), requires_grad=True)
    other = torch.full((6, 1), -math.log(0.9 / 0.1), requires_grad=True)
    domain_loss(best, other, 0.1).backward()
    assert best.grad.abs().max() < 1e-7
    assert other.grad.abs().max() < 1e-7


def test_extreme_logits_stay_finite():
    source = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    loss = domain_loss(source, torch.tensor([[1e4]]), 0.2)
    loss.backward()
    assert loss.isfinite()
    assert source.grad.isfinite().all()
