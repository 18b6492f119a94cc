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


def learning_rate_factor(
    progress: float, alpha: float = 10.0, beta: float = 0.75, warmup: float = 0.0
) -> float:
    """The annealing, times a rise from 1/10 to 1 at the start where there is one.

    The rise is linear (Goyal et al. 2017, Accurate, Large Minibatch SGD, section 2.2). It does not
    begin at 0, at which the first step would be none.

    Args:
        progress: p.
        alpha: of the annealing.
        beta: of the annealing.
        warmup: p at which the rise ends; 0 for none.

    >>> learning_rate_factor(0.0, warmup=0.1), learning_rate_factor(0.1, alpha=0.0, warmup=0.1)
    (0.1, 1.0)
    """
    rise = 0.1 + 0.9 * min(1.0, progress / warmup) if warmup else 1.0
    return rise * annealing(progress, alpha, beta)


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
