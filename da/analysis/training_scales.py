"""What grows in a training: scales of features, gains, the critic and gradients at every step."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as L
import torch
from torch import Tensor, nn

from da.analysis.activations import normalises
from da.methods.base import Method
from da.methods.updates import frozen_statistics
from da.norms.weight_align.layers import ComputedWeight
from da.ops.files import write_atomically
from da.types import Activations, Domains

MEASURED = {
    "features": "root mean square of the features",
    "batch_dependence": "mean square of what the target beside them adds to the source's logits",
    "gain": "largest |g| of WA, or |scale| of a normaliser",
    "critic": "mean |logit| of the critic",
    "critic_input_gradient": "norm of the gradient at the critic's input, before the reversal",
    "gradient": "norm of the gradient, before clipping",
}
"""What is measured at every step, and what it is in words."""


@dataclass
class Scales:
    """The scales of one training.

    Attributes:
        name: of its line: normaliser and limit of the gradient.
        rows: one a step, ``{"step": 1, "features": 0.7, ...}``; of :data:`MEASURED` those that
            the method has.
        ended: ``"done"``, or why it diverged.
    """

    name: str
    rows: list[dict[str, float]] = field(default_factory=list)
    ended: str = "done"


class ScaleRecorder(L.Callback):
    """Measures a training at every step; it computes the same as without.

    What network and critic see in several calls of a step (one for each domain, or for each batch
    whose gradients are averaged) counts together.

    Args:
        scales: gets a row a step.
    """

    def __init__(self, scales: Scales):
        self.scales = scales
        self._now: dict[str, float] = {}
        self._calls: dict[str, list[Tensor]] = {}
        self._scaler: Any = None
        self._module: Method | None = None
        self._handles: list[Any] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Hooks into the network and, where there is one, into the critic."""
        assert isinstance(pl_module, Method)
        self._module = pl_module
        self._scaler = getattr(trainer.precision_plugin, "scaler", None)
        self._handles = [pl_module.network.register_forward_hook(self._features)]
        critic = getattr(pl_module, "critic", None)
        if isinstance(critic, nn.Module):
            self._handles.append(critic.register_forward_hook(self._critic))
        pl_module.before_clipping = [lambda: self._measure_update(pl_module)]

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes the hooks out."""
        assert isinstance(pl_module, Method)
        pl_module.before_clipping = []
        for handle in self._handles:
            handle.remove()

    def on_exception(self, trainer: L.Trainer, *args: Any) -> None:
        """Takes the hooks out of a training that diverged, too."""
        self.on_train_end(trainer, trainer.lightning_module)

    def _features(self, network: nn.Module, inputs: Any, output: Activations) -> None:
        if not network.training:
            return
        self._keep("features", output.features)
        images, domains = (*inputs, "target")[:2]
        if not isinstance(domains, str) and len({segment.domain for segment in domains}) > 1:
            self._keep("batch_dependence", dependence(network, images, domains, output.logits))

    def _critic(self, critic: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not critic.training:
            return
        self._keep("critic", output)
        if inputs[0].requires_grad:
            inputs[0].register_hook(self._gradient_at_critic)

    def _gradient_at_critic(self, gradient: Tensor) -> None:
        if self._module is not None and self._module.only_looking:
            return
        # float16 trains on a loss that is scaled up.
        scale = 1.0 if self._scaler is None else self._scaler.get_scale()
        self._keep("critic_input_gradient", gradient / scale)

    def _keep(self, key: str, values: Tensor) -> None:
        self._calls.setdefault(key, []).append(values.detach().float().flatten())

    def _measure_calls(self) -> None:
        """Measures what was seen since the last step; what was not seen stays as it was."""
        measures = {
            "features": root_mean_square,
            "batch_dependence": lambda x: x.square().mean().item(),
            "critic": lambda x: x.abs().mean().item(),
            "critic_input_gradient": lambda x: x.norm().item(),
        }
        for key, values in self._calls.items():
            self._now[key] = measures[key](torch.cat(values))
        self._calls = {}

    def _measure_update(self, module: Method) -> None:
        """Adds a row, with the gradient as it is before it is clipped."""
        self._measure_calls()
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        self._now["gradient"] = nn.utils.get_total_norm(gradients).item()
        gains: list[Tensor] = []
        for part in module.modules():
            gain = part.g if isinstance(part, ComputedWeight) else getattr(part, "weight", None)
            if gain is not None and (isinstance(part, ComputedWeight) or normalises(part)):
                gains.append(gain)
        if gains:
            self._now["gain"] = max(gain.detach().abs().max().item() for gain in gains)
        self.scales.rows.append({"step": float(len(self.scales.rows) + 1), **self._now})


def dependence(network: nn.Module, images: Tensor, domains: Domains, logits: Tensor) -> Tensor:
    """The source's logits beside other domains less those of the source alone, ``(S, K)`` float.

    0 to rounding where no layer mixes the samples of a batch. Nothing is changed by asking, neither
    running statistics nor random numbers; dropout, which draws anew, adds to the difference.

    Args:
        network: in the mode of training.
        images: ``(B, C, H, W)`` float, those of the source among them.
        domains: of the images, in order.
        logits: ``(B, K)`` float, what the network gave for them.
    """
    sizes = [segment.size for segment in domains]
    images, joint = (
        torch.cat([x for x, d in zip(whole.split(sizes), domains, strict=True) if d[0] == "source"])
        for whole in (images, logits)
    )
    cuda = [images.device] if images.device.type == "cuda" else []
    with torch.random.fork_rng(cuda), torch.no_grad(), frozen_statistics(network):
        alone: Activations = network.forward(images, "source")  # hooks are not for this pass
    return joint.detach() - alone.logits


def root_mean_square(x: Tensor) -> float:
    """The root of the mean square of all values.

    >>> root_mean_square(torch.tensor([3.0, -3.0]))
    3.0
    """
    return x.detach().float().square().mean().sqrt().item()


def save_figure_and_table(out: Path, title: str, trainings: Sequence[Scales]) -> list[Path]:
    """Writes ``training.png``, ``training.svg`` and ``training.csv``.

    Args:
        out: folder; made where it is missing.
        title: of the figure.
        trainings: a line of each panel each.

    Returns:
        The files.
    """
    from da.reports.figure_style import write

    out.mkdir(parents=True, exist_ok=True)
    table = out / "training.csv"
    write_atomically(table, as_csv(trainings))
    return [*write(draw(title, trainings), out / "training"), table]


def as_csv(trainings: Sequence[Scales]) -> bytes:
    """A row a step and training; what a training has not is left empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["training", "step", *MEASURED], lineterminator="\n")
    writer.writeheader()
    for one in trainings:
        for row in one.rows:
            values = {k: f"{v:.6g}" for k, v in row.items()}
            writer.writerow({"training": one.name, **values, "step": int(row["step"])})
    return text.getvalue().encode()


def draw(title: str, trainings: Sequence[Scales]) -> Any:
    """One panel for each of :data:`MEASURED`, on a logarithmic axis; a cross where one diverged."""
    from matplotlib.figure import Figure

    from da.reports.figure_style import COLOURS, number_plainly

    shown = [key for key in MEASURED if any(key in row for one in trainings for row in one.rows)]
    columns = 2
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(10, 0.9 + 2.6 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis, key in zip(axes, shown, strict=False):
        for number, one in enumerate(trainings):
            points = [(row["step"], row[key]) for row in one.rows if row.get(key)]
            xs, ys = [x for x, _ in points], [y for _, y in points]
            colour = COLOURS[number % len(COLOURS)]
            axis.plot(xs, ys, color=colour, lw=1.2, label=one.name)
            if one.ended != "done" and points:
                axis.plot(xs[-1:], ys[-1:], "x", color=colour, ms=9)
        axis.set_yscale("log")
        number_plainly(axis.yaxis)
        axis.set_title(MEASURED[key], fontsize="medium")
        axis.set_xlabel("step")
        axis.grid(color="0.9")
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    figure.suptitle(f"{title}; × where a training diverged")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4)
    return figure
