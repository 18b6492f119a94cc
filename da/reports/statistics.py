"""Means, and intervals and tests *on tasks like these*: tasks vary, one number for each.

Seeds are averaged inside a task and a test over tasks sees one number per task: pooling seeds and
tasks in one t-test gives 35 % false positives at a nominal 5 %. What is said *on these tasks* is in
:mod:`da.reports.fixed_tasks`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from da.reports.fixed_tasks import CONFIDENCE
from da.reports.power import detectable_mean

LEAST_TASKS = 3
"""With two, the 95 % interval is 12.7 standard errors wide on either side: it says nothing."""


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation (ddof = 1; None for one value)."""

    n: int
    mean: float
    std: float | None


@dataclass(frozen=True)
class Paired:
    """A paired difference with its interval; all but n and difference are None where it is not
    testable, for the reason given."""

    n: int
    """Seeds, or tasks, that it is a mean over."""
    difference: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    """Two-sided; None of one of several intervals that hold together."""
    freedom: float | None = None
    """Degrees of freedom."""
    detectable: float | None = None
    """What would have been detected with a power of 80 %, see :mod:`da.reports.power`."""
    reason: str = ""

    @property
    def sign(self) -> int:
        """1 or -1 where the interval excludes 0, else 0."""
        if self.low is None or self.high is None:
            return 0
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


def summary(values: Sequence[float]) -> Summary:
    """Mean and standard deviation of at least one value."""
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return Summary(n, mean, None)
    return Summary(n, mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1)))


def on_tasks_like_these(differences: Sequence[float]) -> Paired:
    """The mean difference over tasks, with Student's interval and two-sided p-value.

    mean(d) ± t(.975, T - 1) · std(d) / √T. It takes tasks for a sample of independent ones.

    Args:
        differences: one per task, averaged over seeds; T of them.
    """
    from scipy.special import stdtr, stdtrit  # much lighter than scipy.stats

    # Accuracies are ratios of counts: differences that are equal but for rounding are equal.
    rounded = [round(d, 12) for d in differences]
    whole = summary(rounded)
    if whole.std is None or whole.n < LEAST_TASKS:
        return Paired(whole.n, whole.mean, reason=f"{whole.n} task{'s' * (whole.n > 1)}")
    if len(set(rounded)) == 1:
        return Paired(whole.n, whole.mean, reason=f"the {whole.n} differences are equal")
    error = whole.std / math.sqrt(whole.n)
    half = float(stdtrit(whole.n - 1, (1 + CONFIDENCE) / 2)) * error
    return Paired(
        whole.n,
        whole.mean,
        whole.mean - half,
        whole.mean + half,
        p=2 * float(stdtr(whole.n - 1, -abs(whole.mean) / error)),
        freedom=whole.n - 1,
        detectable=detectable_mean(error, whole.n - 1),
    )


@dataclass(frozen=True)
class SignedRank:
    """Wilcoxon's exact signed-rank test; p is None where it is not testable."""

    n: int
    p: float | None
    reason: str = ""


def wilcoxon(differences: Sequence[float], alpha: float = 1 - CONFIDENCE) -> SignedRank:
    """The exact two-sided test of symmetry about 0, also with ties.

    Zeros are dropped (Wilcoxon 1945) and equal sizes share their mean rank. All 2^n signs are
    counted through a recursion over doubled ranks, so the p-value is exact with ties, where
    scipy's table is not.
    """
    values = [round(d, 12) for d in differences if round(d, 12) != 0]
    n = len(values)
    if n == 0:
        return SignedRank(0, None, "all differences are 0")
    floor = 2.0 ** (1 - n)
    if floor > alpha:
        return SignedRank(n, None, f"with n = {n} p cannot go below {floor:.3g}, above {alpha:.2g}")
    ranks = _doubled_ranks([abs(v) for v in values])
    total = sum(ranks)
    counts = [1] + [0] * total
    for rank in ranks:
        for value in range(total, rank - 1, -1):
            counts[value] += counts[value - rank]
    positive = sum(rank for rank, v in zip(ranks, values, strict=True) if v > 0)
    smaller = min(positive, total - positive)
    return SignedRank(n, min(1.0, 2 * sum(counts[: smaller + 1]) / 2**n))


def _doubled_ranks(sizes: Sequence[float]) -> list[int]:
    """Twice the mean rank of each value: whole numbers, also with ties."""
    ordered = sorted(sizes)
    return [2 * ordered.index(s) + 1 + ordered.count(s) for s in sizes]


def sampling_error(accuracy: float, n: int) -> float:
    """Standard error of an accuracy that was measured on n images: √(p (1 - p) / n)."""
    return math.sqrt(accuracy * (1 - accuracy) / n)
