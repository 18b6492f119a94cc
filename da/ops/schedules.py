"""Schedules over training progress p = step / total steps, as in Ganin et al. 2016, section 5.2."""

from __future__ import annotations

import math


def reversal_strength(progress: float, gamma: float = 10.0, maximum: float = 1.0) -> float:
    """lambda_p = maximum · (2 / (1 + exp(-gamma · p)) - 1): from 0 at p = 0 towards the maximum.

    >>> round(reversal_strength(0.1), 4), round(reversal_strength(1.0), 4)
    (0.4621, 0.9999)
    """
    return maximum * (2.0 / (1.0 + math.exp(-gamma * progress)) - 1.0)


def annealing(progress: float, alpha: float = 10.0, beta: float = 0.75) -> float:
    """The factor on the learning rate, (1 + alpha · p)^-beta.

    >>> annealing(0.0), round(annealing(1.0), 4)
    (1.0, 0.1656)
    """
    return (1.0 + alpha * progress) ** -beta


def cosine_ramp(progress: float, length: float) -> float:
    """Half a cosine from 0 at p = 0 to 1 at p = length, and 1 from there on.

    1/2 - cos(π · min(1, p / length)) / 2 (Berthelot et al. 2022's mu(t), of length 1/2).

    Args:
        progress: p.
        length: the share of the run; at 0 the ramp is 1 throughout.

    >>> [round(cosine_ramp(p, 0.5), 4) for p in (0.0, 0.25, 0.5, 0.9)]
    [0.0, 0.5, 1.0, 1.0]
    """
    share = min(1.0, progress / length) if length else 1.0
    return 0.5 - 0.5 * math.cos(math.pi * share)
