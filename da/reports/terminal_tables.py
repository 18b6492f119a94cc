"""Tables of a report on a terminal: what fits, how numbers are set, and which way they go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from da.ops.shown_text import visible
from da.reports.runs import Column
from da.reports.tables import Line, Table
from da.reports.texts import MOST_COLUMNS, field_text

ROOMY, TIGHT = 120, 98
"""Seven columns fit from these widths on: ``59.5 ± 7.0``, ``59.5±7.0``, else in two lines."""


def plain_table(title: str, *first: str, fold: bool = False) -> RichTable:
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


def header_of(column: Column) -> Text:
    """A column's name in up to three short lines.

    >>> header_of(Column("wa+bn", "target-stats")).plain.split()
    ['wa+bn', '@target', '-stats']
    """
    name, at, form = str(column).partition("@")
    return Text(visible(name) + (at and f"\n@{form.replace('-', chr(10) + '-')}"))


def folded(label: str) -> str:
    """The label of an average in short lines."""
    return label.replace(" (", "\n(").replace(", on", ",\non")


def between_for(width: int) -> str:
    """What stands between mean and deviation, so that seven columns fit."""
    return " ± " if width >= ROOMY else "±" if width >= TIGHT else "\n±"


def accuracy_fields(table: Table, line: Line, between: str) -> list[Text]:
    """The accuracies of a line, the best of them bold."""
    texts = []
    for column in table.columns:
        text = field_text(line.fields[column], line.is_average).replace(" (", "\n(")
        style = "bold" if column in line.best else ""
        texts.append(Text(text.replace(" ± ", between), style))
    return texts


def is_transposed(columns: Sequence[Column], lines: Sequence[Any]) -> bool:
    """Whether normalisers go down: there are many, and fewer of what would go across then."""
    return len(columns) > max(MOST_COLUMNS, len(lines))


def transposed_table(
    width: int,
    head: str,
    columns: Sequence[Column],
    labels: Sequence[str],
    lines: Sequence[tuple[Table, Line]],
) -> RichTable:
    """Accuracies with normalisers down and lines across."""
    room = (width - max(len(str(column)) for column in columns)) / len(lines)
    between = " ± " if room >= 13 else "±" if room >= 10 else "\n±"
    drawn = plain_table(head, "normaliser", fold=True)
    for label in labels:
        drawn.add_column(Text(visible(label, keep="\n")), justify="right", overflow="fold")
    fields = [accuracy_fields(table, line, between) for table, line in lines]
    for column, texts in zip(columns, zip(*fields, strict=True), strict=True):
        drawn.add_row(Text(visible(str(column))), *texts)
    return drawn
