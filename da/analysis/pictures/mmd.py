"""How far the domains are apart at every layer, drawn along the network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from da.analysis.pictures.drawing import PANEL, Picture, network_style
from da.analysis.trained_networks import Subject, TrainedNetwork
from da.errors import UserError

NAMES = 24
"""Layers that are named, at most."""


def draw(networks: Sequence[TrainedNetwork], subject: Subject) -> Picture:
    """A line per network, and below it what domains drawn by chance would give.

    Raises:
        UserError: where no layer of a network was measured.
    """
    from matplotlib.figure import Figure

    for network in networks:
        if not network.distances:
            raise UserError(
                f"mmd: the network '{network.name}' has no layer at which domains can be compared"
            )

    layers = list(dict.fromkeys(one.layer for network in networks for one in network.distances))
    place = {layer: i for i, layer in enumerate(layers)}
    figure = Figure(figsize=(2 * PANEL, 4.4), layout="constrained")
    axis = figure.subplots()
    rows: list[dict[str, Any]] = []
    for number, network in enumerate(networks):
        xs = [place[one.layer] for one in network.distances]
        values = [max(0.0, one.mmd2) for one in network.distances]
        chance = [one.chance for one in network.distances]
        style = network_style(number)
        axis.plot(xs, values, label=network.name, ms=5, lw=1.6, **style)
        axis.plot(xs, chance, ls=":", lw=1, color=style["color"])
        rows += [
            {"network": network.name, "depth": place[one.layer] + 1, **one._asdict()}
            for one in network.distances
        ]
    axis.plot([], [], ls=":", lw=1, color="0.4", label="by chance: 95 % lie below")
    step = math.ceil(len(layers) / NAMES)
    shown = range(0, len(layers), step)
    names = [layers[i].removeprefix("backbone.").removesuffix(".0") for i in shown]
    axis.set_xticks(
        list(shown), names, rotation=50, ha="right", rotation_mode="anchor", fontsize="small"
    )
    axis.set_ylim(bottom=0)
    axis.set_ylabel("MMD² of channel means")
    axis.grid(color="0.9")
    axis.set_axisbelow(True)
    axis.legend()
    what = f"Distance of the domains at every layer, {subject.count} images of each"
    figure.suptitle(subject.title(what))
    largest = [max(one.mmd2 for one in network.distances) for network in networks]
    return Picture(figure, rows, ["largest MMD²", *(f"{value:.3f}" for value in largest)])
