"""The alarm of a loss that does not reach the backbone: detached, or its gradient is zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from da.engine.alarms.critics import WINDOW
from da.engine.alarms.record import Verdict
from da.methods.network_module import NetworkModule
from da.ops.acceleration import without_autocast

PATIENCE = 3 * WINDOW
"""Steps between the first look and the alarm; a gradient may be zero once, as that of a reversal of
strength 0 is."""

HALF = 0.5
"""Training progress at which a term that is zero itself is named, too. Before it, it may be still
to come: a weight that rises late, a threshold that no prediction has passed yet."""


@dataclass
class Term:
    """What is kept of one loss term.

    Attributes:
        first: the step of the first look.
        reached: whether it has had a gradient on the backbone: it is never looked at again.
        zero: whether the term itself was zero at a look.
    """

    first: int
    reached: bool = False
    zero: bool = False

    def look(
        self, name: str, loss: Tensor, module: NetworkModule, parameters: Sequence[nn.Parameter]
    ) -> Verdict | None:
        """Looks whether the term reaches the backbone.

        Args:
            name: of the term.
            loss: its value, with its graph.
            module: whose step and progress it is.
            parameters: of the backbone, at least one.
        """
        if self.reached:
            return None
        self.reached = has_gradient(loss, parameters, module)
        if self.reached:
            return None
        self.zero = self.zero or not loss.item()
        step, progress = module.batches_done, module.progress
        if step - self.first < PATIENCE or (self.zero and progress < HALF):
            return None
        value = "it is zero itself" if self.zero else f"it is {loss.item():.3g}"
        how = "its gradient there is zero" if loss.requires_grad else "it is detached"
        return Verdict(
            "loss-without-gradient",
            f"loss/{name}",
            f"from step {self.first} to {step} it has not reached the backbone ({value}, and "
            f"{how}): the features learn nothing from it",
        )


def has_gradient(loss: Tensor, parameters: Sequence[nn.Parameter], module: NetworkModule) -> bool:
    """Whether a loss has a gradient other than zero on any of some parameters.

    The last one is tried first: nearly always it has one, and it takes a backward pass through the
    heads alone. No gradient is accumulated, and the graph stays.

    Args:
        loss: a scalar, with its graph.
        parameters: of the backbone, in the order of its layers.
        module: whose precision plugin may scale losses (float16, where small gradients would be 0).
    """
    if not loss.requires_grad:
        return False
    scaler: Any = getattr(module.trainer.precision_plugin, "scaler", None)
    module.only_looking = True
    try:
        with without_autocast(loss):
            scaled = loss if scaler is None else scaler.scale(loss)
            for some in (parameters[-1:], parameters):
                gradients = torch.autograd.grad(scaled, some, retain_graph=True, allow_unused=True)
                if any(g is not None and bool(g.any()) for g in gradients):
                    return True
    finally:
        module.only_looking = False
    return False
