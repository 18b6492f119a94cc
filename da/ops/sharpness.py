"""Weights a little way up the slope of a loss, as sharpness-aware minimisation needs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def perturbed(
    parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor | None], radius: float
) -> Iterator[None]:
    """Within this block parameters lie a distance up along gradients; then as before, exactly.

    ε = radius · g / ‖g‖ (Foret et al. 2021, eq. 2 with p = 2).

    Args:
        parameters: changed in place.
        gradients: one of each, None where there is none.
        radius: ‖ε‖.
    """
    pairs = [(p, g) for p, g in zip(parameters, gradients, strict=True) if g is not None]
    norm = nn.utils.get_total_norm([g for _, g in pairs])
    saved = [p.detach().clone() for p, _ in pairs]
    with torch.no_grad():
        for parameter, gradient in pairs:
            parameter.add_(gradient * (radius / (norm + 1e-12)).to(gradient))
    try:
        yield
    finally:
        with torch.no_grad():
            for (parameter, _), value in zip(pairs, saved, strict=True):
                parameter.copy_(value)
