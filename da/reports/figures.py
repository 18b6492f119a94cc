"""The pictures of a report: accuracy by task and normaliser, or against what was swept.

A cross at the foot of a panel stands for runs that diverged or are missing.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from da.grids.plan import Plan
from da.ops.files import write_atomically
from da.ops.shown_text import shorten, visible
from da.reports.runs import Column
from da.reports.statistics import Summary
from da.reports.swept_averages import average_over, common_tasks
from da.reports.tables import Line, Table, point_text

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, which colour-blind readers can tell apart."""

MARKERS = {"": "o", "source-stats": "^", "target-stats": "s"}
CROSS = "x"
KINDS = ("png", "svg", "pdf")
METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}
"""What is left out of files, so that the same results give the same bytes."""

NAME = 28
"""Characters of a name in a figure."""

PANELS, PANEL_WIDTH = 4, 3.6
"""Panels below each other, of which more become columns, and the least inches of a column."""


def save(out: Path, plan: Plan, shown: list[Table]) -> None:
    """Writes ``figure.png``, ``.svg`` and ``.pdf`` of the last epoch."""
    headline = [t for t in shown if t.selection == "last" and t.has_labels]
    if not any(table.stream == "target/test" for table in headline):  # no target has labels
        for kind in KINDS:
            (out / f"figure.{kind}").unlink(missing_ok=True)
        return
    figure = _sweep(plan, headline) if _swept(plan) else _tasks(plan, headline)
    if any(line.get_marker() == CROSS for axis in figure.axes for line in axis.get_lines()):
        figure.suptitle("× at the foot: diverged or missing", fontsize="small")
    write(figure, out / "figure", kinds=KINDS)


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


def _swept(plan: Plan) -> str | None:
    """The one swept setting whose values are numbers, if there is one."""
    if len(plan.grid.sweep) != 1:
        return None
    name, values = next(iter(plan.grid.sweep.items()))
    numeric = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    return name if numeric and min(values) > 0 else None


def column_styles(columns: list[Column]) -> dict[Column, dict[str, Any]]:
    """One colour per normaliser, one marker per form; re-estimated forms are drawn open."""
    norms = list(dict.fromkeys(column.norm for column in columns))
    return {
        column: {
            "color": COLOURS[norms.index(column.norm) % len(COLOURS)],
            "marker": MARKERS.get(column.form, "d"),
            "markerfacecolor": "none" if column.form else None,
            "alpha": 0.75 if column.form else 1.0,
        }
        for column in columns
    }


def _tasks(plan: Plan, tables: list[Table]) -> Any:
    """One panel per method (and row of learning rates), tasks along x, and their average last."""
    from matplotlib.figure import Figure

    tables = [table for table in tables if table.stream == "target/test"]
    labelled = [line for line in tables[0].lines if line.has_labels]
    columns = [shorten(_name_of(line, len(plan.tasks)), NAME) for line in labelled]
    labels = {line.label for line in labelled}
    down = min(len(tables), max(PANELS, math.ceil(math.sqrt(len(tables)))))
    across = math.ceil(len(tables) / down)
    width = max(PANEL_WIDTH, 1.2 + 0.95 * len(columns)) if across > 1 else 2.0 + 0.95 * len(columns)
    figure = Figure(figsize=(across * width, 0.8 + 2.9 * down), layout="constrained")
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    axes = panels.T.ravel()  # one column after the other
    for spare in axes[len(tables) :]:
        spare.set_visible(False)
    axes = axes[: len(tables)]
    ticks = range(len(columns))
    for number, axis in enumerate(axes):
        axis.set_xticks(ticks, columns, rotation=25, ha="right", rotation_mode="anchor")
        is_foot = (number + 1) % down == 0 or number + 1 == len(tables)
        axis.tick_params(labelbottom=is_foot)
    for axis, table in zip(axes, tables, strict=True):
        lines = [line for line in table.lines if line.label in labels]
        for index, (column, style) in enumerate(column_styles(table.columns).items()):
            offset = 0.8 * ((index + 0.5) / len(table.columns) - 0.5)
            fields = [line.fields[column] for line in lines]
            xs, means, stds = _series(
                [one.summary for one in fields], [x + offset for x in range(len(fields))]
            )
            axis.errorbar(xs, means, stds, ls="none", capsize=2, ms=5, label=str(column), **style)
            absent = [x + offset for x, one in enumerate(fields) if not one.complete]
            _crosses(axis, absent, style)
        for x, line in enumerate(lines[1:], start=1):
            shade = "0.45" if line.is_average else "0.9"
            axis.axvline(x - 0.5, color=shade, lw=0.8, zorder=0)
        axis.set_title(f"{table.method}\n{table.row} learning rate, last epoch", fontsize="medium")
        axis.grid(axis="y", color="0.9")
    for axis in axes[:down]:
        axis.set_ylabel("target accuracy (%)")
    _limit_to_percents(axes)
    _add_legend(figure, axes[0])
    return figure


