"""Transferable normalisation against its formula in numpy."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from da.errors import UserError
from da.methods.updates import frozen_statistics
from da.norms import normaliser
from da.norms.base import tell_domains
from da.norms.domain_statistics import DomainStatistics
from da.types import Segment

BOTH = (Segment("source", 5), Segment("target", 3))
SHAPES = {"vectors": (4,), "maps": (4, 3, 2)}
KINDS = {2: nn.BatchNorm1d, 4: nn.BatchNorm2d}


def images(shape: tuple[int, ...]) -> Tensor:
    x = torch.randn(8, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[5:] = 3 * x[5:] - 2
    return x


def layer(dimensions: int, name: str = "transnorm") -> DomainStatistics:
    norm = normaliser(name).apply(KINDS[dimensions](4).double())
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 1.5, 4))
        norm.bias.copy_(torch.linspace(-1, 1, 4))
    return norm


def told(norm: nn.Module, x: Tensor, *domains: Segment) -> Tensor:
    tell_domains(norm, domains)
    return norm(x)


def weights_of_channels(means: list[np.ndarray], variances: list[np.ndarray]) -> np.ndarray:
    ratios = [m / np.sqrt(v + 1e-5) for m, v in zip(means, variances, strict=True)]
    nearness = 1 / (1 + np.abs(ratios[0] - ratios[1]))
    return len(nearness) * nearness / nearness.sum()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_it_is_its_formula_in_training_and_in_evaluation(shape: tuple[int, ...]) -> None:
    x = images(shape)
    norm = layer(x.dim())
    found = told(norm, x, *BOTH).detach().numpy()
    axes = (0, *range(2, x.dim()))
    view = (1, -1, *(1 for _ in shape[1:]))
    parts = [part.numpy() for part in x.split((5, 3))]
    means, unbiased = [p.mean(axes) for p in parts], [p.var(axes, ddof=1) for p in parts]
    alpha = weights_of_channels(means, unbiased)
    g, b = (p.detach().numpy().reshape(view) for p in (norm.weight, norm.bias))

    def expected(part: np.ndarray, mean: np.ndarray, var: np.ndarray, a: np.ndarray) -> np.ndarray:
        unit = (part - mean.reshape(view)) / np.sqrt(var.reshape(view) + 1e-5)
        return (1 + a.reshape(view)) * (g * unit + b)

    joint = [expected(p, m, p.var(axes), alpha) for p, m in zip(parts, means, strict=True)]
    np.testing.assert_allclose(found, np.concatenate(joint), rtol=1e-9, atol=1e-12)
    # The momentum of the authors: a tenth of the batch, nine tenths of what was.
    running = [(0.1 * m, 0.9 + 0.1 * v) for m, v in zip(means, unbiased, strict=True)]
    for domain, (mean, var) in zip(("source", "target"), running, strict=True):
        np.testing.assert_allclose(norm.get_buffer(f"{domain}_mean").numpy(), mean, rtol=1e-9)
        np.testing.assert_allclose(norm.get_buffer(f"{domain}_var").numpy(), var, rtol=1e-9)
    alpha = weights_of_channels(*map(list, zip(*running, strict=True)))
    norm.eval()
    for domain, (mean, var) in zip(("source", "target"), running, strict=True):
        alone = told(norm, x[:1], Segment(domain, 1))
        np.testing.assert_allclose(
            alone.detach().numpy(), expected(x[:1].numpy(), mean, var, alpha), rtol=1e-9, atol=1e-12
        )
        torch.testing.assert_close(norm.of_domain(domain)(x[:1]), alone)


@pytest.mark.parametrize("name", ["transnorm", "autodial", "rn"])
def test_the_running_averages_stand_for_a_domain_that_a_batch_does_not_show(name: str) -> None:
    x = images((4, 3, 2))
    norm = layer(4, name)
    with torch.no_grad():
        for p in norm.parameters():
            p.mul_(0.8)
    alone = copy.deepcopy(norm)
    # Nothing is known of the target yet: it is taken to be as the source.
    told(alone, x[:5], BOTH[0])
    mirrored = copy.deepcopy(norm)
    same = told(mirrored, torch.cat([x[:5], x[:5]]), BOTH[0], Segment("target", 5))[:5]
    torch.testing.assert_close(told(copy.deepcopy(norm), x[:5], BOTH[0]), same)
    told(norm, x, *BOTH)
    with frozen_statistics(norm):
        shown = told(norm, x[5:], BOTH[1])
    with torch.no_grad():
        norm.source_mean += 1
        changed = told(norm, x[5:], BOTH[1])
    assert not torch.allclose(shown, changed, rtol=1e-3)
    assert int(alone.target_batches) == 0
    assert int(alone.source_batches) == 1


@pytest.mark.parametrize("name", ["transnorm", "autodial", "rn"])
def test_a_domain_is_never_guessed_and_one_value_has_no_variance(name: str) -> None:
    norm, x = layer(2, name), images((4,))
    for domains, match in (
        ((), "was not told which samples are of which"),
        ((Segment("source", 5),), "was told of 5 of source samples, and 8 came"),
        ((Segment("photo", 8),), "knows source and target, not 'photo'"),
        ((Segment("source", 7), Segment("target", 1)), "1 value per channel of the target"),
    ):
        with pytest.raises(UserError, match=match) as caught:
            told(norm, x, *domains)
        assert f"({name})" in str(caught.value)


def test_the_target_starts_from_what_the_source_learnt() -> None:
    norm, x = layer(2, "rn"), images((4,))
    told(norm, x[:5], BOTH[0])
    with torch.no_grad():
        norm.source_mean_gate.fill_(0.3)
    norm.start_target_from_source()
    assert torch.equal(norm.source_mean, norm.target_mean)
    assert int(norm.target_batches) == 1
    assert norm.target_mean_gate.eq(0.3).all()


@pytest.mark.parametrize("name", ["transnorm", "autodial", "rn"])
def test_a_domain_that_training_has_not_shown_is_unknown_whatever_pretrained_weights_saw(
    name: str,
) -> None:
    seen, fresh = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
    for norm in (seen, fresh):
        norm.running_mean.fill_(3)
    seen.num_batches_tracked.fill_(1000)
    x = torch.randn(5, 4, 3, 2)
    out = [told(normaliser(name).apply(norm), x, Segment("source", 5)) for norm in (seen, fresh)]
    torch.testing.assert_close(*out, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["adabn", "dsbn", "transnorm", "autodial", "rn"])
def test_a_bfloat16_module_trains(name: str) -> None:
    norm = normaliser(name).apply(nn.BatchNorm2d(4)).bfloat16()
    out = told(norm, images((4, 3, 2)).bfloat16(), *BOTH)
    out.float().square().mean().backward()
    assert out.dtype == torch.bfloat16
    assert all(p.grad is None or p.grad.isfinite().all() for p in norm.parameters())
