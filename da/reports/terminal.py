"""The tables of a report on a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from da.grids.plan import Plan
from da.reports import alarms, stability, unlabelled_scores
from da.reports.runs import Column, Run
from da.reports.tables import Table
from da.reports.texts import (
    data_remarks,
    difference_rows,
    field_text,
    left_out_texts,
    missing,
    notes,
    partial,
    percent,
    title,
    unlabelled_notes,
)
from da.reports.verdicts import verdict

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

WIDE = 150
"""Columns where output goes to a file or a pipe, so that no line is folded."""

ROOMY, TIGHT = 120, 98
"""Seven columns fit from these widths on: ``59.5 ± 7.0``, ``59.5±7.0``, else in two lines."""


def console() -> Console:
    """A console that folds lines only on a real terminal."""
    from rich.console import Console

    screen = Console(highlight=False)
    return screen if screen.is_terminal else Console(highlight=False, width=WIDE)


def show(target: Console, out: Path, plan: Plan, runs: list[Run], shown: list[Table]) -> None:
    """Prints every table, the verdicts and what is missing, with its logs in ``out``."""
    incomplete = partial(runs)
    if incomplete:
        target.print(incomplete, style="bold", markup=False)
    for row in plan.grid.rows:
        for method in plan.grid.methods:
            mine = [t for t in shown if t.row == row and t.method == method]
            target.rule(f"{method}, {row} learning rate", align="left")
            for text in unlabelled_notes(mine):
                target.print(text, markup=False, soft_wrap=True)
            header, lines = unlabelled_scores.score_rows(plan, runs, row, method)
            if lines:
                show_rows(target, unlabelled_scores.TITLE, header, lines)
            for table in mine:
                if not table.has_labels:
                    continue
                target.print(_accuracies(table, target.width))
                if table.stream == "target/test" and table.lines and table.lines[0].differences:
                    target.print(_differences(table))
                    for text in notes(table):
                        target.print(text, markup=False)
                for text in left_out_texts(table):
                    target.print(text, markup=False)
                target.print()
            for table in mine:
                if table.stream == "target/test" and table.has_labels:
                    target.print(verdict(table), markup=False)
            target.print()
    for text in stability.warnings(stability.stabilities(runs)):
        target.print(f"trainings: {text}", style="bold", markup=False, soft_wrap=True)
    for text in data_remarks(runs):
        target.print(f"data: {text}", markup=False, soft_wrap=True)
    if text := alarms.summary(runs):
        target.print(f"alarms: {text}", style="bold", markup=False, soft_wrap=True)
    if incomplete:  # again, below what may have scrolled by
        target.print(incomplete, style="bold", markup=False)
    for text in plan.refused:
        target.print(f"refused: {text}", markup=False, soft_wrap=True)
    absent = missing((run for run in runs if run.reason), f"{out}/")
    waiting = missing(run for run in runs if run.state == "pending")
    if absent or waiting:
        target.print(f"missing: {len(absent) + len(waiting)} of {len(runs)} runs", style="bold")
    for text in [*absent, *waiting[:20]]:
        target.print(f"  {text}", markup=False, soft_wrap=True)
    if len(waiting) > 20:
        target.print(f"  and {len(waiting) - 20} more that were not run, see report.md")


def show_rows(target: Console, title: str, header: list[str], rows: list[list[str]]) -> None:
    """Prints a plain table; its columns are folded where the terminal is narrow."""
    from rich.text import Text

    drawn = _table(title, header[0])
    for name in header[1:]:
        drawn.add_column(name, overflow="fold")
    for row in rows:
        drawn.add_row(*map(Text, row))
    target.print(drawn)


def _accuracies(table: Table, width: int) -> RichTable:
    between = " ± " if width >= ROOMY else "±" if width >= TIGHT else "\n±"
    drawn = _table(f"accuracy in %, {title(table)}")
    for column in table.columns:
        drawn.add_column(_header(column), justify="right", overflow="fold")
    drawn.add_column("sampling\nerror", justify="right", overflow="fold")
    for line in table.lines:
        if line.is_average:
            drawn.add_section()
        texts = []
        for column in table.columns:
            text = field_text(line.fields[column], line.is_average).replace(" (", "\n(")
            text = text.replace(" ± ", between)
            texts.append(f"[bold]{text}[/bold]" if column in line.best else text)
        error = "" if line.sampling_error is None else percent(line.sampling_error)
        label = _folded(line.label) if line.is_average else line.label
        drawn.add_row(label, *texts, error, end_section=line.is_average)
    return drawn


def _differences(table: Table) -> RichTable:
    lines = "the line" if table.comparisons == 1 else f"{table.comparisons} lines together"
    drawn = _table(
        f"difference in points on these tasks (seeds vary, tasks and images are fixed), 95 % "
        f"intervals of {lines}, of the average alone"
    )
    for difference in table.lines[0].differences:
        drawn.add_column(difference.name, justify="right")
    for label, texts, is_average in difference_rows(table):
        if is_average:
            drawn.add_section()
            label = _folded(label)
        drawn.add_row(label, *(text.replace("[", r"\[") for text in texts))
    return drawn


def _folded(label: str) -> str:
    """The label of an average in short lines."""
    return label.replace(" (", "\n(").replace(", on", ",\non")


def _table(title: str, first: str = "task") -> RichTable:
    """A table without vertical lines, which cost a tenth of a terminal."""
    from rich import box
    from rich.table import Table as RichTable

    drawn = RichTable(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    drawn.add_column(first, no_wrap=True)
    return drawn


def _header(column: Column) -> str:
    """A column's name in up to three short lines.

    >>> _header(Column("wa+bn", "target-stats")).split()
    ['wa+bn', '@target', '-stats']
    """
    name, at, form = str(column).partition("@")
    return name + (at and f"\n@{form.replace('-', chr(10) + '-')}")
