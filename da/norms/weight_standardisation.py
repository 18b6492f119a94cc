"""Weight standardisation under group norm (Qiao et al. 2019, 1903.10520)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from da.norms.flow import Flow
from da.norms.weight_align.normaliser import Gain, WeightAlign


class WeightStandardisation(WeightAlign):
    """Filters of mean 0 and variance 1, and group norm in the place of batch norm.

    ŵ_j = (w_j - mean(w_j)) / √(var(w_j) + ε) for filter j, which is WeightAlign's ŵ
    with the number of weights of a filter for its gain and without its g. Under group norm, which
    no common scale of a layer passes, ``wa+gn`` is therefore the same family of functions, and what
    differs is how far a step of training turns a filter.

    Statistics: in training and in evaluation alike, those of the weights, and of groups of channels
    of the one image; no other image and no domain enters.

    Convolutions are standardised, and linear layers that batch norm followed.

    Args:
        groups: of channels, see :class:`da.norms.group_norm.GroupNorm`.
        insert: put a group norm after each convolution that has no normaliser.
        exclude, include: names or glob patterns, see :class:`WeightAlign`.
        example: an input of the model, for networks that can't be traced.
    """

    name: ClassVar[str] = "ws+gn"
    eps: ClassVar[float | None] = 1e-6

    def __init__(
        self,
        *,
        groups: int = 32,
        insert: bool = False,
        exclude: str | Sequence[str] = (),
        include: str | Sequence[str] = (),
        example: Tensor | None = None,
    ):
        super().__init__(
            activation="gn",
            exclude=exclude,
            include=include,
            example=example,
            groups=groups,
            insert=insert,
        )

    def gain_of(self, gain: Gain, flow: Flow, layer: nn.Module) -> float:
        """The number of weights of a filter: the factor by which its variance becomes 1."""
        return float(layer.get_parameter("weight")[0].numel())
