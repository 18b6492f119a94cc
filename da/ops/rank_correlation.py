"""How far one ranking follows another where the upper ranks count most."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

POWER = 2


def weighted_spearman(
    scores: Sequence[float], accuracies: Sequence[float], power: float = POWER
) -> float | None:
    """Spearman's correlation with weights max(r_s, r_a)^power, in [-1, 1].

    r_s and r_a are the dense ranks of score and accuracy over their number, so that what either
    holds for good counts most (Musgrave, Belongie, Lim 2022, Three New Validators and a Large-Scale
    Benchmark Ranking for Unsupervised Domain Adaptation; the power is that of their code).

    Args:
        scores: of the candidates; finite.
        accuracies: of the same candidates.
        power: of the weights; 0 is the ordinary correlation.

    Returns:
        None where either has one value alone.
    """
    pair = np.asarray(scores, dtype=float), np.asarray(accuracies, dtype=float)
    if any(len(np.unique(x)) < 2 for x in pair):
        return None
    ranks = [rankdata(x, method="dense") for x in pair]
    weights = np.maximum(*(r / r.max() for r in ranks)) ** power
    x, y = (weighted_ranks(values, weights) for values in pair)
    x, y = x - np.average(x, weights=weights), y - np.average(y, weights=weights)
    spread = np.sqrt((weights * x * x).sum() * (weights * y * y).sum())
    return float((weights * x * y).sum() / spread)


def weighted_ranks(values: ArrayLike, weights: ArrayLike) -> NDArray[np.float64]:
    """The weight that lies below each value, with the mean over equal values, ``(N,)``.

    >>> weighted_ranks([3.0, 1.0, 3.0], [1.0, 1.0, 1.0]).tolist()  # the usual ones
    [2.5, 1.0, 2.5]
    """
    _, place, number = np.unique(values, return_inverse=True, return_counts=True)
    mass = np.bincount(place, weights)
    ranks: NDArray[np.float64] = np.cumsum(mass) - mass + (number + 1) / 2 * mass / number
    return ranks[place]
