"""Which classes of the target are taken for which, side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from da.analysis.pictures.drawing import PANEL, Picture, arrange, page, panels, shorten
from da.analysis.trained_networks import Subject, TrainedNetwork

NUMBERED = 12
"""Classes up to which every cell shows its percentage."""

NAMES = 36
"""Classes that are named, at most; above that every second, third, …"""

NAME = 16
"""Characters of a name."""


def count_pairs(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """How many images of each class (row) are taken for each class, ``(K, K)``."""
    found: NDArray[np.int64] = confusion_matrix(labels, predicted, labels=np.arange(classes))
    return found


def draw(networks: Sequence[TrainedNetwork], subject: Subject) -> Picture:
    """A matrix per network, in percent of the true class."""
    classes = subject.data.classes
    upright = max(len(shorten(name, NAME)) for name in classes) > 2
    figure = page(
        len(networks), height=arrange(len(networks))[0] * (PANEL - (0.3 if upright else 0.6)) + 0.9
    )
    axes = panels(figure, len(networks))
    rows: list[dict[str, Any]] = []
    texts: list[str] = []
    for network, (axis,) in zip(networks, axes, strict=True):
        sample = network.target.labelled
        counts = count_pairs(sample.labels, sample.predicted, len(classes))
        totals = counts.sum(axis=1, keepdims=True)
        shares = np.where(totals > 0, counts / np.maximum(totals, 1), np.nan)
        image = axis.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
        texts.append(f"{100 * np.trace(counts) / counts.sum():.1f}")
        axis.set_title(f"{network.name}: {texts[-1]} % right")
        _name_classes(axis, classes, upright)
        if len(classes) <= NUMBERED:
            _number_cells(axis, shares)
        axis.set_xlabel("predicted")
        rows += [
            {
                **{"network": network.name, "true": classes[i], "predicted": classes[j]},
                **{"count": counts[i, j], "share": shares[i, j] if totals[i] else None},
            }
            for i, j in np.ndindex(counts.shape)
        ]
    axes[0][0].set_ylabel("true")
    bar = figure.colorbar(image, ax=[axis for (axis,) in axes], shrink=0.8, pad=0.02)
    bar.set_label("% of the true class")
    figure.suptitle(subject.title(f"What {counts.sum()} images of the target are taken for"))
    return Picture(figure, rows, ["accuracy %", *texts])


def _name_classes(axis: Any, classes: Sequence[str], upright: bool) -> None:
    step = math.ceil(len(classes) / NAMES)
    shown = list(range(0, len(classes), step))
    names = [shorten(classes[i], NAME) for i in shown]
    size = min(8.0, 72 * 0.75 * PANEL / (1.25 * len(shown)))
    axis.set_xticks(shown, names, rotation=90 if upright else 0, fontsize=size)
    axis.set_yticks(shown, names, fontsize=size)
    axis.tick_params(length=0)


def _number_cells(axis: Any, shares: NDArray[np.float64]) -> None:
    """Percentages, but for zeros."""
    for (i, j), share in np.ndenumerate(shares):
        if share >= 0.005:
            colour = "white" if share > 0.5 else "black"
            axis.text(
                j, i, f"{100 * share:.0f}", ha="center", va="center", color=colour, fontsize=6
            )
