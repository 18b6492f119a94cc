"""What every label-free score of a grid picks, between the last epoch and the oracle's."""

from __future__ import annotations

from collections.abc import Sequence

from da.grids.plan import Plan
from da.reports.model import Section
from da.reports.runs import Column
from da.reports.tables import Line, Table, averages
from da.reports.texts import Strong, average_name, percent

TEXT = (
    "Accuracy on the target's test images in percent, over tasks and seeds, at the last epoch, at "
    "the one that each score picks without labels, and at the oracle's, which nobody has in "
    "practice. The label-free tables and differences are by {score}. The best of the scores is "
    "bold; – where a run is missing, or its score is not a number."
)


def sections(
    plan: Plan, tables: Sequence[Table], by_other_scores: Sequence[Table]
) -> list[Section]:
    """The section of a report; none of a grid with one score, which its tables hold already.

    Args:
        plan: of the grid.
        tables: last, label-free by the grid's score, and oracle.
        by_other_scores: label-free by each of the others.
    """
    known = [t for t in (*tables, *by_other_scores) if t.is_of_target]
    if not any(table in known for table in by_other_scores):
        return []
    scores = list(dict.fromkeys(t.score for t in known if t.selection == "label-free"))
    rows = [
        row
        for last in known
        if last.selection == "last"
        for line in averages(last)
        for row in _rows(plan, last, line, _picks(known, last, scores))
    ]
    header = ["method", "normaliser", "last", *scores, "oracle"]
    text = TEXT.format(score=plan.grid.score)
    return [Section("What each score picks", text, header, rows, left=(0, 1))]


def _picks(known: Sequence[Table], last: Table, scores: Sequence[str]) -> list[Table]:
    """The tables of a row of rates and method: last, by each score, oracle."""
    mine = [table for table in known if (table.row, table.method) == (last.row, last.method)]
    free = {table.score: table for table in mine if table.selection == "label-free"}
    oracle = [table for table in mine if table.selection == "oracle"]
    return [last, *(free[score] for score in scores), *oracle]


def _rows(plan: Plan, last: Table, line: Line, picks: Sequence[Table]) -> list[list[str]]:
    """A row for each normaliser that has something to show."""
    name = average_name(plan, last, line)
    found = []
    for column in last.columns:
        texts = [_text(table, line, column) for table in picks]
        free = [float(text) for text in texts[1:-1] if text != "–"]
        shown = [
            Strong(text) if free and text == f"{max(free):.1f}" else text for text in texts[1:-1]
        ]
        if any(text != "–" for text in texts):
            found.append([name, str(column), texts[0], *shown, texts[-1]])
    return found


def _text(table: Table, like: Line, column: Column) -> str:
    """The accuracy at the same point over the same tasks."""
    for line in averages(table):
        if (line.point, line.task, line.tasks) == (like.point, like.task, like.tasks):
            summary = line.fields[column].summary
            return "–" if summary is None else percent(summary.mean)
    return "–"
