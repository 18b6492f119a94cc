"""Charts of the page as inline SVG; their colours are those of the page, in the light and the dark.

Every chart says in words what it shows, and its points say their numbers where one rests on them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from da.ops.shown_text import shorten, visible

COLOURS = 7
"""Colours of the style sheet, ``c0`` to ``c6``."""

ROW = 24
LABEL = 32
"""Characters of a label beside a forest plot, at most."""


def element(name: str, attributes: Mapping[str, Any], *children: Any) -> Markup:
    """An element of SVG, with its texts escaped.

    >>> str(element("text", {"x": 1.25, "text-anchor": "end"}, "a<b"))
    '<text x="1.2" text-anchor="end">a&lt;b</text>'
    """
    given = "".join(f' {key}="{_attribute(value)}"' for key, value in attributes.items())
    inside = "".join(
        child if isinstance(child, Markup) else escape(visible(str(child))) for child in children
    )
    return Markup(f"<{name}{given}>{inside}</{name}>")


def _attribute(value: Any) -> str:
    """Numbers to a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else escape(value)


def drawing(width: float, height: float, words: str, *children: Markup) -> Markup:
    """A whole picture, with what it shows in words."""
    box = f"0 0 {width:g} {height:g}"
    attributes = {"viewBox": box, "role": "img", "aria-label": visible(words), "width": width}
    return element("svg", attributes, *children)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between two, about so many.

    >>> ticks(-3, 12), ticks(0.2, 0.9)
    ([0.0, 5.0, 10.0], [0.2, 0.4, 0.6, 0.8])
    """
    span = (high - low) or 1.0
    power = 10.0 ** math.floor(math.log10(span / about))
    step = next(s * power for s in (1, 2, 5, 10) if s * power * about >= span * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


@dataclass(frozen=True)
class Interval:
    """One line of a forest plot, in points.

    Attributes:
        label: in front of it.
        middle: the difference; None where there is none.
        low, high: the interval; None where it is not testable.
        kind: ``task``, or ``these`` or ``like`` of an average.
        words: the numbers as a text.
    """

    label: str
    middle: float | None
    low: float | None
    high: float | None
    kind: str
    words: str


def forest(title: str, intervals: Sequence[Interval]) -> Markup:
    """Differences with their intervals around 0, averages as diamonds."""
    ends = [v for one in intervals for v in (one.low, one.high, one.middle) if v is not None]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    margin = 0.06 * ((high - low) or 1.0)
    low, high = low - margin, high + margin
    left = 24 + 7.0 * min(LABEL, max((len(one.label) for one in intervals), default=0))
    width = left + 312
    bottom = ROW * len(intervals) + 8.0

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (width - left - 8)

    parts = [
        element("line", {"class": "grid", "x1": x(t), "x2": x(t), "y1": 2, "y2": bottom})
        for t in ticks(low, high)
    ]
    parts += [
        element(
            "text",
            {"class": "tick", "x": x(t), "y": bottom + 15, "text-anchor": "middle"},
            f"{t:+g}" if t else "0",
        )
        for t in ticks(low, high)
    ]
    parts.append(element("line", {"class": "zero", "x1": x(0), "x2": x(0), "y1": 2, "y2": bottom}))
    parts += [_interval(one, ROW * (i + 0.5) + 4, x, left) for i, one in enumerate(intervals)]
    words = f"{title}: " + "; ".join(f"{one.label} {one.words}" for one in intervals)
    return drawing(width, bottom + 22, words, *parts)


def _interval(one: Interval, y: float, x: Any, left: float) -> Markup:
    label = element(
        "text", {"x": left - 10, "y": y + 4, "text-anchor": "end"}, shorten(one.label, LABEL)
    )
    parts = [element("title", {}, f"{one.label}: {one.words}"), label]
    sign = "even"
    if one.low is not None and one.high is not None:
        sign = "up" if one.low > 0 else "down" if one.high < 0 else "even"
        parts.append(
            element(
                "line", {"class": "whisker", "x1": x(one.low), "x2": x(one.high), "y1": y, "y2": y}
            )
        )
    if one.middle is None:
        parts.append(element("text", {"class": "tick", "x": left + 4, "y": y + 4}, one.words))
    elif one.kind == "task":
        parts.append(element("circle", {"cx": x(one.middle), "cy": y, "r": 4.5}))
    else:
        parts.append(mark("diamond", x(one.middle), y, 7))
    return element("g", {"class": sign, "data-kind": one.kind}, *parts)


def mark(shape: str, x: float, y: float, size: float = 4.5, **attributes: Any) -> Markup:
    """A marker: ``circle``, ``triangle``, ``square``, ``diamond`` or ``cross``."""
    if shape == "circle":
        return element("circle", {"cx": x, "cy": y, "r": size * 0.85, **attributes})
    around: dict[str, list[tuple[float, float]]] = {
        "triangle": [(0, -1.1), (1, 0.8), (-1, 0.8)],
        "square": [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
        "diamond": [(0, -1.15), (1, 0), (0, 1.15), (-1, 0)],
    }
    if shape == "cross":
        strokes = [(-0.8, -0.8), (0.8, 0.8), (-0.8, 0.8), (0.8, -0.8)]
        a, b, c, d = (f"{x + size * right:.1f},{y + size * down:.1f}" for right, down in strokes)
        return element("path", {"class": "whisker", "d": f"M{a}L{b}M{c}L{d}", **attributes})
    points = " ".join(f"{x + size * a:.1f},{y + size * b:.1f}" for a, b in around[shape])
    return element("polygon", {"points": points, **attributes})


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        name: of what it shows.
        style: classes of the style sheet, ``c0``.
        points: places and values, the values in percent.
        shape: of its markers; empty for none.
        marks: single points that are marked: shape, place, value, what it is in words.
        deviations: of the points, in percent; empty where none are shown.
        absent: places with a cross at the foot: runs there diverged or are missing.
    """

    name: str
    style: str
    points: Sequence[tuple[float, float]]
    shape: str = ""
    marks: Sequence[tuple[str, float, float, str]] = ()
    deviations: Sequence[float] = ()
    absent: Sequence[float] = ()


