"""Stopping early at a half-width named beforehand: seeds are added until intervals are that narrow.

Only variances decide when to stop, and means are independent of them. What is left of the danger is
stopping where a variance happens to look small; so the first look is not before the deviation is
known fairly well. ``python run.py bench statistics`` simulates the rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from da.grids.grid import Grid
from da.reports.fixed_tasks import on_these_tasks
from da.reports.runs import Column
from da.reports.runs_file import arrays, grouped

LEAST_SEEDS = 4
LEAST_FREEDOM = 20
"""Degrees of freedom of the pooled variance at the first look, at least."""


def first_look(tasks: int) -> int:
    """Seeds before the rule is asked for the first time.

    >>> [first_look(tasks) for tasks in (1, 2, 6, 12)]
    [21, 11, 5, 4]
    """
    return max(LEAST_SEEDS, 1 + math.ceil(LEAST_FREEDOM / tasks))


def half_widths(rows: Iterable[Mapping[str, Any]], grid: Grid) -> dict[str, float]:
    """Half-widths on these tasks of the average, in points, of every comparison that can be made.

    Args:
        rows: of the runs so far, see :func:`da.reports.runs.tidy`.
        grid: says what is compared.
    """
    challenger, baselines = grid.comparison
    widths = {}
    for (row, method, point), accuracies in grouped(rows).items():
        for baseline in baselines:
            name = ", ".join(filter(None, (method, row, point, f"{challenger} - {baseline}")))
            by_task = arrays(
                accuracies.differences(Column.named(challenger), Column.named(baseline))
            )
            if by_task:
                half = float(on_these_tasks(list(by_task.values())).half)
                widths[name] = 0.0 if math.isnan(half) else 100 * half
    return widths


def may_stop(widths: Mapping[str, float], stop_at: float) -> tuple[bool, str]:
    """Whether every comparison is narrow enough, and that in words.

    Args:
        widths: see :func:`half_widths`.
        stop_at: the half-width that was named, in points.
    """
    if not widths:
        return False, "nothing can be compared yet"
    widest = max(widths, key=lambda name: widths[name])
    text = f"half-width on these tasks at most {widths[widest]:.1f} points ({widest})"
    return widths[widest] <= stop_at, f"{text}, wanted {stop_at:g}"
