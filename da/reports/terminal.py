"""A report on a terminal: one screen, or all of its tables."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from da.grids.grid import Row
from da.installation import program
from da.ops.shown_text import visible
from da.reports import alarms, stability, unlabelled_scores
from da.reports.model import Report
from da.reports.runs import Column
from da.reports.tables import Line, Table, averages
from da.reports.texts import (
    MOST_COLUMNS,
    average_name,
    data_remarks,
    difference_rows,
    field_text,
    left_out_texts,
    missing,
    notes,
    paired_text,
    partial,
    percent,
    title,
    unlabelled_notes,
)
from da.reports.verdicts import verdict

WIDE = 150
"""Columns where output goes to a file or a pipe, so that no line is folded."""

MOST_AVERAGES, MOST_METHODS = 16, 30
"""Lines of averages on the one screen: of both epochs, and of the last one alone."""

MANY, FEW = 20, 3
"""Runs that failed, and of those still to come, that are named on the one screen."""

ROOMY, TIGHT = 120, 98
"""Seven columns fit from these widths on: ``59.5 ± 7.0``, ``59.5±7.0``, else in two lines."""


def console() -> Console:
    """A console that folds lines only on a real terminal."""
    screen = Console(highlight=False)
    return screen if screen.is_terminal else Console(highlight=False, width=WIDE)


def show(target: Console, report: Report, full: bool = False) -> None:
    """Prints a report: one screen of averages and where to read on, or every table.

    Args:
        target: where it is printed.
        report: what is printed; its files are named as in its folder.
        full: every table of every method, and all that is missing.
    """
    incomplete = partial(report.runs)
    if incomplete:
        target.print(incomplete, style="bold", markup=False)
    if full:
        _show_tables(target, report)
    else:
        _show_averages(target, report)
    went_badly = stability.warnings(stability.stabilities(report.runs))
    for text in went_badly if full else went_badly[:FEW]:
        target.print(visible(f"trainings: {text}"), style="bold", markup=False, soft_wrap=True)
    if not full and len(went_badly) > FEW:
        target.print(f"trainings: and {len(went_badly) - FEW} more like these", style="bold")
    for text in data_remarks(report.runs):
        target.print(visible(f"data: {text}"), markup=False, soft_wrap=True)
    if text := alarms.summary(report.runs):
        target.print(visible(f"alarms: {text}"), style="bold", markup=False, soft_wrap=True)
    if incomplete and full:  # again, below what may have scrolled by
        target.print(incomplete, style="bold", markup=False)
    _show_missing(target, report, full)
    if not full:
        target.print(
            f"all tables: {report.out}/report.html in a browser, or {program()} report "
            f"{shlex.join(map(str, report.folders))} --full",
            markup=False,
            soft_wrap=True,
        )


def _show_tables(target: Console, report: Report) -> None:
    plan = report.plan
    for row in plan.grid.rows:
        for method in plan.grid.methods:
            mine = [t for t in report.tables if t.row == row and t.method == method]
            target.rule(Text(visible(f"{method}, {row} learning rate")), align="left")
            for text in unlabelled_notes(mine):
                target.print(text, markup=False, soft_wrap=True)
            _show_scores_of(target, report, row, method)
            for table in mine:
                if not table.has_labels:
                    continue
                target.print(_accuracies(table, target.width))
                if table.stream == "target/test" and table.lines and table.lines[0].differences:
                    target.print(_differences(table))
                    for text in notes(table):
                        target.print(visible(text), markup=False)
                for text in left_out_texts(table):
                    target.print(visible(text), markup=False)
                target.print()
            for table in mine:
                if table.is_of_target:
                    target.print(visible(verdict(table)), markup=False)
            target.print()


def _show_averages(target: Console, report: Report) -> None:
    """Averages of the last epoch and of the label-free one; of many methods of the last alone."""
    shown = [t for t in report.tables if t.stream == "target/test" and t.selection != "oracle"]
    if not any(table.has_labels for table in shown):
        for text in unlabelled_notes(shown):
            target.print(text, markup=False, soft_wrap=True)
        _show_scores(target, report)
        return
    lines = [(table, line) for table in shown if table.has_labels for line in averages(table)]
    if not lines:
        return
    known = [
        pair for pair in lines if any(f.summary or f.diverged for f in pair[1].fields.values())
    ]
    short = known if len(known) <= MOST_AVERAGES else _headline(known)[:MOST_METHODS]
    if short:
        _print_averages(target, report, short)
    if len(short) < len(_headline(known)):
        target.print(f"and {len(_headline(known)) - len(short)} lines more", markup=False)
    rows = len(_headline(lines))
    if waiting := rows - len(_headline(known)):
        row = "row" if rows == 1 else "rows"
        target.print(f"{waiting} of {rows} {row}: no task is complete yet", markup=False)


def _headline(lines: Sequence[tuple[Table, Line]]) -> list[tuple[Table, Line]]:
    """Those of the last epoch."""
    return [pair for pair in lines if pair[0].selection == "last"]


def _print_averages(target: Console, report: Report, lines: Sequence[tuple[Table, Line]]) -> None:
    """Accuracies and differences: one table where the terminal has the room, or two."""
    tasks = len(report.plan.tasks)
    what = report.plan.tasks[0] if tasks == 1 else f"average over {tasks} tasks"
    if len(report.plan.grid.rows) == 1:
        what += f", {report.plan.grid.rows[0]} learning rate"
    question = "difference in points on these tasks, 95 % intervals; ▲ ▼: it excludes 0"
    names = [visible(average_name(report.plan, table, line)) for table, line in lines]
    paired = [[paired_text(each.these) for each in line.differences] for _, line in lines]
    columns, compared = lines[0][0].columns, lines[0][1].differences
    left = target.width - max(map(len, names)) - 14
    needed = sum(
        max(len(visible(each.name)), *(len(texts[number]) for texts in paired)) + 1
        for number, each in enumerate(compared)
    )
    in_one = bool(compared) and left - needed >= 13 * len(columns)
    room = left / len(columns)
    between = " ± " if in_one or room >= 13 else "±" if room >= 10 else "\n±"
    head = f"target accuracy in %, {what}" + (f"; {question}" if in_one else "")
    differences = _table(question, "method", "epoch", fold=True)
    accuracies = _table(head, "method", "epoch", fold=True)
    turned = not in_one and _is_turned(columns, lines)
    for column in columns:
        accuracies.add_column(_header(column), justify="right", no_wrap=True)
    for each in compared:
        for drawn in [accuracies] if in_one else [differences]:
            drawn.add_column(Text(visible(each.name)), justify="right", no_wrap=True)
    for name, texts, (table, line) in zip(names, paired, lines, strict=True):
        first, shown = [Text(name), Text(table.selection)], _fields(table, line, between)
        if in_one:
            accuracies.add_row(*first, *shown, *map(Text, texts))
            continue
        if table.selection == "last" or "\n" not in between:  # in two lines each it is no screen
            accuracies.add_row(*first, *shown)
        differences.add_row(*first, *map(Text, texts))
    if turned:
        heads = [f"{n}\n{table.selection}" for n, (table, _) in zip(names, lines, strict=True)]
        accuracies = _turned(target.width, head, columns, heads, lines)
    target.print(accuracies)
    if compared and not in_one:
        target.print(differences)


def _is_turned(columns: Sequence[Column], lines: Sequence[Any]) -> bool:
    """Whether normalisers go down: there are many, and fewer of what would go across then."""
    return len(columns) > max(MOST_COLUMNS, len(lines))


def _turned(
    width: int,
    head: str,
    columns: Sequence[Column],
    labels: Sequence[str],
    lines: Sequence[tuple[Table, Line]],
) -> RichTable:
    """Accuracies with normalisers down and lines across."""
    room = (width - max(len(str(column)) for column in columns)) / len(lines)
    between = " ± " if room >= 13 else "±" if room >= 10 else "\n±"
    drawn = _table(head, "normaliser", fold=True)
    for label in labels:
        drawn.add_column(Text(visible(label, keep="\n")), justify="right", overflow="fold")
    fields = [_fields(table, line, between) for table, line in lines]
    for column, texts in zip(columns, zip(*fields, strict=True), strict=True):
        drawn.add_row(Text(visible(str(column))), *texts)
    return drawn


def _show_scores(target: Console, report: Report) -> None:
    for row in report.plan.grid.rows:
        for method in report.plan.grid.methods:
            _show_scores_of(target, report, row, method)


def _show_scores_of(target: Console, report: Report, row: Row, method: str) -> None:
    """Label-free scores of targets without labels, if there are any."""
    header, lines = unlabelled_scores.score_rows(report.plan, report.runs, row, method)
    if lines:
        target.print(visible(f"{method}, {row} learning rate:"), markup=False)
        show_rows(target, unlabelled_scores.TITLE, header, lines)


def _show_missing(target: Console, report: Report, full: bool) -> None:
    """What failed, with its log, and some of what is still to come."""
    for text in report.plan.refused:
        target.print(visible(f"refused: {text}"), markup=False, soft_wrap=True)
    absent = missing((run for run in report.runs if run.reason), f"{report.out}/")
    waiting = missing(run for run in report.runs if run.state == "pending")
    number = len(absent) + len(waiting)
    if number:
        target.print(f"missing: {number} of {len(report.runs)} runs", style="bold")
    shown = [*absent, *waiting[:MANY]] if full else [*absent[:MANY], *waiting[:FEW]]
    for text in shown:
        target.print(f"  {visible(text)}", markup=False, soft_wrap=True)
    if number > len(shown):
        target.print(f"  and {number - len(shown)} more, see report.md")


def show_rows(target: Console, title: str, header: list[str], rows: list[list[str]]) -> None:
    """Prints a plain table; its columns are folded where the terminal is narrow."""
    drawn = _table(title, header[0])
    for name in header[1:]:
        drawn.add_column(name, overflow="fold")
    for row in rows:
        drawn.add_row(*map(Text, row))
    target.print(drawn)


def _accuracies(table: Table, width: int) -> RichTable:
    between = _between(width)
    head = f"accuracy in %, {title(table)}"
    if _is_turned(table.columns, table.lines):
        labels = [_folded(line.label) for line in table.lines]
        return _turned(width, head, table.columns, labels, [(table, x) for x in table.lines])
    drawn = _table(head)
    for column in table.columns:
        drawn.add_column(_header(column), justify="right", overflow="fold")
    drawn.add_column("sampling\nerror", justify="right", overflow="fold")
    for line in table.lines:
        if line.is_average:
            drawn.add_section()
        error = "" if line.sampling_error is None else percent(line.sampling_error)
        label = _folded(line.label) if line.is_average else line.label
        drawn.add_row(
            Text(visible(label, keep="\n")),
            *_fields(table, line, between),
            error,
            end_section=line.is_average,
        )
    return drawn


def _between(width: int) -> str:
    """What stands between mean and deviation, so that seven columns fit."""
    return " ± " if width >= ROOMY else "±" if width >= TIGHT else "\n±"


def _fields(table: Table, line: Line, between: str) -> list[Text]:
    """The accuracies of a line, the best of them bold."""
    texts = []
    for column in table.columns:
        text = field_text(line.fields[column], line.is_average).replace(" (", "\n(")
        style = "bold" if column in line.best else ""
        texts.append(Text(text.replace(" ± ", between), style))
    return texts


def _differences(table: Table) -> RichTable:
    lines = "the line" if table.comparisons == 1 else f"{table.comparisons} lines together"
    drawn = _table(
        f"difference in points on these tasks (seeds vary, tasks and images are fixed), 95 % "
        f"intervals of {lines}, of the average alone"
    )
    for difference in table.lines[0].differences:
        drawn.add_column(Text(visible(difference.name)), justify="right")
    for label, texts, is_average in difference_rows(table):
        if is_average:
            drawn.add_section()
            label = _folded(label)
        drawn.add_row(Text(visible(label, keep="\n")), *map(Text, texts))
    return drawn


def _folded(label: str) -> str:
    """The label of an average in short lines."""
    return label.replace(" (", "\n(").replace(", on", ",\non")


def _table(title: str, *first: str, fold: bool = False) -> RichTable:
    """A table without vertical lines, which cost a tenth of a terminal."""
    drawn = RichTable(
        title=Text(visible(title)),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for name in first or ("task",):
        drawn.add_column(name, no_wrap=not fold, overflow="fold")
    return drawn


def _header(column: Column) -> Text:
    """A column's name in up to three short lines.

    >>> _header(Column("wa+bn", "target-stats")).plain.split()
    ['wa+bn', '@target', '-stats']
    """
    name, at, form = str(column).partition("@")
    return Text(visible(name) + (at and f"\n@{form.replace('-', chr(10) + '-')}"))