def _name_of(line: Line, tasks: int) -> str:
    """A task, or the average and over how many tasks it is where these are not all."""
    if not line.is_average:
        return line.label
    name = "average" if len(line.tasks) == tasks else f"average of {len(line.tasks)}"
    return f"{name}, {point_text(line.point)}" if line.point else name


def _add_legend(figure: Any, axis: Any) -> None:
    """Below the panels, in as many columns as fit the longest name."""
    handles, names = axis.get_legend_handles_labels()
    longest = max(map(len, names), default=1)
    fitting = int(figure.get_size_inches()[0] / (0.55 + 0.085 * longest))
    figure.legend(
        handles, names, loc="outside lower center", ncols=min(4, len(names), max(1, fitting))
    )


def _sweep(plan: Plan, tables: list[Table]) -> Any:
    """Source accuracy on the left, target accuracy on the right, a line of panels per method.

    All points of a panel are averages over the same tasks, those that are complete at each of them.
    """
    from matplotlib.figure import Figure

    name = _swept(plan)
    assert name is not None  # for mypy: the caller asked
    groups = list(dict.fromkeys((table.method, table.row) for table in tables))
    figure = Figure(figsize=(9.5, 0.8 + 3.2 * len(groups)), layout="constrained")
    axes = figure.subplots(len(groups), 2, sharex=True, squeeze=False)
    for table in tables:
        row = groups.index((table.method, table.row))
        axis = axes[row, 0 if table.stream == "source/test" else 1]
        tasks, common = common_tasks(table)
        for number, (column, style) in enumerate(column_styles(table.columns).items()):
            values = [point[name] for point in plan.grid.points()]
            found = [average_over(table, column, point, common) for point in plan.grid.points()]
            xs, means, stds = _series(found, values)
            line_style = ":" if column.form else "-"
            axis.errorbar(
                xs, means, stds, ls=line_style, capsize=2, ms=5, label=str(column), **style
            )
            absent = {
                line.point[name]
                for line in table.lines
                if not line.is_average and not line.fields[column].complete
            }
            _crosses(axis, sorted(absent), style, number)
        axis.set_xscale("log", base=2)
        number_plainly(axis.xaxis)
        places = plan.grid.sweep[name]
        upright = {"rotation": 45, "ha": "right"} if len(places) > 6 else {}
        axis.set_xticks(list(places), [f"{v:g}" for v in places], **upright)
        domain = table.stream.partition("/")[0]
        over = "" if common == tasks else f", {len(common)} of {len(tasks)} tasks"
        axis.set_title(
            f"{table.method}\n{table.row} learning rate, last epoch{over}", fontsize="medium"
        )
        axis.set_ylabel(f"{domain} accuracy (%)")
        axis.set_xlabel(name.removeprefix("model.").replace("_", " "))
        axis.grid(color="0.9")
    _limit_to_percents(axes.ravel())
    _add_legend(figure, axes[0, 0])
    return figure


def _limit_to_percents(axes: Iterable[Any]) -> None:
    """Nothing far below 0 or above 100 %, where deviations reach; all of it in an empty panel."""
    for axis in axes:
        alike = axis.get_shared_y_axes().get_siblings(axis)
        if not any(len(box.lines[0].get_ydata()) for one in alike for box in one.containers):
            axis.set_ylim(0, 100)
        low, high = axis.get_ylim()
        axis.set_ylim(max(low, -2), min(high, 102))


def _crosses(axis: Any, xs: list[float], style: dict[str, Any], level: int = 0) -> None:
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


def _series(
    found: list[Summary | None], xs: list[float]
) -> tuple[list[float], list[float], list[float]]:
    """Position, mean and deviation in percent, where there is a value."""
    points = [(x, s) for x, s in zip(xs, found, strict=True) if s]
    return (
        [x for x, _ in points],
        [100 * s.mean for _, s in points],
        [100 * (s.std or 0.0) for _, s in points],
    )
