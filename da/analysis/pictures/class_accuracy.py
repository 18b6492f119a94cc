"""How many images of each class of the target are right, side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from da.analysis.pictures.confusion import count_pairs
from da.analysis.pictures.drawing import PANEL, Picture, network_style, shorten
from da.analysis.trained_networks import Subject, TrainedNetwork
from da.ops.intervals import wilson_interval

IN_COLUMN = 34
"""Classes of one column of the picture."""

SHOWN = 3 * IN_COLUMN
"""Classes that are drawn; of more, those in which the networks differ most. The table has all."""


def draw(networks: Sequence[TrainedNetwork], subject: Subject) -> Picture:
    """A line per class: a point per network with its 95 % interval by Wilson."""
    from matplotlib.figure import Figure

    classes = subject.data.classes
    samples = [network.target.labelled for network in networks]
    counts = np.bincount(samples[0].labels, minlength=len(classes))
    right = np.stack(
        [np.diagonal(count_pairs(s.labels, s.predicted, len(classes))) for s in samples]
    )
    shares = right / np.maximum(counts, 1)
    there = [int(k) for k in np.flatnonzero(counts)]
    shown = _most_different(there, shares)
    columns = math.ceil(len(shown) / IN_COLUMN)
    lines = math.ceil(len(shown) / columns)
    size = (max(5.0, PANEL * columns), 1.5 + max(0.3, 0.12 * len(networks)) * lines)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, columns, sharex=True, squeeze=False)[0]
    for axis, part in zip(axes, np.array_split(np.array(shown), columns), strict=True):
        _draw_classes(axis, part, counts, shares, networks)
        axis.set_yticks(
            range(len(part)), [f"{shorten(classes[k], 18)} ({counts[k]})" for k in part]
        )
        axis.set_ylim(len(part) - 0.5, -0.5)
        axis.set_xlabel("% right, 95 % interval")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(networks)
    )
    what = "Accuracy by class of the target (number of images)"
    if len(shown) < len(there):
        what += f"\nthe {len(shown)} of {len(there)} classes in which the networks differ most"
    figure.suptitle(subject.title(what), fontsize="medium")
    means = [f"{100 * own[there].mean():.1f}" for own in shares]
    rows = _rows(networks, classes, there, counts, shares)
    return Picture(figure, rows, ["class mean %", *means])


def _most_different(there: list[int], shares: NDArray[np.float64]) -> list[int]:
    """The classes to draw, in their own order."""
    gaps = np.ptp(shares[:, there], axis=0)
    return sorted(there[i] for i in np.argsort(-gaps, kind="stable")[:SHOWN])


def _draw_classes(
    axis: Any,
    part: NDArray[np.int64],
    counts: NDArray[np.int64],
    shares: NDArray[np.float64],
    networks: Sequence[TrainedNetwork],
) -> None:
    for place in range(1, len(part), 2):
        axis.axhspan(place - 0.5, place + 0.5, color="0.95", lw=0)
    for number, (network, own) in enumerate(zip(networks, shares, strict=True)):
        offset = 0.5 * ((number + 0.5) / len(networks) - 0.5)
        middle = own[part]
        ends = np.array([wilson_interval(own[k], counts[k]) for k in part])
        bars = np.abs(ends.T - middle)
        style = {**network_style(number), "linestyle": "none"}
        axis.errorbar(
            100 * middle,
            np.arange(len(part)) + offset,
            xerr=100 * bars,
            ms=4,
            elinewidth=0.8,
            label=network.name,
            **style,
        )
    axis.set_xlim(-2, 102)
    axis.grid(axis="x", color="0.85")
    axis.set_axisbelow(True)


def _rows(
    networks: Sequence[TrainedNetwork],
    classes: Sequence[str],
    there: Sequence[int],
    counts: NDArray[np.int64],
    shares: NDArray[np.float64],
) -> list[dict[str, Any]]:
    rows = []
    for network, own in zip(networks, shares, strict=True):
        for k in there:
            low, high = wilson_interval(own[k], counts[k])
            rows.append(
                {
                    **{"network": network.name, "class": classes[k], "images": counts[k]},
                    **{"accuracy": own[k], "low": low, "high": high},
                }
            )
    return rows
