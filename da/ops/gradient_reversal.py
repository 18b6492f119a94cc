"""Gradient reversal: the identity forwards, minus lambda times the gradient backwards."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * grads[0], None


def gradient_reversal(x: Tensor, strength: float) -> Tensor:
    """Returns ``x``; its gradient is multiplied by ``-strength``.

    R(x) = x and dR/dx = -strength · I (Ganin et al. 2016, Domain-Adversarial Training of Neural
    Networks, eq. 14 and 15).

    Args:
        x: any shape, any floating dtype.
        strength: lambda, at least 0.
    """
    return _Reverse.apply(x, strength)
