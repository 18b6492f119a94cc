"""What all pictures of trained networks share: colours, panels, and how they are written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from da.ops.csv_text import csv_text
from da.ops.files import write_atomically
from da.reports.figure_style import COLOURS, write
from da.types import Role

DOMAINS: dict[Role, dict[str, Any]] = {
    "source": {"color": COLOURS[0], "marker": "o", "markerfacecolor": "none"},
    "target": {"color": COLOURS[1], "marker": "^"},
}
"""How points of either domain are drawn: the source open and the target filled, also in grey."""

NETWORK_COLOURS = (COLOURS[-1], COLOURS[2], COLOURS[3], COLOURS[4], COLOURS[5])
"""Not those of the domains; the first two differ in grey, too."""

NETWORK_MARKERS = ("o", "s", "D", "^", "v", "P", "X")
NETWORK_LINES = ("-", "--", "-.", ":")

PANEL = 3.6
"""Inches: two panels stand on a page."""

DPI = 200
"""Of PNGs, for print at the size of the page."""


class Picture(NamedTuple):
    """A figure and the numbers that are in it.

    Attributes:
        figure: of matplotlib.
        rows: one mapping per line of the table; all have the same keys.
        headline: the number to remember of each network, and before them what it is; empty where
            there is none.
        header: of the table, where there may be no line.
    """

    figure: Any
    rows: Sequence[Mapping[str, Any]]
    headline: Sequence[str] = ()
    header: Sequence[str] = ()


def network_style(number: int) -> dict[str, Any]:
    """Colour, marker and line of a network by its place, in all pictures."""
    return {
        "color": NETWORK_COLOURS[number % len(NETWORK_COLOURS)],
        "marker": NETWORK_MARKERS[number % len(NETWORK_MARKERS)],
        "linestyle": NETWORK_LINES[number % len(NETWORK_LINES)],
    }


def arrange(count: int) -> tuple[int, int]:
    """Rows and columns of panels for so many networks, at most three side by side.

    >>> arrange(2), arrange(3), arrange(4)
    ((1, 2), (1, 3), (2, 2))
    """
    rows = math.ceil(count / 3)
    return rows, math.ceil(count / rows)


def page(count: int, height: float) -> Any:
    """An empty figure for the panels of so many networks.

    Args:
        count: of the networks.
        height: in inches, of the whole.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(PANEL * arrange(count)[1], height), layout="constrained")


def panels(figure: Any, count: int, shares: Sequence[float] = (1.0,)) -> list[list[Any]]:
    """Axes for each of so many networks, one below another.

    Args:
        figure: or a part of one.
        count: of the networks.
        shares: of the height, for each of a network's axes.
    """
    rows, columns = arrange(count)
    stacked = len(shares)
    grid = figure.subplots(
        rows * stacked,
        columns,
        squeeze=False,
        gridspec_kw={"height_ratios": [*shares] * rows},
    )
    found = [[*block[:, i]] for block in np.split(grid, rows) for i in range(columns)]
    for axis in (axis for own in found[count:] for axis in own):
        axis.set_visible(False)
    return found[:count]


def shorten(name: str, most: int) -> str:
    """A name of at most so many characters.

    >>> shorten("ring_binder", 20), shorten("ring_binder", 6)
    ('ring binder', 'ring …')
    """
    text = name.replace("_", " ")
    return text if len(text) <= most else text[: most - 1] + "…"


def write_picture(picture: Picture, path: Path) -> list[Path]:
    """Writes ``.png``, ``.svg`` and ``.csv``; each is absent, old or whole at any moment.

    Args:
        picture: what is written.
        path: of the files, without their ending.

    Returns:
        The files.
    """
    table = path.with_name(f"{path.name}.csv")
    files = write(picture.figure, path, dpi=DPI)
    rows = [{key: _field(value) for key, value in row.items()} for row in picture.rows]
    write_atomically(table, csv_text(rows, picture.header))
    return [*files, table]


def _field(value: Any) -> Any:
    """Six digits of a number."""
    number = value.item() if hasattr(value, "item") else value
    return f"{number:.6g}" if isinstance(number, float) else number
