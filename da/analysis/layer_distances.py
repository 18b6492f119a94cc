"""How far two domains are apart at every layer: the maximum mean discrepancy of its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from da.ops.kernels import MULTIPLES, multi_kernel, squared_distances
from da.ops.seeding import derive_seed

Array = NDArray[np.float64]

DRAWS = 200
"""Divisions by chance that say what the distance of one and the same domain would be."""


class LayerDistance(NamedTuple):
    """The distance of the domains at one place.

    Attributes:
        layer: name of the place, as in :mod:`da.analysis.activations`.
        channels: how many.
        mmd2: the squared discrepancy, see :func:`squared_mmd`.
        chance: 95 % of its values are below where domains are drawn by chance.
    """

    layer: str
    channels: int
    mmd2: float
    chance: float


def mixed_kernel(x: Tensor) -> Array:
    """The mean of the Gaussians that :func:`da.ops.kernels.multi_kernel` adds up, ``(N, N)``.

    Their widths are multiples of the mean squared distance of the rows, so that the distances of
    layers and networks of different scales compare.

    Args:
        x: ``(N, C)``.

    Returns:
        From 0 to 1.
    """
    kernel: Array = (multi_kernel(squared_distances(x.double())) / len(MULTIPLES)).numpy()
    return kernel


def squared_mmd(kernel: Array, source: NDArray[np.bool_]) -> Array:
    """The estimate of MMD² from all pairs, of many divisions of the same rows in two.

    Of each it is that of :func:`da.ops.kernels.kernel_discrepancy` (Gretton et al. 2012, lemma 6):

    mean k(x, x') over pairs of the source + mean k(y, y') over pairs of the target
    - 2 · mean k(x, y). It can be slightly negative.

    Args:
        kernel: ``(N, N)`` with a diagonal of 1.
        source: ``(N, D)``, the rows that are of the source, in each of D divisions; at least two
            rows are of either side.

    Returns:
        ``(D,)``
    """
    x = source.astype(np.float64)
    y = 1.0 - x
    m, n = x.sum(axis=0), y.sum(axis=0)
    to_x = kernel @ x
    within_x, between = (x * to_x).sum(axis=0), (y * to_x).sum(axis=0)
    within_y = kernel.sum() - within_x - 2 * between
    within: Array = (within_x - m) / (m * (m - 1)) + (within_y - n) / (n * (n - 1))
    return within - 2 * between / (m * n)


def measure_distances(
    source: Mapping[str, Tensor], target: Mapping[str, Tensor], seed: int
) -> list[LayerDistance]:
    """The distance of two domains at every place that both were seen at.

    Args:
        source, target: ``(N, C)`` by place, see :func:`da.analysis.pooled_outputs.pool_outputs`.
        seed: of the divisions by chance.
    """
    found = []
    for name in (name for name in source if name in target):
        parts = [outputs[name] for outputs in (source, target)]
        own = np.repeat([True, False], [len(part) for part in parts])
        random = np.random.default_rng(derive_seed("divisions", seed))
        by_chance = random.permuted(np.tile(own[:, None], DRAWS), axis=0)
        kernel = mixed_kernel(torch.cat(parts))
        value, *others = squared_mmd(kernel, np.column_stack([own, by_chance]))
        chance = float(np.quantile(others, 0.95))
        found.append(LayerDistance(name, parts[0].shape[1], float(value), chance))
    return found
