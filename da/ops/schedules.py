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
