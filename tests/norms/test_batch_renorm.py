"""Batch renormalisation against algorithm 1 of the paper, and where it is plain batch norm."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from da.errors import UserError
from da.norms import normaliser, reestimated
from da.norms.batch_renorm import BatchRenormLayer


def layer(**options: object) -> BatchRenormLayer:
    norm = normaliser("brn", **options).apply(nn.BatchNorm2d(3).double())
    assert isinstance(norm, BatchRenormLayer)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
        norm.bias.copy_(torch.tensor([-1.0, 0.0, 1.0]))
        norm.running_mean.copy_(torch.tensor([0.0, 1.0, -9.0]))
        norm.running_var.copy_(torch.tensor([1.0, 30.0, 0.001]))
    return norm


def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 3, 4, 2, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize(("batches", "share"), [(40, 1.0), (9, 0.5), (4, 0.0)])
def test_it_is_algorithm_1(batches: int, share: float) -> None:
    norm = layer(start=4, r_end=14, d_end=14)
    norm.num_batches_tracked.fill_(batches)
    x = images()
    r_max, d_max = 1 + 2 * share, 5 * share
    before = [norm.running_mean.clone(), norm.running_var.clone()]
    found = norm(x)
    for c in range(3):
        values = x[:, c]
        mean, sigma = values.mean(), (values.var(correction=0) + 1e-5).sqrt()
        running = float((before[1][c] + 1e-5).sqrt())
        r = min(max(float(sigma) / running, 1 / r_max), r_max)
        d = min(max(float(mean - before[0][c]) / running, -d_max), d_max)
        expected = norm.weight[c] * ((values - mean) / sigma * r + d) + norm.bias[c]
        torch.testing.assert_close(found[:, c], expected)
        torch.testing.assert_close(norm.running_mean[c], 0.9 * before[0][c] + 0.1 * mean)
    assert int(norm.num_batches_tracked) == batches + 1


def test_corrections_have_no_gradient() -> None:
    norm, x = layer(start=0, r_end=0, d_end=0), images().requires_grad_()
    norm.num_batches_tracked.fill_(5)
    r, d = norm.corrections(x)
    assert not r.requires_grad
    (found,) = torch.autograd.grad(norm(x).pow(2).sum(), x)
    y = nn.functional.batch_norm(
        x, None, None, norm.weight * r, norm.bias + norm.weight * d, training=True
    )
    (expected,) = torch.autograd.grad(y.pow(2).sum(), x)
    torch.testing.assert_close(found, expected)


def test_statistics_are_reestimated_as_batch_norms_are() -> None:
    norm, plain, x = layer(), nn.BatchNorm2d(3).double(), images()
    norm.num_batches_tracked.fill_(1000)
    with reestimated(nn.Sequential(norm), [x]), reestimated(nn.Sequential(plain), [x]):
        torch.testing.assert_close(norm.running_mean, plain.running_mean)
        torch.testing.assert_close(norm.running_var, plain.running_var)
    assert int(norm.num_batches_tracked) == 1000


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"r_max": 0.5}, "r_max: expected a finite number from 1, got 0.5"),
        ({"d_max": -1}, "d_max: expected a finite number from 0, got -1"),
        ({"start": -1}, "start: expected a whole number of batches, got -1"),
        ({"r_end": 10}, "r_end: expected start=50 batches or more, got 10"),
    ],
)
def test_bounds_that_mean_nothing_are_refused(options: dict[str, object], match: str) -> None:
    with pytest.raises(UserError, match=match):
        normaliser("brn", **options)


def test_batches_that_pretrained_weights_have_seen_do_not_count() -> None:
    norm = nn.BatchNorm2d(3)
    norm.num_batches_tracked.fill_(100_000)
    made = normaliser("brn").apply(norm)
    assert made.num_batches_tracked == 0
    made.running_mean.fill_(5)
    x = images().float()
    torch.testing.assert_close(made(x), F.batch_norm(x, None, None, training=True))


@pytest.mark.parametrize("layers", [1, 2])
def test_re_estimation_takes_the_statistics_of_batches_uncorrected(layers: int) -> None:
    plain = nn.Sequential(*(nn.BatchNorm2d(3) for _ in range(layers)))
    renorm = normaliser("brn", start=0, r_end=0, d_end=0).apply(copy.deepcopy(plain))
    batches = [k * images().float() + k for k in range(1, 30)]
    with reestimated(plain, batches), reestimated(renorm, batches):
        for one, other in zip(plain, renorm, strict=True):
            torch.testing.assert_close(other.running_mean, one.running_mean)
            torch.testing.assert_close(other.running_var, one.running_var)
    assert all(layer.corrects for layer in renorm)


def test_a_bfloat16_module_trains() -> None:
    norm = normaliser("brn", start=0, r_end=0, d_end=0).apply(nn.BatchNorm2d(3)).bfloat16()
    out = norm(images().bfloat16())
    out.float().square().mean().backward()
    assert out.dtype == torch.bfloat16
    assert norm.weight.grad.isfinite().all()
