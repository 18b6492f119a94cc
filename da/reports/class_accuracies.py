"""The accuracy of every class of the target over seeds, from results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
    groups: dict[tuple[Row, str, str, str], list[Run]] = {}
    for run in runs:
        cell = run.entry.cell
        key = (run.entry.row, cell.method, cell.task, str(run.entry.point))
        groups.setdefault(key, []).append(run)
    found = []
    for (row, method, task, _), mine in groups.items():
        classes = _of_group(mine, columns(mine, list(plan.grid.norms)))
        if classes:
            found.append(ClassAccuracies(row, method, task, mine[0].entry.point, classes))
    return found


def _of_group(runs: list[Run], shown: list[Column]) -> dict[str, dict[Column, Summary]]:
    classes: dict[str, dict[Column, Summary]] = {}
    for column in shown:
        values: dict[str, list[float]] = {}
        for run in runs:
            if run.entry.cell.norm == column.norm and run.result is not None:
                last = run.result.evaluations[-1].forms.get(column.form, {}).get("target/test")
                for name, value in ((last and last.per_class) or {}).items():
                    values.setdefault(name, [])
                    if value is not None:
                        values[name].append(value)
        for name, of_class in values.items():
            classes.setdefault(name, {})
            if of_class:
                classes[name][column] = summary(of_class)
    return classes
