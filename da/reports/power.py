"""The smallest true difference that a comparison detects in four of five cases.

Of the deviation that is put in, and not of the difference that was found: power at the observed
difference would be the p-value in other words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from da.reports.fixed_tasks import (
    CONFIDENCE,
    critical_value,
    own_quantiles,
    power_of_a_task,
    rising_root,
)

POWER = 0.8

NODES = 200
"""Of the quadrature."""


@cache
def detectable_shift(freedom: float, quantile: float, least: float = 0.0) -> float:
    """The noncentrality at which |t| exceeds a quantile with a power of 80 %.

    Times the standard error that is the detectable difference. With t = (z + shift) / u and u² a
    χ² over its degrees of freedom, the probability is E [Φ(shift - q u) + Φ(-shift - q u)], here
    over the quantiles of u: scipy.special.nctdtr gives nan where the shift is large.

    Args:
        freedom: degrees of freedom of the noncentral t.
        quantile: two-sided critical value.
        least: what the estimate must exceed besides, in true standard errors.
    """
    from scipy.special import gammaincinv, ndtr

    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    edge = quantile * np.sqrt(2 / freedom * gammaincinv(freedom / 2, (nodes + 1) / 2))
    edge = np.maximum(edge, least)

    def excess(shift: float) -> float:
        return float(weights @ (ndtr(shift - edge) + ndtr(-shift - edge)) / 2) - POWER

    return rising_root(excess)


def detectable_mean(error: float, freedom: float, alpha: float = 1 - CONFIDENCE) -> float:
    """Of a mean with a standard error, by a two-sided t-test: of the average, on either question.

    Of ten pairs whose differences have the deviation 1:

    >>> round(detectable_mean(1 / 10**0.5, 9), 3)
    0.996
    """
    from scipy.special import stdtrit

    return error * detectable_shift(freedom, float(stdtrit(freedom, 1 - alpha / 2)))


@cache
def _task_shift(tasks: int, seeds: int, alpha: float) -> float:
    return rising_root(lambda shift: power_of_a_task(tasks, seeds, alpha, shift) - POWER)


def detectable_in_a_task(
    pooled: float,
    tasks: int,
    seeds: int,
    alpha: float = 1 - CONFIDENCE,
    own: float | None = None,
) -> float:
    """In one of several tasks on these tasks, see :func:`da.reports.fixed_tasks.on_these_tasks`.

    Args:
        pooled: deviation over seeds, pooled over the tasks.
        tasks: how many.
        seeds: of each.
        alpha: of all tasks together.
        own: the task's own deviation, where the check of equal variances fails.
    """
    of_one, of_all = own_quantiles(tasks, seeds, alpha)
    if tasks == 1:
        shift = detectable_shift(seeds - 1, of_one)
    elif own is None:
        shift = _task_shift(tasks, seeds, alpha)
    else:
        floor = critical_value(tasks, seeds, alpha) * pooled
        if own == 0:
            return floor / math.sqrt(seeds)
        shift = detectable_shift(seeds - 1, of_all, least=floor / own)
    return (pooled if own is None else own) / math.sqrt(seeds) * shift


@dataclass(frozen=True)
class Planned:
    """What a grid could detect, in the units of the deviation; None where it is not testable."""

    average: float | None
    """On these tasks."""
    task: float | None
    """On these tasks, in one of them."""
    like: float | None
    """On tasks like these."""


def planned(
    tasks: int, seeds: int, deviation: float, task_deviation: float | None, families: int = 1
) -> Planned:
    """What a grid of tasks and seeds could detect.

    Args:
        tasks: how many.
        seeds: of each.
        deviation: of paired differences over seeds.
        task_deviation: of true differences over tasks; None where it is not known.
        families: sets of tasks side by side.
    """
    average = task = like = None
    if seeds > 1:
        average = detectable_mean(deviation / math.sqrt(tasks * seeds), tasks * (seeds - 1))
        task = detectable_in_a_task(deviation, tasks, seeds, (1 - CONFIDENCE) / families)
    if tasks > 2 and task_deviation is not None:
        spread = math.sqrt(task_deviation**2 + deviation**2 / seeds)
        like = detectable_mean(spread / math.sqrt(tasks), tasks - 1)
    return Planned(average, task, like)
