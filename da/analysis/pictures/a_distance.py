"""The proxy A-distance: how well a linear classifier tells the domains apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedShuffleSplit

from da.analysis.pictures.drawing import PANEL, Picture, network_style
from da.analysis.trained_networks import Subject, TrainedNetwork
from da.ops.domain_classifier import domain_classifier

SPLITS = 10
"""Divisions into halves."""

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)
"""Inverse strengths of the regularisation; chosen on the half that is learnt from."""


def proxy_a_distances(
    source: NDArray[np.float32], target: NDArray[np.float32], seed: int, splits: int = SPLITS
) -> NDArray[np.float64]:
    """2 (1 - 2ε) of each division into halves, ``(splits,)``; 0 to 2, about 0 by chance.

    ε is the share of images whose domain a linear classifier gets wrong, on the half that it has
    not seen (Ben-David et al. 2007, NIPS, of a proxy of the A-distance). The classifier is a
    logistic regression on standardised features, regularised as suits the half that it learns
    from. Where the domains can't be told apart, ε exceeds 1/2 now and then, and the value is
    below 0.

    Args:
        source, target: ``(N, F)`` each, of equally many images, of at least 8.
        seed: of the divisions.
        splits: how many.
    """
    features = np.concatenate([source, target]).astype(np.float64)
    domain = np.repeat([0, 1], [len(source), len(target)])
    halves = StratifiedShuffleSplit(splits, test_size=0.5, random_state=seed % 2**32)
    found = []
    for seen, held in halves.split(features, domain):
        model = domain_classifier(STRENGTHS, 2, seed).fit(features[seen], domain[seen])
        found.append(2 * (1 - 2 * np.mean(model.predict(features[held]) != domain[held])))
    return np.array(found)


def draw(networks: Sequence[TrainedNetwork], subject: Subject) -> Picture:
    """One line per network: the mean of the divisions, its deviation, and every division."""
    from matplotlib.figure import Figure

    found = []
    for network in networks:
        source, target = (s.features[s.picked] for s in (network.source, network.target))
        found.append(proxy_a_distances(source, target, subject.seed))
    figure = Figure(figsize=(2 * PANEL, 1.3 + 0.45 * len(networks)), layout="constrained")
    axis = figure.subplots()
    rows: list[dict[str, Any]] = []
    texts: list[str] = []
    for number, (network, values) in enumerate(zip(networks, found, strict=True)):
        mean, deviation = values.mean(), values.std(ddof=1)
        texts.append(f"{mean:.2f} ± {deviation:.2f}")
        style = network_style(number)
        axis.plot(values, [number + 0.18] * len(values), "|", color="0.55", ms=6)
        style.pop("linestyle")
        axis.errorbar(mean, number, xerr=deviation, capsize=3, ms=6, **style)
        axis.annotate(texts[-1], (2.06, number), va="center", annotation_clip=False)
        rows += [
            {
                **{"network": network.name, "images": subject.count, "split": split},
                **{"a_distance": value, "error": (1 - value / 2) / 2},
                **{"mean": mean, "deviation": deviation},
            }
            for split, value in enumerate(values, start=1)
        ]
    axis.set_yticks(range(len(networks)), [network.name for network in networks])
    axis.set(xlim=(min(-0.02, *(values.min() - 0.05 for values in found)), 2.02))
    axis.set_ylim(len(networks) - 0.5, -0.5)
    axis.set_xlabel("0: domains can't be told apart,  2: they always can")
    axis.grid(axis="x", color="0.9")
    axis.set_axisbelow(True)
    what = f"Proxy A-distance of the features; mean ± deviation of {SPLITS} divisions (|)"
    figure.suptitle(subject.title(what), fontsize="medium")
    return Picture(figure, rows, ["A-distance", *texts])
