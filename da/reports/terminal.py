"""A report on a terminal: one screen, or all of its tables."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from da.grids.grid import Row
from da.installation import program
from da.ops.shown_text import visible
from da.reports import alarms, stability, unlabelled_scores
from da.reports.model import Report
from da.reports.tables import Line, Table, averages
from da.reports.terminal_tables import (
    accuracy_fields,
    between_for,
    fitting,
    folded,
    folded_head,
    header_of,
    is_transposed,
    parts_of,
    plain_table,
    transposed_table,
)
from da.reports.texts import (
    average_name,
    data_remarks,
    difference_rows,
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
                for drawn in _accuracies(table, target.width):
                    target.print(drawn)
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
    labels = [(n, table.selection) for n, (table, _) in zip(names, lines, strict=True)]
    if not in_one and is_transposed(columns, lines, target.width):
        across = [(*pair, "\n".join(label)) for pair, label in zip(lines, labels, strict=True)]
        most = fitting(target.width, columns, [text for *_, text in across])
        if len(across) > most:
            across = [one for one in across if one[0].selection == "last"]
        for part in parts_of(across, most, lambda one: one[0].method):
            heads = [folded_head(text) for *_, text in part]
            pairs = [(table, line) for table, line, _ in part]
            target.print(transposed_table(target.width, head, columns, heads, pairs))
    else:
        accuracies = plain_table(head, "method", "epoch", fold=True)
        for column in columns:
            accuracies.add_column(header_of(column), justify="right", no_wrap=True)
        for each in compared if in_one else ():
            accuracies.add_column(Text(visible(each.name)), justify="right", no_wrap=True)
        for label, texts, (table, line) in zip(labels, paired, lines, strict=True):
            fields = [*map(Text, label), *accuracy_fields(table, line, between)]
            if in_one:
                accuracies.add_row(*fields, *map(Text, texts))
            # In two lines each it is no screen.
            elif table.selection == "last" or "\n" not in between:
                accuracies.add_row(*fields)
        target.print(accuracies)
    if compared and not in_one:
        heads = [visible(each.name) for each in compared]
        target.print(_average_differences(question, labels, heads, paired, wide=needed <= left))


def _average_differences(
    question: str,
    labels: Sequence[tuple[str, str]],
    names: Sequence[str],
    paired: Sequence[Sequence[str]],
    wide: bool,
) -> RichTable:
    """Differences of averages: a column for each pair, or where there is no room a row."""
    if not wide:
        drawn = plain_table(question, "method", "epoch", "difference", "points", fold=True)
        for label, texts in zip(labels, paired, strict=True):
            for number, (name, text) in enumerate(zip(names, texts, strict=True)):
                last = number + 1 == len(names)
                shown = label if number == 0 else ("", "")
                drawn.add_row(*map(Text, (*shown, name, text)), end_section=last)
        return drawn
    drawn = plain_table(question, "method", "epoch", fold=True)
    for name in names:
        drawn.add_column(Text(name), justify="right", no_wrap=True)
    for label, texts in zip(labels, paired, strict=True):
        drawn.add_row(*map(Text, (*label, *texts)))
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
    drawn = plain_table(title, header[0])
    for name in header[1:]:
        drawn.add_column(name, overflow="fold")
    for row in rows:
        drawn.add_row(*map(Text, row))
    target.print(drawn)


def _accuracies(table: Table, width: int) -> Iterator[RichTable]:
    """One table; several where normalisers go down and not all lines fit across."""
    between = between_for(width)
    head = f"accuracy in %, {title(table)}"
    if is_transposed(table.columns, table.lines, width):
        most = fitting(width, table.columns, [line.label for line in table.lines])
        for lines in parts_of(table.lines, most, lambda line: line.point):
            labels = [folded_head(line.label) for line in lines]
            pairs = [(table, line) for line in lines]
            yield transposed_table(width, head, table.columns, labels, pairs)
        return
    drawn = plain_table(head)
    for column in table.columns:
        drawn.add_column(header_of(column), justify="right", overflow="fold")
    drawn.add_column("sampling\nerror", justify="right", overflow="fold")
    for line in table.lines:
        if line.is_average:
            drawn.add_section()
        error = "" if line.sampling_error is None else percent(line.sampling_error)
        label = folded(line.label) if line.is_average else line.label
        drawn.add_row(
            Text(visible(label, keep="\n")),
            *accuracy_fields(table, line, between),
            error,
            end_section=line.is_average,
        )
    yield drawn


def _differences(table: Table) -> RichTable:
    lines = "the line" if table.comparisons == 1 else f"{table.comparisons} lines together"
    drawn = plain_table(
        f"difference in points on these tasks (seeds vary, tasks and images are fixed), 95 % "
        f"intervals of {lines}, of the average alone"
    )
    for difference in table.lines[0].differences:
        drawn.add_column(Text(visible(difference.name)), justify="right")
    for label, texts, is_average in difference_rows(table):
        if is_average:
            drawn.add_section()
            label = folded(label)
        drawn.add_row(Text(visible(label, keep="\n")), *map(Text, texts))
    return drawn