@dataclass(frozen=True)
class Axis:
    """The horizontal axis: its name, places with their labels, and its ends."""

    name: str
    labels: Sequence[tuple[float, str]]
    ends: tuple[float, float]


def chart(
    title: str, lines: Sequence[Line], axis: Axis, size: tuple[int, int] = (400, 250)
) -> Markup:
    """Lines over an axis, values in percent."""
    values = [
        value + sign * spread
        for line in lines
        for (_, value), spread in zip(
            line.points, line.deviations or [0.0] * len(line.points), strict=True
        )
        for sign in (-1, 1)
    ]
    low, high = max(0.0, min(values, default=0.0) - 2), min(100.0, max(values, default=100.0) + 2)
    first, last = axis.ends
    width, height = size
    left, right, top, bottom = 40.0, width - 14.0, 10.0, height - 40.0

    def x(place: float) -> float:
        inset = 10.0
        return left + inset + (place - first) / ((last - first) or 1.0) * (right - left - 2 * inset)

    def y(value: float) -> float:
        return bottom - (value - low) / ((high - low) or 1.0) * (bottom - top)

    parts: list[Markup] = []
    for tick in ticks(low, high):
        parts.append(
            element(
                "line", {"class": "grid", "x1": left, "x2": right, "y1": y(tick), "y2": y(tick)}
            )
        )
        parts.append(
            element(
                "text",
                {"class": "tick", "x": left - 6, "y": y(tick) + 4, "text-anchor": "end"},
                f"{tick:g}",
            )
        )
    every = max(1, math.ceil(sum(len(text) + 1 for _, text in axis.labels) * 7 / (right - left)))
    for place, text in axis.labels[::every]:
        parts.append(
            element(
                "text",
                {"class": "tick", "x": x(place), "y": bottom + 16, "text-anchor": "middle"},
                text,
            )
        )
    parts.append(
        element(
            "text", {"x": (left + right) / 2, "y": height - 6, "text-anchor": "middle"}, axis.name
        )
    )
    # Crosses of several lines at one place stand above each other.
    parts += [_line(line, x, y, bottom - 6 - 8 * i) for i, line in enumerate(lines)]
    return drawing(width, height, title, *parts)


def _line(line: Line, x: Any, y: Any, foot: float) -> Markup:
    parts = [element("title", {}, line.name)]
    if len(line.points) > 1:
        steps = "L".join(f"{x(a):.1f},{y(b):.1f}" for a, b in line.points)
        parts.append(element("path", {"class": "line", "d": f"M{steps}"}))
    for (place, value), spread in zip(line.points, line.deviations, strict=False):
        if spread:
            ends = {
                "x1": x(place),
                "x2": x(place),
                "y1": y(value - spread),
                "y2": y(value + spread),
            }
            parts.append(element("line", {"class": "whisker", **ends}))
    if line.shape or len(line.points) == 1:
        parts += [mark(line.shape or "circle", x(a), y(b)) for a, b in line.points]
    for place in line.absent:
        said = element("title", {}, f"{line.name}: diverged or missing")
        parts.append(element("g", {}, said, mark("cross", x(place), foot, 4)))
    for shape, place, value, words in line.marks:
        said = element("title", {}, f"{line.name}: {words} {value:.1f} %")
        parts.append(element("g", {"class": "pick"}, said, mark(shape, x(place), y(value), 5)))
    return element("g", {"class": line.style}, *parts)


def legend_mark(style: str, shape: str) -> Markup:
    """A marker for a legend beside the text; it says nothing by itself."""
    attributes = {
        "class": f"swatch {style}",
        "viewBox": "0 0 22 12",
        "width": 22,
        "aria-hidden": "true",
    }
    line = element("line", {"class": "line", "x1": 0, "x2": 22, "y1": 6, "y2": 6})
    return element("svg", attributes, line, mark(shape, 11, 6))
