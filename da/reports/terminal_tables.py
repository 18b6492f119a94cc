"""Tables of a report on a terminal: what fits, how numbers are set, and which way they go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, TypeVar

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from da.ops.shown_text import visible
from da.reports.runs import Column
from da.reports.tables import Line, Table
from da.reports.texts import MOST_COLUMNS, field_text, normalisers_go_down

T = TypeVar("T")

ROOMY, TIGHT = 120, 98
"""Seven columns fit from these widths on: ``59.5 ± 7.0``, ``59.5±7.0``, else in two lines."""

NARROWEST, TIGHTEST, MOST = 7, 10, 15
"""Characters of a column in which ``±12.3`` is one line, ``59.5±7.0`` is, and of one with room."""


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


def folded_head(label: str) -> str:
    """A label above a column: a line for each part of it.

    >>> folded_head("DANN, batch_size 8 (1 of 2)").splitlines()
    ['DANN', 'batch_size 8', '(1 of 2)']
    """
    return label.replace(", ", "\n").replace(" (", "\n(")


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


def is_transposed(columns: Sequence[Column], lines: Sequence[Any], width: int) -> bool:
    """Whether normalisers go down: also where there are many, and they have no room across even
    with mean and deviation below each other.
    """
    crowded = width < NARROWEST * (len(columns) + 3)  # with a label as long as three of them
    many = len(columns) > MOST_COLUMNS
    return normalisers_go_down(columns, lines) or (many and crowded)


def room_beside(width: int, columns: Sequence[Column]) -> int:
    """Characters that are left beside the names where normalisers go down."""
    return width - 1 - max(len("normaliser"), *(len(str(column)) for column in columns))


def fitting(width: int, columns: Sequence[Column], labels: Sequence[str]) -> int:
    """How many lines with such labels fit across, of which no word is broken; 1 or more."""
    widest = max(TIGHTEST, *map(_longest_word, labels))
    return max(1, room_beside(width, columns) // (widest + 1))


def _longest_word(label: str) -> int:
    return max(map(len, visible(label, keep="\n").split()), default=0)


def parts_of(lines: Sequence[T], most: int, key: Callable[[T], Any]) -> list[Sequence[T]]:
    """Lines in parts that fit across: all in one, or none with lines of two keys.

    Args:
        lines: in which those of a key stand together.
        most: of them in a part.
        key: of a line, what is to be told apart.

    >>> parts_of("aab", 3, str), parts_of("aaab", 2, str)
    (['aab'], [['a', 'a'], ['a'], ['b']])
    """
    if len(lines) <= most:
        return [lines]
    groups = [list(group) for _, group in groupby(lines, key=key)]
    return [group[i : i + most] for group in groups for i in range(0, len(group), most)]


def transposed_table(
    width: int,
    head: str,
    columns: Sequence[Column],
    labels: Sequence[str],
    lines: Sequence[tuple[Table, Line]],
) -> RichTable:
    """Accuracies with normalisers down and lines across."""
    room = room_beside(width, columns) / len(lines)
    between = " ± " if room >= 13 else "±" if room >= TIGHTEST else "\n±"
    drawn = plain_table(head, "normaliser", fold=True)
    share = None
    if len(lines) <= fitting(width, columns, labels):  # else a table shrinks as it can
        drawn.columns[0].width = width - room_beside(width, columns)
        share = min(int(room) - 1, max(MOST, *map(_longest_word, labels)))
    for label in labels:
        shown = Text(visible(label, keep="\n"))
        drawn.add_column(shown, justify="right", overflow="fold", width=share)
    fields = [accuracy_fields(table, line, between) for table, line in lines]
    for column, texts in zip(columns, zip(*fields, strict=True), strict=True):
        drawn.add_row(Text(visible(str(column))), *texts)
    return drawn
