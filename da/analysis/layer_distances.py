"""How far two domains are apart at every layer: the maximum mean discrepancy of its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from da.ops.seeding import derive_seed

Array = NDArray[np.float64]

SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Of the bandwidth, one Gaussian each: powers of 2, as in DAN (Long et al. 2015, ICML)."""

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


def mixed_kernel(x: Array) -> Array:
    """Mean of Gaussians k(a, b) = exp(-‖a - b‖² / (s · h)) over the :data:`SCALES` s.

    h is the median of ‖a - b‖² over all pairs of different rows (the median heuristic of Gretton
    et al. 2012, JMLR), or their mean where half of the pairs agree. What never differs has the
    kernel 1. Long et al. (2015) take a weighted sum of Gaussians; here all weigh the same.

    Args:
        x: ``(N, C)``.

    Returns:
        ``(N, N)``, from 0 to 1.
    """
    x = x - x.mean(axis=0)
    lengths = np.square(x).sum(axis=1)
    squares = np.maximum(lengths[:, None] + lengths - 2 * x @ x.T, 0)
    squares[squares < 1e-12 * lengths.max()] = 0  # nothing but rounding
    pairs = squares[~np.eye(len(x), dtype=bool)]
    bandwidth = np.median(pairs) or pairs.mean() or 1.0
    kernel = np.zeros_like(squares)
    for scale in SCALES:
        kernel += np.exp(-squares / (scale * bandwidth)) / len(SCALES)
    np.fill_diagonal(kernel, 1.0)
    return kernel


def squared_mmd(kernel: Array, source: NDArray[np.bool_]) -> Array:
    """The unbiased estimate of MMD² (Gretton et al. 2012, JMLR, equation 3) of divisions in two.

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
        parts = [outputs[name].double().numpy() for outputs in (source, target)]
        own = np.repeat([True, False], [len(part) for part in parts])
        random = np.random.default_rng(derive_seed("divisions", seed))
        by_chance = random.permuted(np.tile(own[:, None], DRAWS), axis=0)
        kernel = mixed_kernel(np.concatenate(parts))
        value, *others = squared_mmd(kernel, np.column_stack([own, by_chance]))
        chance = float(np.quantile(others, 0.95))
        found.append(LayerDistance(name, parts[0].shape[1], float(value), chance))
    return found
