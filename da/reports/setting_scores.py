"""What a label-free score says of the settings that a grid sweeps: which to take, unseen labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean
from typing import Any

from da.engine.result import validation_scores
from da.grids.plan import Plan
from da.reports.model import Section
from da.reports.runs import Run
from da.reports.tables import point_text
from da.reports.texts import Strong


@dataclass(frozen=True)
class SettingScores:
    """One point of a sweep under one method, in one row of learning rates.

    Attributes:
        row: where the learning rates come from.
        method: its name.
        point: the swept settings.
        scores: by normaliser the mean over tasks and seeds at the last epoch; None where a run
            diverged, is missing or has no such score.
        diverged: runs that diverged, by normaliser, where some did.
    """

    row: str
    method: str
    point: dict[str, Any]
    scores: dict[str, float | None]
    diverged: dict[str, int]

    @property
    def together(self) -> float | None:
        """The mean over normalisers; None where one of them has none."""
        values = [value for value in self.scores.values() if value is not None]
        return fmean(values) if values and len(values) == len(self.scores) else None


def setting_scores(plan: Plan, runs: Sequence[Run]) -> list[SettingScores]:
    """The scores of every row, method and swept point; nothing where nothing is swept.

    Nor where the grid's score compares the evaluations of one training alone.

    Args:
        plan: of the grid.
        runs: all of its places.
    """
    if not plan.grid.sweep:
        return []
    from da.selection.base import compares_trainings  # it imports torch

    if not compares_trainings(plan.grid.score):
        return []
    found = []
    for row, method, point in product(plan.grid.rows, plan.grid.methods, plan.grid.points()):
        of_norm = {
            norm: [
                run
                for run in runs
                if (run.entry.row, run.entry.cell.method, run.entry.point) == (row, method, point)
                and run.entry.cell.norm == norm
            ]
            for norm in plan.grid.norms
        }
        diverged = {
            norm: sum(run.state == "diverged" for run in some) for norm, some in of_norm.items()
        }
        found.append(
            SettingScores(
                row,
                method,
                point,
                {norm: _mean(some, plan.grid.score) for norm, some in of_norm.items()},
                {norm: number for norm, number in diverged.items() if number},
            )
        )
    return found


def _mean(runs: Sequence[Run], score: str) -> float | None:
    values = [
        None
        if run.result is None
        else validation_scores(run.result.evaluations[-1].forms[""]).label_free.get(score)
        for run in runs
    ]
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def sections(found: Sequence[SettingScores], score: str) -> list[Section]:
    """The section of a report; nothing where nothing is swept."""
    if not found:
        return []
    norms = list(found[0].scores)
    several = len({one.row for one in found}) > 1
    rows = []
    for place in dict.fromkeys((one.row, one.method) for one in found):
        mine = [one for one in found if (one.row, one.method) == place]
        columns = {norm: [one.scores[norm] for one in mine] for norm in norms}
        columns["together"] = [one.together for one in mine]
        best = {
            name: max((value for value in values if value is not None), default=None)
            for name, values in columns.items()
        }
        for one in mine:
            values = {**one.scores, "together": one.together}
            texts = [
                _text(value, best[name], one.diverged.get(name, 0))
                for name, value in values.items()
            ]
            start = [one.row] if several else []
            rows.append([*start, one.method, point_text(one.point), *texts])
    start = ["row"] if several else []
    text = (
        f"{score} at the last epoch, the mean over tasks and seeds; higher is better. Bold is the "
        "highest of a method's column; *together* is the mean over normalisers, which chooses one "
        "setting for all of them."
    )
    return [
        Section(
            "Swept settings by a score without target labels",
            text,
            [*start, "method", "setting", *norms, "together"],
            rows,
            left=range(len(start) + 2),
        )
    ]


def _text(value: float | None, best: float | None, diverged: int) -> str:
    if value is None:
        return f"{diverged} diverged" if diverged else "–"
    return Strong(f"{value:.3f}") if value == best else f"{value:.3f}"
