"""The accuracy of every class of the target over seeds, from results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from da.engine.result import Scores
from da.grids.grid import Row
from da.grids.plan import Plan
from da.reports.runs import Column, Run, columns
from da.reports.statistics import Summary, summary


@dataclass(frozen=True)
class ClassAccuracies:
    """Of one task and method, at the last epoch.

    Attributes:
        row: where the learning rates come from.
        method, task: their names.
        point: the swept settings.
        classes: by class and normaliser the mean over the runs that are done and have images of
            the class; a normaliser without any is left out.
    """

    row: Row
    method: str
    task: str
    point: dict[str, Any]
    classes: dict[str, dict[Column, Summary]]


def class_accuracies(plan: Plan, runs: list[Run]) -> list[ClassAccuracies]:
    """One for each row of rates, method, task and swept point of which any result says it.

    A target without labels has none.
    """
    found = []
    for (row, method, task), mine in groups_of(runs):
        classes = _of_group(mine, columns(mine, list(plan.grid.norms)))
        if classes:
            found.append(ClassAccuracies(row, method, task, mine[0].entry.point, classes))
    return found


def groups_of(runs: list[Run]) -> Iterator[tuple[tuple[Row, str, str], list[Run]]]:
    """Row of rates, method and task, with their runs; swept points one by one."""
    groups: dict[tuple[Row, str, str, str], list[Run]] = {}
    for run in runs:
        cell = run.entry.cell
        key = (run.entry.row, cell.method, cell.task, str(run.entry.point))
        groups.setdefault(key, []).append(run)
    for key, mine in groups.items():
        yield key[:3], mine


def last_scores(run: Run, column: Column) -> Scores | None:
    """A run's scores on the target's test images at the last epoch; None of another normaliser."""
    if run.entry.cell.norm != column.norm or run.result is None:
        return None
    return run.result.evaluations[-1].forms.get(column.form, {}).get("target/test")


def _of_group(runs: list[Run], shown: list[Column]) -> dict[str, dict[Column, Summary]]:
    classes: dict[str, dict[Column, Summary]] = {}
    for column in shown:
        values: dict[str, list[float]] = {}
        for run in runs:
            last = last_scores(run, column)
            for name, value in ((last and last.per_class) or {}).items():
                values.setdefault(name, [])
                if value is not None:
                    values[name].append(value)
        for name, of_class in values.items():
            classes.setdefault(name, {})
            if of_class:
                classes[name][column] = summary(of_class)
    return classes
