import math

import numpy as np
import pytest
import torch
from refusing import refused
from sklearn.metrics.pairwise import rbf_kernel

from da.ops.kernels import (
    MULTIPLES,
    gaussian_kernel,
    kernel_discrepancy,
    mean_discrepancy,
    multi_kernel,
    squared_distances,
)


def samples(n, m, features=6, shift=0.7):
    generator = torch.Generator().manual_seed(0)
    source, target = (torch.randn(k, features, generator=generator).double() for k in (n, m))
    return source, target + shift


def naive_kernel(x):
    """The sum of the five kernels, pair by pair."""
    pairs = [[sum((a - b) ** 2 for a, b in zip(p, q, strict=True)) for q in x] for p in x]
    mean = np.mean(pairs)
    kernels = [[sum(math.exp(-d / (2 * 2.0**k * mean)) for k in range(-3, 2)) for d in row]
               for row in pairs]  # fmt: skip
    return np.array(kernels)


def naive_full(kernel, n):
    """The unbiased estimate, by loops over pairs."""
    total, m = 0.0, len(kernel) - n
    for i in range(n + m):
        for j in range(n + m):
            if (i < n) != (j < n):
                total -= kernel[i, j] / (n * m)
            elif i != j:
                size = n if i < n else m
                total += kernel[i, j] / (size * (size - 1))
    return total


def naive_linear(kernel, n):
    """The estimate from each sample and its next one, by a loop."""
    total = 0.0
    for i in range(n):
        j = (i + 1) % n
        total += kernel[i, j] + kernel[n + i, n + j] - kernel[i, n + j] - kernel[j, n + i]
    return total / n


def test_distances_and_kernels_agree_with_scikit_learn():
    x = torch.cat(samples(5, 4))
    distances = squared_distances(x)
    for variance in (0.3, 2.0):
        expected = rbf_kernel(x.numpy(), gamma=1 / (2 * variance))
        np.testing.assert_allclose(gaussian_kernel(distances, variance), expected, rtol=1e-12)
    expected = sum(
        rbf_kernel(x.numpy(), gamma=1 / (2 * multiple * distances.mean().item()))
        for multiple in MULTIPLES
    )
    np.testing.assert_allclose(multi_kernel(distances), expected, rtol=1e-12)


def test_distances_far_from_zero_keep_their_digits():
    x = torch.cat(samples(20, 30))
    moved = squared_distances((x + 1000).float())
    np.testing.assert_allclose(moved, squared_distances(x), rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize(("n", "m"), [(6, 6), (2, 2), (7, 3), (2, 5)])
def test_the_full_estimate_agrees_with_loops_over_all_pairs(n, m):
    source, target = samples(n, m)
    expected = naive_full(naive_kernel(torch.cat([source, target]).tolist()), n)
    assert mean_discrepancy(source, target).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n", [2, 3, 8])
def test_the_linear_estimate_agrees_with_a_loop_over_neighbours(n):
    source, target = samples(n, n)
    expected = naive_linear(naive_kernel(torch.cat([source, target]).tolist()), n)
    found = mean_discrepancy(source, target, estimator="linear").item()
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("estimator", ["full", "linear"])
def test_estimates_are_about_0_of_one_distribution_and_grow_with_the_distance(estimator):
    found = [
        mean_discrepancy(*samples(400, 400, shift=shift), estimator=estimator).item()
        for shift in (0.0, 0.5, 1.0, 2.0)
    ]
    assert abs(found[0]) < 0.05
    assert found == sorted(found)
    assert found[-1] > 1


def test_domains_without_an_overlap_reach_the_number_of_kernels():
    # All distances within a domain are 0, so k is 1, and that of the domains is a single one.
    source, target = torch.zeros(4, 3), torch.ones(4, 3)
    distance = 1 / np.array(MULTIPLES)  # d² / (2 α mean(d²)) with half of the pairs at 0
    expected = 2 * len(MULTIPLES) - 2 * np.exp(-distance).sum()
    assert mean_discrepancy(source, target).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("estimator", ["full", "linear"])
def test_gradients_agree_with_numerical_ones_where_the_widths_are_given(estimator):
    # Not through the mean distance, which is a constant to the gradient.
    source, target = samples(4, 4, features=2)

    def discrepancy(source, target):
        kernel = gaussian_kernel(squared_distances(torch.cat([source, target])), 1.3)
        return kernel_discrepancy(kernel, len(source), estimator)

    assert torch.autograd.gradcheck(discrepancy, (source.requires_grad_(), target.requires_grad_()))


def test_the_mean_distance_is_a_constant_to_the_gradient():
    source, target = samples(4, 5)
    gradients = []
    for constant in (False, True):
        x = torch.cat([source, target]).requires_grad_()
        distances = squared_distances(x)
        mean = distances.mean().item()
        kernel = (
            sum(gaussian_kernel(distances, multiple * mean) for multiple in MULTIPLES)
            if constant
            else multi_kernel(distances)
        )
        kernel_discrepancy(kernel, 4).backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("estimator", ["full", "linear"])
@pytest.mark.parametrize("value", [0.0, 3.0])
def test_samples_that_coincide_give_0_and_a_finite_gradient(estimator, value):
    x = torch.full((6, 3), value, requires_grad=True)
    loss = mean_discrepancy(x[:3], x[3:], estimator=estimator)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert x.grad.isfinite().all()


def test_fewer_than_two_samples_and_unequal_pairs_are_refused():
    source, target = samples(1, 3)
    for estimator in ("full", "linear"):
        refused(
            lambda estimator=estimator: mean_discrepancy(source, target, estimator=estimator),
            "expected at least 2 of each, got 1 of the source and 3 of the target",
        )
    refused(
        lambda: mean_discrepancy(*samples(4, 3), estimator="linear"),
        "estimator 'linear': expected equally many samples of both domains, got 4 of the source",
        "3 of the target; use 'full'",
    )
