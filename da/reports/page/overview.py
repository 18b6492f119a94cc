"""What the page shows first: the averages of all methods side by side, and their differences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from da.reports.model import Report
from da.reports.page.charts import forest
from da.reports.page.comparison import (
    Row,
    Shown,
    accuracy_cells,
    difference_cell,
    interval,
    key_of,
    method_id,
    table_keys,
)
from da.reports.tables import Table, averages
from da.reports.texts import MOST_COLUMNS, average_name, title, transposed


def overviews(report: Report) -> list[Shown]:
    """One for each selection; none where there is one method at one point in one row of rates."""
    if not report.has_overview:
        return []
    of_target = [table for table in (*report.tables, *report.by_other_scores) if table.is_of_target]
    found = [[table for table in of_target if key_of(table) == key] for key in table_keys(report)]
    return [_overview(report, tables) for tables in found if tables]


def heading(report: Report) -> str:
    """Of the part of the page that has them."""
    grid = report.plan.grid
    return "All methods" if len(grid.methods) * len(grid.rows) > 1 else "The whole sweep"


def _overview(report: Report, tables: Sequence[Table]) -> Shown:
    tasks = len(report.plan.tasks)
    what = report.plan.tasks[0] if tasks == 1 else f"average over {tasks} tasks"
    lines = averages(tables[0])
    names = [difference.name for difference in lines[0].differences] if lines else []
    question = "; differences in points on these tasks" if names else ""
    header = ["method", *map(str, tables[0].columns), *names]
    rows = [row for table in tables for row in _rows(report, table)]
    if len(tables[0].columns) > MOST_COLUMNS:
        header, lists = transposed(header, [[row.label, *row.cells] for row in rows])
        rows = [Row(name, cells) for name, *cells in lists]
    return Shown(
        key_of(tables[0]),
        f"Target accuracy in percent, {what}, {title(tables[0])}{question}",
        header,
        rows,
        plots=[
            (f"{name}, on these tasks", plot)
            for number, name in enumerate(names)
            if (plot := _forest(report, tables, number, name))
        ],
    )


def _rows(report: Report, table: Table) -> Iterator[Row]:
    for line in averages(table):
        differences = [difference_cell(difference.these) for difference in line.differences]
        yield Row(
            average_name(report.plan, table, line),
            [*accuracy_cells(table, line), *differences],
            link=method_id(report, table.row, table.method),
        )


def _forest(report: Report, tables: Sequence[Table], number: int, name: str) -> Markup | None:
    """One line for each method; None where nothing is known against that baseline."""
    intervals = [
        interval(average_name(report.plan, table, line), line.differences[number].these, "task")
        for table in tables
        for line in averages(table)
    ]
    return forest(name, intervals) if any(x.middle is not None for x in intervals) else None
