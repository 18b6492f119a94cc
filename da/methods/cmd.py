"""CMD: central moment discrepancy (Zellinger et al. 2017, ICLR, arXiv 1702.08811)."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from da.errors import UserError, unknown
from da.methods.base import Method
from da.types import Activations, Batch

Squash = Literal["tanh", "sigmoid"]
SQUASHES = get_args(Squash)


def central_moment_discrepancy(
    source: Tensor, target: Tensor, moments: int = 5, bounds: tuple[float, float] = (0.0, 1.0)
) -> Tensor:
    """The distance of the means and of central moments 2 to K of each feature, a scalar.

    CMD_K = ‖E(s) - E(t)‖ / |b - a| + Σ_{k=2..K} ‖c_k(s) - c_k(t)‖ / |b - a|^k with
    c_k(x) = E[(x - E(x))^k] for each feature by itself (Zellinger et al. 2017, definition 2). Where
    a moment is equal in both domains, its gradient is 0.

    Args:
        source: ``(n, F)`` float within the bounds.
        target: ``(m, F)`` float within the bounds.
        moments: K, at least 1.
        bounds: the interval [a, b] that the features lie in.
    """
    width = bounds[1] - bounds[0]
    means = source.mean(dim=0), target.mean(dim=0)
    total = torch.linalg.vector_norm(means[0] - means[1]) / width
    centred = source - means[0], target - means[1]
    for k in range(2, moments + 1):
        one, other = (x.pow(k).mean(dim=0) for x in centred)
        total = total + torch.linalg.vector_norm(one - other) / width**k
    return total


class CMD(Method):
    """Features whose means and central moments, order by order, are the same in both domains.

    The discrepancy is one of bounded features: of unbounded ones, the highest moment of the largest
    values would be all that counts. The published networks classify what a sigmoid gives; here
    features end in a ReLU, so they are squashed for this loss alone, and the classifier sees them
    as they are. What a ReLU gives, tanh maps to [0, 1), the interval of the sigmoid, and hardly
    changes small values; the sigmoid would map it to [½, 1), and the k-th moment of small values to
    one smaller by 4^k.

    Args:
        trade_off: weight of the discrepancy.
        moments: the highest moment, K.
        squash: ``tanh``, or ``sigmoid`` for features that can be negative, of some backbones
            without a bottleneck (transformers): those tanh maps to [-1, 1), twice as wide as the
            interval that moments are divided by, and the higher ones weigh more.
    """

    def __init__(
        self,
        num_classes: int,
        trade_off: float = 1.0,
        moments: int = 5,
        squash: Squash = "tanh",
        **kwargs: Any,
    ):
        if moments < 1:
            raise UserError(f"moments: expected a whole number from 1, got {moments}")
        if squash not in SQUASHES:
            raise unknown("squash", squash, SQUASHES)
        super().__init__(num_classes, **kwargs)

    def adaptation(
        self, source: Activations, target: Activations, batch: Batch
    ) -> dict[str, Tensor]:
        """The discrepancy of the squashed features."""
        squash = torch.tanh if self.hparams["squash"] == "tanh" else torch.sigmoid
        loss = central_moment_discrepancy(
            squash(source.features), squash(target.features), self.hparams["moments"]
        )
        return {"moments": self.hparams["trade_off"] * loss}
