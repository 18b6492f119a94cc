"""Scaled weight standardisation (Brock et al. 2021, 2101.08692): no normaliser of activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from da.norms.flow import Flow
from da.norms.weight_align.normaliser import Gain, Residual, WeightAlign


class ScaledWeightStandardisation(WeightAlign):
    """Filters of mean 0 and of a variance that the activation before them asks for.

    ŵ_j = g_j · γ · (w_j - mean(w_j)) / √(n · (var(w_j) + ε)) for filter j of n weights (section
    4.1), where γ² is 1 / Var[φ(z)] of the activation φ that feeds the layer, z ~ N(0, 1):
    2 / (1 - 1/π) after a ReLU, 1 where the input is an image or linear. It is WeightAlign's ŵ with
    γ² for its gain. Scale and shift of a batch norm become g and the bias of the layer before it.

    Statistics: in training and in evaluation alike, those of the weights; no image and no domain
    enters.

    The paper's networks also divide what enters a residual branch by its expected deviation and
    multiply what leaves it by 0.2; here a network stays as it is built, and ``residual`` is the
    factor at the start of what leaves a branch. The paper trains with adaptive clipping of
    gradients only in what followed it (Brock et al. 2021, 2102.06171).

    Args:
        residual: see :class:`WeightAlign`: ``"one"``, ``"depth"`` or ``"zero"``.
        min_channels, min_weights: layers that stay plain, see :class:`WeightAlign`.
        exclude, include: names or glob patterns, see :class:`WeightAlign`.
        example: an input of the model, for networks that can't be traced.
    """

    name: ClassVar[str] = "sws"
    eps: ClassVar[float | None] = 1e-6

    def __init__(
        self,
        *,
        residual: Residual | None = None,
        min_channels: int = 1,
        min_weights: int = 1,
        exclude: str | Sequence[str] = (),
        include: str | Sequence[str] = (),
        example: Tensor | None = None,
    ):
        super().__init__(
            residual=residual,
            min_channels=min_channels,
            min_weights=min_weights,
            exclude=exclude,
            include=include,
            example=example,
        )

    def gain_of(self, gain: Gain, flow: Flow, layer: nn.Module) -> float:
        """γ² of the activation that feeds the layer."""
        return 1.0 / flow.moments(layer).variance
