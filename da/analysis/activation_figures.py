"""The picture of domain-mixing statistics: every layer's mean and deviation for both domains."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any, NamedTuple

from da.analysis.activations import LayerSpreads
from da.ops.files import write_atomically
from da.ops.moments import Spread, channel_distance, deviation_ratio, domain_gap
from da.reports.figure_style import COLOURS, number_plainly, write

LINE = {"ms": 3.5, "lw": 1.4}
STYLES: dict[str, dict[str, Any]] = {
    "source": {"color": COLOURS[0], "marker": "o", "ls": "-", **LINE},
    "target": {"color": COLOURS[1], "marker": "s", "ls": "-", **LINE},
    "running": {"color": COLOURS[-1], "marker": "", "ls": "--", **LINE},
}
GAP = {"color": COLOURS[2], "marker": "D", "ls": "-", **LINE}
PANELS = ("mean / σ of the layer", "deviation σ", "distance of means / σ", "σ / σ of the source")

COLUMNS = (
    *("network", "task", "norm", "method", "depth", "layer", "kind", "normaliser"),
    *("point", "of", "channels", "mean", "mean_spread", "std", "std_spread"),
    *("gap", "to_running", "std_ratio", "target_share"),
)


class InspectedNetwork(NamedTuple):
    """A network that was looked at.

    Attributes:
        name: its checkpoint, or ``untrained``.
        task: ``rendered->optical``.
        norm: short name of its normaliser.
        method: what it was trained by, or would be.
        layers: in the order of the forward pass.
    """

    name: str
    task: str
    norm: str
    method: str
    layers: list[LayerSpreads]


def layer_rows(network: InspectedNetwork) -> list[dict[str, Any]]:
    """One row per layer, point (``into`` and ``out`` of its normaliser) and whose moments they are.

    ``mean`` and ``std`` are means over channels, ``mean_spread`` and ``std_spread`` the deviations
    over channels. ``gap`` is the domains' distance, ``to_running`` that of a domain from batch
    norm's running mean; ``std_ratio`` relates a deviation to the source's; ``target_share`` says
    where the running mean lies. All by :mod:`da.ops.moments`; what there is none of is None.
    """
    rows = []
    for depth, layer in enumerate(network.layers, start=1):
        base = {
            **{key: getattr(network, key) for key in ("task", "norm", "method")},
            **{"network": network.name, "depth": depth, "layer": layer.name},
            **{"kind": layer.kind, "normaliser": layer.norm},
        }
        for point, pair in (("into", layer.into), ("out", layer.out)):
            ends = pair["source"], pair["target"]
            running = layer.running if point == "into" else None
            for of, spread in {**pair, **({"running": running} if running else {})}.items():
                between = (
                    None if running is None else channel_distance(spread.mean, running.mean, *ends)
                )
                rows.append(
                    {
                        **base,
                        **_mean_over_channels(spread),
                        **{"point": point, "of": of},
                        "gap": domain_gap(*ends) if of != "running" else None,
                        "to_running": between if of != "running" else None,
                        "std_ratio": deviation_ratio(spread.std, ends[0].std),
                        "target_share": layer.target_share if of == "running" else None,
                    }
                )
    return rows


def _mean_over_channels(spread: Spread) -> dict[str, Any]:
    return {
        "channels": len(spread.mean),
        "mean": spread.mean.mean().item(),
        "mean_spread": spread.mean.std(correction=0).item(),
        "std": spread.std.mean().item(),
        "std_spread": spread.std.std(correction=0).item(),
    }


def save_figure_and_table(out: Path, networks: list[InspectedNetwork]) -> list[Path]:
    """Writes ``activations.png``, ``.svg`` and ``.csv``; the same networks give the same files."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for network in networks:
        for row in layer_rows(network):
            writer.writerow({k: _format_cell(v) for k, v in row.items()})
    table = out / "activations.csv"
    files = write(draw_figure(networks), out / "activations", dpi=120)
    write_atomically(table, text.getvalue().encode())
    return [*files, table]


def _format_cell(value: Any) -> Any:
    """Six digits of a number; nothing for what there is none of."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value


def draw_figure(networks: list[InspectedNetwork]) -> Any:
    """A column of panels per network.

    Above, mean and deviation of what goes into the normalisers; below, the domains compared.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.0 + 2.8 * len(networks), 8.2), layout="constrained")
    axes = figure.subplots(4, len(networks), sharex="col", sharey="row", squeeze=False)
    tasks = list(dict.fromkeys(network.task for network in networks))
    for column, network in zip(axes.T, networks, strict=True):
        _draw_means_and_deviations(column[:2], network.layers)
        _draw_distances(column[2:], network)
        column[0].set_title(_title(network, networks), fontsize="medium")
        _label_depth(column[-1], network.layers)
        for axis in column:
            axis.grid(color="0.9")
    axes[1, 0].set_yscale("log")
    number_plainly(axes[1, 0].yaxis)
    axes[2, 0].set_ylim(bottom=0)  # only now: it fixes the other end, too
    for axis, label in zip(axes[:, 0], PANELS, strict=True):
        axis.set_ylabel(label)
    figure.align_ylabels(axes[:, 0])
    entries: dict[str, Any] = {}
    for axis in axes.flat:
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(name, handle)
    labels = [_legend_name(name, tasks) for name in entries]
    figure.legend(list(entries.values()), labels, loc="outside lower center", ncols=3)
    return figure


