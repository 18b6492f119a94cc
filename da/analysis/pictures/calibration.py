"""Whether networks are as often right as they are sure: reliability diagrams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from da.analysis.pictures.drawing import Picture, arrange, network_style, page, panels
from da.analysis.trained_networks import Subject, TrainedNetwork

BINS = 15
"""Of confidence, equally wide, as in Guo et al. (2017, ICML)."""


class Reliability(NamedTuple):
    """Confidence and accuracy in bins of confidence, ``(BINS,)`` each; nan where a bin is empty.

    Attributes:
        counts: images.
        confidence: mean of the largest probability.
        accuracy: share that is right.
    """

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def error(self) -> float:
        """The expected calibration error Σ n / N · |accuracy - confidence| (Guo et al., eq. 3)."""
        gaps = np.nan_to_num(np.abs(self.accuracy - self.confidence))
        return float((self.counts * gaps).sum() / self.counts.sum())


def measure_reliability(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], bins: int = BINS
) -> Reliability:
    """Sorts images into bins (m - 1, m] / bins of their confidence.

    Args:
        probabilities: ``(N, K)``.
        labels: ``(N,)``.
        bins: how many.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    sums = (np.bincount(place, values, bins) for values in (confidence, right))
    with np.errstate(invalid="ignore"):
        return Reliability(counts, *(one / counts for one in sums))


def draw(networks: Sequence[TrainedNetwork], subject: Subject) -> Picture:
    """Two panels per network: accuracy over confidence, and how many images are how sure."""
    figure = page(len(networks), height=4.4 * arrange(len(networks))[0] + 0.9)
    axes = panels(figure, len(networks), shares=(3, 1))
    rows: list[dict[str, Any]] = []
    texts: list[str] = []
    edges = np.linspace(0, 1, BINS + 1)
    for number, (network, (above, below)) in enumerate(zip(networks, axes, strict=True)):
        sample = network.target.labelled
        found = measure_reliability(sample.probabilities, sample.labels)
        colour = network_style(number)["color"]
        place = {"width": 1 / BINS, "align": "edge", "edgecolor": "white", "linewidth": 0.6}
        gap = found.confidence - found.accuracy
        above.bar(edges[:-1], found.accuracy, color=colour, alpha=0.5, label="right", **place)
        above.bar(
            edges[:-1],
            gap,
            bottom=found.accuracy,
            color="none",
            hatch="////",
            label="gap to the confidence",
            **{**place, "edgecolor": "0.45"},
        )
        above.plot([0, 1], [0, 1], ls="--", color="0.3", lw=1)
        below.bar(edges[:-1], found.counts / found.counts.sum(), color=colour, alpha=0.5, **place)
        texts.append(f"{100 * found.error:.1f}")
        above.set_title(f"{network.name}: ECE {texts[-1]} %")
        above.set(xlim=(0, 1), ylim=(0, 1), xticklabels=[])
        below.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence")
        rows += [
            {
                **{"network": network.name, "from": edges[i], "to": edges[i + 1]},
                "images": found.counts[i],
                "confidence": found.confidence[i] if found.counts[i] else None,
                "accuracy": found.accuracy[i] if found.counts[i] else None,
                "expected_calibration_error": found.error,
            }
            for i in range(BINS)
        ]
    axes[0][0].set_ylabel("share that is right")
    axes[0][1].set_ylabel("share of images")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    what = f"Is it as often right as it is sure? {found.counts.sum()} images of the target"
    figure.suptitle(subject.title(what))
    return Picture(figure, rows, ["ECE %", *texts])
