"""The optimiser and its parameter groups, and what scale-invariant weights make of its rate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import nn

from da.errors import UserError, refuse_negative, unknown

OPTIMISERS = ("sgd", "adam", "adamw")


def refuse_optimiser(optimizer: str, momentum: float, weight_decay: float, warmup: float) -> None:
    """Refuses a name that is none of an optimiser, and settings outside of their range."""
    if optimizer not in OPTIMISERS:
        raise unknown("optimizer", optimizer, OPTIMISERS)
    if not 0 <= momentum < 1:
        raise UserError(f"momentum: expected a number from 0 up to but not 1, got {momentum}")
    refuse_negative(weight_decay=weight_decay)
    if not 0 <= warmup <= 1:
        raise UserError(f"warmup: expected a share of the run from 0 to 1, got {warmup}")


def parameter_groups(
    parameters: Iterable[tuple[str, nn.Parameter]],
    lr: float,
    factors: Mapping[str, float],
    weight_decay: float,
    decay: Literal["weights", "all"],
) -> list[dict[str, Any]]:
    """Groups for an optimiser: parts at their own rates, scales and shifts without decay.

    Args:
        parameters: by name.
        lr: learning rate of what has no factor.
        factors: on it, by the name of a part, ``{"network.backbone": 0.1}``.
        weight_decay: of what decays.
        decay: what decays: weights with two or more dimensions, or all parameters.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in parameters:
        if parameter.requires_grad:
            decays = decay == "all" or parameter.ndim >= 2
            factor = next((f for part, f in factors.items() if name.startswith(f"{part}.")), 1.0)
            groups.setdefault((factor, decays), []).append(parameter)
    return [
        {
            "params": members,
            "lr": lr * factor,
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (factor, decays), members in groups.items()
    ]


def lr_over_norm2(optimiser: Any) -> float:
    """Mean over the weights (two or more dimensions) of lr / ‖w‖², at the present rate.

    Scale-invariant weights learn at this rate, whatever lr says (van Laarhoven 2017, L2
    Regularization versus Batch and Weight Normalization, eq. 7).
    """
    with torch.no_grad():
        values = [
            group["lr"] / parameter.float().square().sum().item()
            for group in optimiser.param_groups
            for parameter in group["params"]
            if parameter.ndim >= 2
        ]
    return sum(values) / len(values)


def build_optimiser(
    name: str, groups: list[dict[str, Any]], lr: float, momentum: float
) -> torch.optim.Optimizer:
    """SGD with Nesterov's momentum, Adam or AdamW.

    Args:
        name: ``sgd``, ``adam`` or ``adamw``.
        groups: of parameters, with what differs between them.
        lr: of groups that name none.
        momentum: of SGD; the first beta of the others, whose second is 0.999.
    """
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0)
    kind = torch.optim.Adam if name == "adam" else torch.optim.AdamW
    return kind(groups, lr=lr, betas=(momentum, 0.999))
