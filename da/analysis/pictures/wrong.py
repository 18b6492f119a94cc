"""The images of the target that networks get wrong, surest mistakes first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from da.analysis.pictures.drawing import Picture, shorten
from da.analysis.trained_networks import DomainSample, Subject, TrainedNetwork

ROWS = 6
"""Of images, shared among the networks: a page."""

COLUMNS = 8

HEADER = ("network", "image", "true", "predicted", "confidence", "wrong_in")


def wrong_images(sample: DomainSample) -> NDArray[np.int64]:
    """Positions of the images whose class is not the predicted one, the surest first."""
    wrong = np.flatnonzero(sample.predicted != sample.labels)
    sure = sample.probabilities[wrong].max(axis=1)
    return wrong[np.argsort(-sure, kind="stable")]


def draw(networks: Sequence[TrainedNetwork], subject: Subject) -> Picture:
    """A block per network; each image has its true class above and the predicted one below."""
    from matplotlib.figure import Figure

    samples = [network.target.labelled for network in networks]
    wrong = [wrong_images(sample) for sample in samples]
    most = max(1, ROWS // len(networks))
    lines = [max(1, min(most, -(-len(one) // COLUMNS))) for one in wrong]
    size = (0.95 * COLUMNS, 0.9 + sum(0.4 + 1.12 * count for count in lines))
    figure = Figure(figsize=size, layout="constrained")
    blocks = figure.subfigures(len(networks), 1, squeeze=False, height_ratios=lines)[:, 0]
    together = zip(networks, samples, wrong, lines, blocks, strict=True)
    for network, sample, own, count, block in together:
        shown = own[: count * COLUMNS]
        number = f"{len(own)} of {len(sample.labels)} wrong"
        which = f", the {len(shown)} surest" if len(shown) < len(own) else ""
        block.suptitle(f"{network.name}: {number}{which}", fontsize="medium", ha="left", x=0.01)
        axes = block.subplots(count, COLUMNS, squeeze=False).ravel()
        for axis in axes:
            axis.set_axis_off()
        if len(shown):
            images = subject.images(sample.indices[shown])
            _draw_images(axes, images, sample, shown, subject.data.classes)
    figure.suptitle(subject.title("Wrong images of the target: true class, → predicted class"))
    rows = _rows(networks, samples, wrong, subject.data.classes)
    return Picture(figure, rows, ["wrong", *(str(len(own)) for own in wrong)], HEADER)


def _draw_images(
    axes: Sequence[Any],
    images: NDArray[np.float32],
    sample: DomainSample,
    shown: NDArray[np.int64],
    classes: Sequence[str],
) -> None:
    for axis, image, i in zip(axes, images, shown, strict=False):
        axis.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        true, taken = (shorten(classes[k], 12) for k in (sample.labels[i], sample.predicted[i]))
        axis.set_title(f"{true}\n→ {taken}", fontsize=7, pad=2)


def _rows(
    networks: Sequence[TrainedNetwork],
    samples: Sequence[DomainSample],
    wrong: Sequence[NDArray[np.int64]],
    classes: Sequence[str],
) -> list[dict[str, Any]]:
    sets = [set(own.tolist()) for own in wrong]
    rows = []
    for network, sample, own in zip(networks, samples, wrong, strict=True):
        for i in own.tolist():
            others = [n.name for n, s in zip(networks, sets, strict=True) if i in s]
            pair = (classes[k] for k in (sample.labels[i], sample.predicted[i]))
            sure = sample.probabilities[i].max()
            values = (network.name, sample.names[i], *pair, sure, "; ".join(others))
            rows.append(dict(zip(HEADER, values, strict=True)))
    return rows
