"""Gaussian kernels of feature vectors, and the maximum mean discrepancy of two samples by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from da.errors import UserError

Estimator = Literal["full", "linear"]
ESTIMATORS = get_args(Estimator)

#: Of the mean squared distance, 2^-3 to 2^1: the kernels of the Transfer-Learning-Library.
MULTIPLES = (0.125, 0.25, 0.5, 1.0, 2.0)


def squared_distances(x: Tensor) -> Tensor:
    """‖x_i - x_j‖² of all pairs, ``(N, N)``.

    They come from differences and not from a matrix product, which would cancel digits where the
    features lie far from zero; where two samples coincide, the gradient is 0.

    Args:
        x: ``(N, F)`` float32 or float64.
    """
    return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").square()


def gaussian_kernel(distances: Tensor, variance: Tensor | float) -> Tensor:
    """k = exp(-‖x_i - x_j‖² / (2 σ²)), in [0, 1].

    Args:
        distances: squared, of any shape.
        variance: σ².
    """
    return torch.exp(-distances / (2 * variance))


def multi_kernel(distances: Tensor, multiples: Sequence[float] = MULTIPLES) -> Tensor:
    """Σ_u exp(-‖x_i - x_j‖² / (2 α_u σ²)), the sum of Gaussian kernels of several widths.

    σ² is the mean of the distances given, those of a sample to itself among them. It is a constant
    to the gradient. Where all samples coincide, every kernel is 1.

    Args:
        distances: ``(N, N)`` float, squared.
        multiples: α_u, the squared width of each kernel as a multiple of σ².
    """
    mean = distances.detach().mean().clamp_min(1e-30)
    kernels = [gaussian_kernel(distances, multiple * mean) for multiple in multiples]
    return torch.stack(kernels).sum(dim=0)


def kernel_discrepancy(kernel: Tensor, sources: int, estimator: Estimator = "full") -> Tensor:
    """MMD² = E k(s, s') + E k(t, t') - 2 E k(s, t), a scalar estimate from a kernel's values.

    Both estimators are without bias for a given kernel, and so below 0 at times. ``full`` takes all
    pairs but those of a sample with itself (Gretton et al. 2012, A Kernel Two-Sample Test, lemma
    6); n and m may differ. ``linear`` takes a sample and its next one alone, which needs n = m,

    1/n Σ_i [k(s_i, s_i+1) + k(t_i, t_i+1) - k(s_i, t_i+1) - k(s_i+1, t_i)],

    the last one's next being the first, as in the Transfer-Learning-Library; the papers' own
    (Gretton et al. 2012, lemma 14) takes each sample in one such term, n / 2 of them.

    Args:
        kernel: ``(n + m, n + m)`` float, of the samples of the source, then of the target.
        sources: n, how many are the source's.
        estimator: which pairs are taken.

    Raises:
        UserError: with fewer than 2 samples of a domain; with ``linear`` and n ≠ m.
    """
    n, m = sources, len(kernel) - sources
    if min(n, m) < 2:
        raise UserError(
            "the maximum mean discrepancy compares samples of one domain: expected at least 2 of "
            f"each, got {n} of the source and {m} of the target; use a larger batch"
        )
    source, target, between = kernel[:n, :n], kernel[n:, n:], kernel[:n, n:]
    if estimator == "full":
        return _mean_of_others(source) + _mean_of_others(target) - 2 * between.mean()
    if n != m:
        raise UserError(
            f"estimator 'linear': expected equally many samples of both domains, got {n} of the "
            f"source and {m} of the target; use 'full'"
        )
    signed = source.roll(-1, 1) + target.roll(-1, 1) - between.roll(-1, 1) - between.roll(-1, 0)
    return signed.diagonal().mean()


def _mean_of_others(kernel: Tensor) -> Tensor:
    """The mean over all pairs ``(n, n)`` but those of a sample with itself."""
    n = len(kernel)
    return (kernel.sum() - kernel.diagonal().sum()) / (n * (n - 1))


def mean_discrepancy(
    source: Tensor,
    target: Tensor,
    multiples: Sequence[float] = MULTIPLES,
    estimator: Estimator = "full",
) -> Tensor:
    """The squared MMD of two samples by Gaussian kernels of several widths, a scalar.

    The kernels are added up with equal weights, so it is up to twice their number.

    Args:
        source: ``(n, F)`` float, n at least 2.
        target: ``(m, F)`` float, m at least 2.
        multiples: see :func:`multi_kernel`.
        estimator: see :func:`kernel_discrepancy`.
    """
    kernel = multi_kernel(squared_distances(torch.cat([source, target])), multiples)
    return kernel_discrepancy(kernel, len(source), estimator)
