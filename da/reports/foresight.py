"""What a grid could detect, said before it is trained, from a given or an earlier deviation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from da.errors import UserError
from da.grids.grid import Grid
from da.reports.fixed_tasks import on_these_tasks
from da.reports.power import Planned, planned
from da.reports.runs import Column
from da.reports.runs_file import Accuracies, Group, arrays, read_runs


@dataclass(frozen=True)
class Deviations:
    """How paired differences vary, in points."""

    what: str
    """Of what: ``wa - bn, DANN``; empty where a number was given."""
    seeds: float
    """Over seeds, pooled over tasks."""
    tasks: float | None
    """Of true differences, over tasks; None where it is not known."""


def parse_deviation(text: str, grid: Grid) -> list[Deviations]:
    """A deviation in points, ``5``; with that between tasks, ``5,8``; or an earlier grid's.

    Args:
        text: the numbers, or the path of a runs.csv or of its folder.
        grid: says what is compared.

    Raises:
        UserError: it is none of these.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        return _learnt(Path(text), grid)
    if len(numbers) > 2 or not all(0 < number < math.inf for number in numbers):
        raise UserError(f"--deviation: expected one or two numbers above 0, got '{text}'")
    return [Deviations("", numbers[0], numbers[1] if len(numbers) == 2 else None)]


def _learnt(path: Path, grid: Grid) -> list[Deviations]:
    if not path.exists():
        raise UserError(
            "--deviation: expected a number of points above 0, two with a comma (over seeds, "
            f"between tasks), or a folder with a runs.csv, got '{path}'"
        )
    groups = read_runs(path)
    learnt = estimated(groups, grid)
    if not learnt:
        challenger, baselines = grid.comparison
        several = any(
            len(accuracies.seeds) > 1
            and accuracies.differences(Column.named(challenger), Column.named(baseline))
            for accuracies in groups.values()
            for baseline in baselines
        )
        wanted = (
            "differences that vary over seeds, got differences that are equal"
            if several
            else f"tasks in which {challenger} and one of {', '.join(baselines)} have all of two "
            "seeds or more"
        )
        raise UserError(f"--deviation: nothing to learn from {path}: expected {wanted}")
    return learnt


def estimated(groups: Mapping[Group, Accuracies], grid: Grid) -> list[Deviations]:
    """The deviations of every comparison of an earlier grid that has two seeds; there may be none.

    That between tasks is √(variance of task means - variance over seeds / S), at least 0.
    """
    challenger, baselines = grid.comparison
    found = []
    for (row, method, point), accuracies in groups.items():
        for baseline in baselines:
            by_task = arrays(
                accuracies.differences(Column.named(challenger), Column.named(baseline))
            )
            if not by_task or len(accuracies.seeds) < 2:
                continue
            analysis = on_these_tasks(list(by_task.values()))
            over_seeds = float(analysis.pooled)
            between = None
            if len(by_task) > 1:
                noise = over_seeds**2 / len(accuracies.seeds)
                between = math.sqrt(max(0.0, float(np.var(analysis.means, ddof=1)) - noise))
            if over_seeds > 0:
                name = ", ".join(filter(None, (method, row, point, f"{challenger} - {baseline}")))
                found.append(
                    Deviations(name, 100 * over_seeds, None if between is None else 100 * between)
                )
    return found


def foresight(deviations: Iterable[Deviations], tasks: int, seeds: int, points: int) -> list[str]:
    """What a grid could detect, a line for each deviation; in points."""
    lines = [
        f"detectable with a power of 80 % at 5 %, in points, with {tasks} "
        f"task{'s' * (tasks > 1)} and {seeds} seed{'s' * (seeds > 1)}:"
    ]
    for each in deviations:
        could = planned(tasks, seeds, each.seeds, each.tasks, points)
        between = "" if each.tasks is None else f", {each.tasks:.1f} between tasks"
        what = f"{each.what}: " if each.what else ""
        lines.append(
            f"  {what}deviation {each.seeds:.1f} over seeds{between}: {_in_words(could, tasks)}"
        )
    return lines


def _in_words(could: Planned, tasks: int) -> str:
    if could.average is None:
        these = "not testable (one seed)"
    elif tasks == 1:
        these = f"{could.task:.1f}"
    else:
        these = f"{could.average:.1f} on average, {could.task:.1f} in one task"
    if could.like is not None:
        like = f"{could.like:.1f}"
    elif tasks < 3:
        like = f"not testable ({tasks} task{'s' * (tasks > 1)})"
    else:
        like = "unknown without a deviation between tasks"
    return f"on these tasks {these}; on tasks like these {like}"
