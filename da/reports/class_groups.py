"""What the classes of the target are shown by: a task and method, from results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from da.engine.result import Scores
from da.grids.grid import Row
from da.reports.runs import Column, Run
from da.reports.tables import point_text


@dataclass(frozen=True)
class ClassGroup:
    """One task and method, at the last epoch.

    Attributes:
        row: where the learning rates come from.
        method, task: their names.
        point: the swept settings.
    """

    row: Row
    method: str
    task: str
    point: dict[str, Any]

    @property
    def title(self) -> str:
        """In words."""
        where = f", {point_text(self.point)}" if self.point else ""
        return f"{self.method}, {self.task}, {self.row} learning rate{where}"

    @property
    def keys(self) -> dict[str, Any]:
        """The first fields of a line of a CSV, by their titles."""
        return {"lr_row": self.row, "method": self.method, "task": self.task, **self.point}


def groups_of(runs: list[Run]) -> Iterator[tuple[ClassGroup, list[Run]]]:
    """Each group with its runs, in the order of the runs."""
    groups: dict[tuple[Row, str, str, str], list[Run]] = {}
    for run in runs:
        cell = run.entry.cell
        key = (run.entry.row, cell.method, cell.task, str(run.entry.point))
        groups.setdefault(key, []).append(run)
    for (row, method, task, _), mine in groups.items():
        yield ClassGroup(row, method, task, mine[0].entry.point), mine


def last_scores(run: Run, column: Column) -> Scores | None:
    """A run's scores on the target's test images at the last epoch; None of another normaliser."""
    if run.entry.cell.norm != column.norm or run.result is None:
        return None
    return run.result.evaluations[-1].forms.get(column.form, {}).get("target/test")
