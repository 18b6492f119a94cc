"""What the figures of reports share: colours, markers, axes in percent, and whole files."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from da.ops.files import write_atomically
from da.ops.shown_text import visible
from da.reports.statistics import Summary
from da.reports.tables import Line, point_text

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, which colour-blind readers can tell apart."""

MARKERS = {"": "o", "source-stats": "^", "target-stats": "s"}
CROSS = "x"
"""At the foot of a panel: runs that diverged or are missing."""

KINDS = ("png", "svg", "pdf")
METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}
"""What is left out of files, so that the same results give the same bytes."""

NAME = 28
"""Characters of a name in a figure."""


def write(
    figure: Any, path: Path, dpi: int = 150, kinds: Sequence[str] = ("png", "svg")
) -> list[Path]:
    """Writes a figure in several formats, each absent, old or whole at any moment.

    Args:
        figure: of matplotlib.
        path: of the files, without their ending.
        dpi: pixels of the PNG per inch.
        kinds: endings of the files: ``png``, ``svg``, ``pdf``.
    """
    import matplotlib

    files = [path.with_name(f"{path.name}.{kind}") for kind in kinds]
    for file in files:
        kind = file.suffix[1:]
        buffer = io.BytesIO()
        # Fixed identifiers and no date: the same results give the same files.
        with (
            texts_as_written(figure),
            matplotlib.rc_context(
                {"svg.hashsalt": "da", "svg.fonttype": "none", "pdf.fonttype": 42}
            ),
        ):
            figure.savefig(
                buffer, format=kind, dpi=dpi, metadata=METADATA[kind], bbox_inches="tight"
            )
        write_atomically(file, buffer.getvalue())
    return files


@contextmanager
def texts_as_written(figure: Any) -> Iterator[None]:
    """Within this block names with two ``$``, of classes or files, are drawn as they are.

    Matplotlib would take what is between them for mathematics, and fails where it is none.
    """
    import matplotlib
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
        text.set_text(visible(text.get_text(), keep="\n"))
    with matplotlib.rc_context({"text.parse_math": False}):  # of labels that drawing makes
        yield


def number_plainly(axis: Any) -> None:
    """Writes the numbers of a logarithmic axis without mathematics, which :func:`write` leaves out.

    Args:
        axis: of matplotlib, such as ``axes.yaxis``.
    """
    from matplotlib.ticker import LogFormatter

    axis.set_major_formatter(LogFormatter())
    axis.set_minor_formatter(LogFormatter())


def limit_to_percents(axes: Iterable[Any], along: Literal["x", "y"] = "y") -> None:
    """Nothing far below 0 or above 100 %, where deviations reach; all of it in an empty panel.

    Args:
        axes: panels.
        along: which way accuracies are drawn.
    """
    for axis in axes:
        shared = axis.get_shared_x_axes() if along == "x" else axis.get_shared_y_axes()
        boxes = [box for one in shared.get_siblings(axis) for box in one.containers]
        limits, limit = getattr(axis, f"get_{along}lim"), getattr(axis, f"set_{along}lim")
        if not any(len(box.lines[0].get_xdata()) for box in boxes):
            limit(0, 100)
        low, high = limits()
        limit(max(low, -2), min(high, 102))


def name_of(line: Line, tasks: int) -> str:
    """A task, or the average and over how many tasks it is where these are not all."""
    if not line.is_average:
        return line.label
    name = "average" if len(line.tasks) == tasks else f"average of {len(line.tasks)}"
    return f"{name}, {point_text(line.point)}" if line.point else name


def add_legend(figure: Any, *panels: Any) -> None:
    """Below the panels, in as many columns as fit the longest name.

    Args:
        figure: of matplotlib.
        panels: whose lines it names, each name once.
    """
    handles = named_lines(panels)
    longest = max(map(len, handles), default=1)
    fitting = int(figure.get_size_inches()[0] / (0.55 + 0.085 * longest))
    columns = min(4, len(handles), max(1, fitting))
    figure.legend(handles.values(), [*handles], loc="outside lower center", ncols=columns)


def named_lines(panels: Iterable[Any]) -> dict[str, Any]:
    """What a legend of several panels shows: each name once, with its line."""
    drawn = [panel.get_legend_handles_labels() for panel in panels]
    return {name: handle for some in drawn for handle, name in zip(*some, strict=True)}


def form_style(form: str) -> dict[str, Any]:
    """Colour and marker of a form where colours don't tell normalisers apart; of a re-estimated
    one the marker is open.
    """
    return {
        "color": COLOURS[list(MARKERS).index(form)] if form in MARKERS else "black",
        "marker": MARKERS.get(form, "d"),
        "markerfacecolor": "none" if form else None,
    }


def series(
    found: Sequence[Summary | None], xs: Sequence[float]
) -> tuple[list[float], list[float], list[float]]:
    """Position, mean and deviation in percent, where there is a value."""
    points = [(x, s) for x, s in zip(xs, found, strict=True) if s]
    return (
        [x for x, _ in points],
        [100 * s.mean for _, s in points],
        [100 * (s.std or 0.0) for _, s in points],
    )


def crosses(axis: Any, xs: Sequence[float], style: dict[str, Any], level: int = 0) -> None:
    """Crosses at the foot of the panel where runs diverged or are missing, each level higher."""
    if xs:
        axis.plot(
            xs,
            [0.03 + 0.035 * level] * len(xs),
            transform=axis.get_xaxis_transform(),
            ls="none",
            marker=CROSS,
            ms=5,
            color=style["color"],
            alpha=style["alpha"],
        )


def scale_to(axis: Any, values: Sequence[float]) -> None:
    """A logarithmic x axis that names the values of a sweep."""
    axis.set_xscale("log", base=2)
    number_plainly(axis.xaxis)
    upright = {"rotation": 45, "ha": "right"} if len(values) > 6 else {}
    axis.set_xticks(list(values), [f"{value:g}" for value in values], **upright)