def _title(network: InspectedNetwork, networks: list[InspectedNetwork]) -> str:
    """Normaliser and method, and what else tells this network from the others."""
    more = []
    if len({other.task for other in networks}) > 1:
        more.append(network.task)
    if sum((n.task, n.norm, n.method) == network[1:4] for n in networks) > 1:
        more.append(network.name)
    return "\n".join([f"{network.norm}, {network.method}", *more])


def _legend_name(name: str, tasks: list[str]) -> str:
    """A line's name in the legend."""
    if name == "running":
        return "batch norm's running statistics"
    domains = dict(zip(("source", "target"), tasks[0].split("->"), strict=True))
    return f"{name} ({domains[name]})" if name in domains and len(tasks) == 1 else name


def _draw_means_and_deviations(axes: Any, layers: list[LayerSpreads]) -> None:
    """Mean over channels with a band of their deviation, of each domain and of what runs."""
    for name, style in STYLES.items():
        points = [(x, layer, s) for x, layer in enumerate(layers) if (s := _spread_of(layer, name))]
        if not points:
            continue
        xs = [x for x, _, _ in points]
        # A mean says something in relation to how far the layer's values spread.
        scales = [_deviation_of_layer(layer) for _, layer, _ in points]
        for axis, values, units in (
            (axes[0], [s.mean for _, _, s in points], scales),
            (axes[1], [s.std for _, _, s in points], [1.0] * len(points)),
        ):
            middle = [v.mean().item() / unit for v, unit in zip(values, units, strict=True)]
            spread = [
                v.std(correction=0).item() / unit for v, unit in zip(values, units, strict=True)
            ]
            axis.plot(xs, middle, label=name, **style)
            if name in ("source", "target"):
                low, high = zip(
                    *((m - s, m + s) for m, s in zip(middle, spread, strict=True)), strict=True
                )
                if axis is axes[1]:  # on a logarithmic axis
                    low = tuple(max(x, 0.2 * m) for x, m in zip(low, middle, strict=True))
                axis.fill_between(xs, low, high, color=style["color"], alpha=0.15, lw=0)


def _draw_distances(axes: Any, network: InspectedNetwork) -> None:
    """Distances of the means and ratios of the deviations, of what goes on to the activations.

    Batch norm's running statistics are compared with what goes into it, in the same units.
    """
    rows = layer_rows(network)
    for name, style in STYLES.items():
        into, out = (
            [row for row in rows if row["of"] == name and row["point"] == point]
            for point in ("into", "out")
        )
        ratios = out or into
        axes[1].plot(
            [row["depth"] - 1 for row in ratios], [row["std_ratio"] for row in ratios], **style
        )
        away = [(row["depth"] - 1, row["to_running"]) for row in into]
        away = [(x, distance) for x, distance in away if distance is not None]
        if away:
            label = f"{name} to running mean"
            axes[0].plot(*zip(*away, strict=True), label=label, **{**style, "ls": ":"})
    gaps = [row["gap"] for row in rows if row["of"] == "source" and row["point"] == "out"]
    axes[0].plot(range(len(gaps)), gaps, label="source to target", **GAP)
    if not any(layer.running for layer in network.layers):
        place = {"transform": axes[0].transAxes, "ha": "center", "va": "top"}
        axes[0].text(0.5, 0.94, "no running statistics", color="0.35", fontsize="small", **place)


def _spread_of(layer: LayerSpreads, name: str) -> Spread | None:
    return layer.running if name == "running" else layer.into[name]


def _deviation_of_layer(layer: LayerSpreads) -> float:
    """The deviation of the layer's values within a channel, over both domains."""
    squares = [spread.std.square().mean().item() for spread in layer.into.values()]
    return math.sqrt(sum(squares) / len(squares)) or 1.0


def _label_depth(axis: Any, layers: list[LayerSpreads]) -> None:
    """Names of at most 16 layers, without what says nothing."""
    step = math.ceil(len(layers) / 16)
    ticks = range(0, len(layers), step)
    names = [layers[i].name.removeprefix("backbone.").removesuffix(".0") for i in ticks]
    axis.set_xticks(
        list(ticks), names, rotation=60, ha="right", rotation_mode="anchor", fontsize="small"
    )
