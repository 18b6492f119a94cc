"""t-SNE of the features of both domains, by domain and by class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.manifold import TSNE

from da.analysis.pictures.drawing import DOMAINS, PANEL, Picture, arrange, page, panels, shorten
from da.analysis.trained_networks import ROLES, Subject, TrainedNetwork
from da.reports.figure_style import COLOURS
from da.types import Role

MARKERS = ("o", "s", "^", "D", "v", "P")
SHOWN = 12
"""Classes with a colour of their own: those with the most images of the target."""

GREY = "0.8"


def embed(features: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """The map of features ``(N, F)`` by t-SNE (van der Maaten and Hinton 2008), ``(N, 2)``.

    It starts from the first two principal components, so that far and near mean something
    (Kobak and Linderman 2021), and has a perplexity of 30, or a third of N where that is less.
    """
    varies = min(features.shape) >= 2 and bool((features.std(axis=0) > 0).any())
    found: NDArray[np.float32] = TSNE(
        perplexity=min(30.0, (len(features) - 1) / 3),
        init="pca" if varies else "random",
        random_state=seed % 2**32,
    ).fit_transform(features)
    return found


def draw(networks: Sequence[TrainedNetwork], subject: Subject) -> Picture:
    """Two panels per network: its map by domain above, by class below."""
    labelled = subject.has_labels
    classes = subject.data.classes
    maps = [_map_of(network, subject.seed, labelled) for network in networks]
    in_target = maps[0]["target"][1]
    order = np.argsort(
        -np.bincount(in_target[in_target >= 0], minlength=len(classes)), kind="stable"
    )
    shown = sorted(order[:SHOWN].tolist()) if len(classes) > SHOWN else list(range(len(classes)))
    rows, columns = arrange(len(networks))
    in_line = columns * (3 if max(len(classes[k]) for k in shown) <= 8 else 2)
    lines = math.ceil((len(shown) + 3) / in_line)
    heights = (rows * (PANEL - 0.2) + 0.9, rows * (PANEL - 0.2) + 0.22 * lines + 0.25)
    figure = page(len(networks), sum(heights))
    upper, lower = figure.subfigures(2, 1, height_ratios=heights)
    above, below = (panels(part, len(networks)) for part in (upper, lower))
    for network, points, (by_domain,), (by_class,) in zip(
        networks, maps, above, below, strict=True
    ):
        _draw_domains(by_domain, points)
        _draw_classes(by_class, points, shown)
        for axis in (by_domain, by_class):
            axis.set_title(network.name)
            axis.set(xticks=[], yticks=[])
    above[0][0].set_ylabel("by domain")
    below[0][0].set_ylabel("by class" if labelled else "by predicted class")
    domains = [_point(**DOMAINS[r], label=f"{r} ({subject.data.domain_of(r)})") for r in ROLES]
    names = [_point(**_style(i), label=shorten(classes[k], 16)) for i, k in enumerate(shown)]
    if rest := len(classes) - len(shown):
        names.append(_point(color=GREY, marker=".", label=f"{rest} other classes"))
    names += [
        _point(color="0.3", marker="o", markerfacecolor="none", label="open: source"),
        _point(color="0.3", marker="o", label="filled: target"),
    ]
    _add_legend(upper, domains, 2)
    _add_legend(lower, names, in_line)
    what = f"t-SNE of the features of {subject.count} images of each domain"
    figure.suptitle(subject.title(what))
    return Picture(figure, _rows(networks, maps, classes))


_Map = dict[Role, tuple[NDArray[np.float32], NDArray[np.int64]]]
"""Places ``(M, 2)`` and classes ``(M,)`` of the picked images, by domain."""


def _map_of(network: TrainedNetwork, seed: int, labelled: bool) -> _Map:
    """The map of one network; the classes of a target without labels are the predicted ones."""
    samples = [network.sample(role) for role in ROLES]
    picked = [sample.features[sample.picked] for sample in samples]
    places = np.split(embed(np.concatenate(picked), seed), [len(picked[0])])
    found: _Map = {}
    for role, sample, where in zip(ROLES, samples, places, strict=True):
        known = sample.labels if labelled or role == "source" else sample.predicted
        found[role] = where, known[sample.picked]
    return found


def _draw_domains(axis: Any, points: _Map) -> None:
    """In one order by chance, so that neither domain hides the other."""
    places = np.concatenate([points[role][0] for role in ROLES])
    of = np.repeat([0, 1], [len(points[role][0]) for role in ROLES])
    order = np.random.default_rng(0).permutation(len(of))
    for part in np.array_split(order, 20):
        for number, role in enumerate(ROLES):
            chosen = places[part[of[part] == number]]
            axis.plot(*chosen.T, linestyle="none", ms=3.5, mew=0.7, alpha=0.8, **DOMAINS[role])


def _draw_classes(axis: Any, points: _Map, shown: Sequence[int]) -> None:
    """The source open, the target filled."""
    for role in ROLES:
        where, labels = points[role]
        rest = where[~np.isin(labels, shown)]
        axis.scatter(*rest.T, s=3, c=GREY, marker=".", linewidths=0)
    for role in ROLES:
        where, labels = points[role]
        for number, label in enumerate(shown):
            style = _style(number)
            colours = {"facecolors": "none", "edgecolors": style["color"], "linewidths": 0.6}
            if role == "target":
                colours = {"facecolors": style["color"], "edgecolors": "white", "linewidths": 0.25}
            axis.scatter(*where[labels == label].T, s=14, marker=style["marker"], **colours)


def _add_legend(part: Any, handles: list[Any], columns: int) -> None:
    part.legend(
        handles=handles,
        loc="outside lower center",
        ncols=columns,
        fontsize="small",
        handletextpad=0.2,
    )


def _style(number: int) -> dict[str, Any]:
    """Colours and markers repeat at different paces: 42 pairs, which differ in grey, too."""
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}


def _point(**style: Any) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], linestyle="none", markersize=5, **style)


def _rows(
    networks: Sequence[TrainedNetwork], maps: Sequence[_Map], classes: Sequence[str]
) -> list[dict[str, Any]]:
    rows = []
    for network, points in zip(networks, maps, strict=True):
        for role in ROLES:
            sample = network.sample(role)
            for i, (x, y) in zip(sample.picked, points[role][0], strict=True):
                label = sample.labels[i]
                rows.append(
                    {
                        **{"network": network.name, "domain": role, "image": sample.names[i]},
                        "class": classes[label] if label >= 0 else None,
                        "predicted": classes[sample.predicted[i]],
                        **{"x": x, "y": y},
                    }
                )
    return rows
