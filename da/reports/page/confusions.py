"""What the page shows of confused classes: whole tables of few classes, of many the worst pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from da.reports.class_confusions import ClassConfusions, Confusion
from da.reports.texts import count, percent

MOST_CLASSES = 20
"""Of a whole table; of more classes the most frequent confusions are shown."""

MOST_PAIRS = 15
"""Confusions of each network that are shown where there are more classes."""

MOST_FIELDS = 12_000
"""Of all these tables on the page; what comes after is in confusion.csv alone."""


@dataclass(frozen=True)
class Matrix:
    """What one network takes the classes for: shares in percent of the images of each class.

    Attributes:
        title: the network and over how many seeds.
        rows: by true class a share for each predicted one; None where no image is taken for it.
        pairs: in place of the rows where there are many classes: true, predicted, share, images.
    """

    title: str
    rows: list[tuple[str, list[int | None]]]
    pairs: list[tuple[str, str, str, int]]


@dataclass(frozen=True)
class Confusions:
    """The networks of one method and task beside each other."""

    title: str
    classes: list[str]
    matrices: list[Matrix]


def confusions(found: Sequence[ClassConfusions]) -> Iterator[Confusions]:
    """One for each method and task, as many as fit on the page."""
    left = MOST_FIELDS
    for one in found:
        number = len(one.classes)
        fields = number**2 if number <= MOST_CLASSES else 4 * MOST_PAIRS
        left -= fields * len(one.by_column)
        if left < 0:
            return
        yield Confusions(
            one.title,
            one.classes,
            [_matrix(str(c), one.classes, confusion) for c, confusion in one.by_column.items()],
        )


def _matrix(column: str, classes: Sequence[str], one: Confusion) -> Matrix:
    title = f"{column}, {count(one.runs, 'seed')}"
    if len(classes) > MOST_CLASSES:
        pairs = one.most_frequent()[:MOST_PAIRS]
        return Matrix(
            title, [], [(a, b, percent(one.share(a, b)), one.images[a][b]) for a, b in pairs]
        )
    rows = [
        (true, [round(100 * one.share(true, b)) if one.images[true][b] else None for b in classes])
        for true in classes
        if true in one.images
    ]
    return Matrix(title, rows, [])
