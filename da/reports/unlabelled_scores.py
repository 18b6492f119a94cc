"""Label-free scores of targets without labels, in place of the accuracies that nobody knows."""

from __future__ import annotations

from collections.abc import Sequence

from da.engine.result import validation_scores
from da.grids.grid import Row
from da.grids.plan import Plan
from da.reports.model import Section
from da.reports.runs import Run, columns
from da.reports.statistics import summary
from da.reports.tables import has_accuracy, point_text

TITLE = (
    "label-free scores of targets without labels, at the last epoch, mean ± standard deviation "
    "over seeds; higher is better"
)


def score_rows(
    plan: Plan, runs: Sequence[Run], row: Row, method: str
) -> tuple[list[str], list[list[str]]]:
    """A line for each task, swept point and score: a column for each normaliser.

    Args:
        plan: of the grid.
        runs: all of them; those whose target has labels, or that have not finished, are passed
            over.
        row: which learning rates.
        method: by name.

    Returns:
        The header and the lines; no lines where there is no such target.
    """
    mine = [
        run
        for run in runs
        if (run.entry.row, run.entry.cell.method) == (row, method)
        and run.result is not None
        and not has_accuracy(run.result, "target/test")
    ]
    shown = columns(mine, list(plan.grid.norms))
    header = ["task", "score", *map(str, shown)]
    lines = []
    for point in plan.grid.points():
        for task in plan.tasks:
            here = [r for r in mine if (r.entry.point, r.entry.cell.task) == (point, task)]
            names = dict.fromkeys(name for r in here for name in r.entry.cell.scores)
            label = f"{task}, {point_text(point)}" if point else task
            for name in names:
                texts = [_text(here, column.norm, column.form, name) for column in shown]
                lines.append([label, name, *texts])
    return header, lines


def _text(runs: Sequence[Run], norm: str, form: str, score: str) -> str:
    """``0.4213 ± 0.0120``, of as many seeds as have one; a dash where none has."""
    values = []
    for run in runs:
        if run.entry.cell.norm == norm and run.result is not None and form in run.result.forms:
            streams = run.result.evaluations[-1].forms[form]
            values.append(validation_scores(streams).label_free.get(score))
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    over = summary(known)
    text = f"{over.mean:.4f}" + ("" if over.std is None else f" ± {over.std:.4f}")
    return text if len(known) == len(values) else f"{text} ({len(known)} of {len(values)})"


def sections(plan: Plan, runs: Sequence[Run]) -> list[Section]:
    """A table for each method and row of learning rates; none where all targets have labels."""
    found = []
    for row in plan.grid.rows:
        for method in plan.grid.methods:
            header, lines = score_rows(plan, runs, row, method)
            if lines:
                title = f"{method}, {row} learning rate: targets without labels"
                text = f"{TITLE[0].upper()}{TITLE[1:]}."
                found.append(Section(title, text, header, lines, (0, 1)))
    return found
