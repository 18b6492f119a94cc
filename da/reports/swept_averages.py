"""Averages at the points of a sweep, all over the same tasks, for charts against what is swept."""

from __future__ import annotations

from typing import Any

from da.reports.runs import Column
from da.reports.statistics import Summary, summary
from da.reports.tables import Table, means_over_tasks


def common_tasks(table: Table) -> tuple[list[str], list[str]]:
    """All tasks, and those that are complete at every point, as far as any is there."""
    tasks = list(dict.fromkeys(line.task for line in table.lines if line.task))
    averages = [line.tasks for line in table.lines if line.is_average]
    of_points = [set(complete) for complete in averages if complete]
    if not of_points:  # one task, or nothing is complete
        return tasks, tasks
    return tasks, [task for task in tasks if all(task in complete for complete in of_points)]


def average_over(
    table: Table, column: Column, point: dict[str, Any], tasks: list[str]
) -> Summary | None:
    """Over seeds, of the mean over some tasks; None where a task is not complete."""
    values = [
        line.fields[column].values
        for line in table.lines
        if line.task in tasks and line.point == point
    ]
    return summary(means_over_tasks(values)) if values and all(values) else None


def absent_at(table: Table, column: Column, name: str) -> list[float]:
    """The values of a sweep at which runs of a column diverged or are missing, on any task."""
    values = {line.point[name] for line in table.lines}
    return sorted(value for value in values if lacks(table, column, {name: value}))


def lacks(table: Table, column: Column, point: dict[str, Any]) -> bool:
    """Whether runs of a point diverged or are missing, on any task."""
    lines = [x for x in table.lines if x.point == point and not x.is_average]
    return not all(line.fields[column].complete for line in lines)


def over_text(table: Table) -> str:
    """Of how many tasks the averages of a chart are, where these are not all; else nothing."""
    tasks, common = common_tasks(table)
    return "" if common == tasks else f", {len(common)} of {len(tasks)} tasks"


def swept_text(name: str) -> str:
    """A swept setting in words.

    >>> swept_text("model.batch_size")
    'batch size'
    """
    return name.removeprefix("model.").replace("_", " ")
