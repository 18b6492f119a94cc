"""Intervals of a share that was counted."""

from __future__ import annotations

import math
from statistics import NormalDist


def wilson_interval(share: float, count: int, level: float = 0.95) -> tuple[float, float]:
    """The score interval of a binomial share (Wilson 1927; Agresti and Coull 1998, equation 2).

    Args:
        share: of the successes, from 0 to 1.
        count: of the trials, from 1.
        level: of confidence.

    >>> low, high = wilson_interval(0.9, 64)
    >>> round(low, 3), round(high, 3)
    (0.802, 0.952)
    """
    z = NormalDist().inv_cdf(0.5 + level / 2)
    scale = 1 + z * z / count
    middle = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)
