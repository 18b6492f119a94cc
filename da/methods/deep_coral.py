"""Deep CORAL: correlation alignment (Sun & Saenko 2016, ECCV workshops, arXiv 1607.01719)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, get_args

from torch import Tensor

from da.errors import UserError, unknown
from da.methods.base import Method
from da.types import Activations, Batch

Layer = Literal["logits", "features"]
LAYERS = get_args(Layer)


def covariance(x: Tensor) -> Tensor:
    """1/(B - 1) Σ_i (x_i - x̄)(x_i - x̄)ᵀ, ``(F, F)`` (Sun & Saenko 2016, eq. 2 and 3).

    Args:
        x: ``(B, F)`` float, B at least 2.
    """
    centred = x - x.mean(dim=0)
    return centred.T @ centred / (len(x) - 1)


def coral_loss(source: Tensor, target: Tensor) -> Tensor:
    """1/(4 F²) · ‖C_s - C_t‖²_F of the covariances, a scalar (Sun & Saenko 2016, eq. 1).

    The norm is squared, which several reimplementations leave out.

    Args:
        source: ``(n, F)`` float, n at least 2.
        target: ``(m, F)`` float, m at least 2.

    Raises:
        UserError: with fewer than 2 samples of a domain.
    """
    if min(len(source), len(target)) < 2:
        raise UserError(
            "a covariance needs at least 2 samples of each domain, got "
            f"{len(source)} of the source and {len(target)} of the target; use a larger batch"
        )
    difference = covariance(source) - covariance(target)
    return difference.square().sum() / (4 * source.shape[1] ** 2)


class DeepCORAL(Method):
    """Second moments of one layer that are the same in both domains; its means may differ.

    Args:
        trade_off: weight of the loss. The paper sets it such that, at the end of training, this
            loss and the cross-entropy are about the same.
        layer: ``logits`` is the paper's (its fc8); ``features`` those before, the bottleneck's,
            as in many later comparisons. There the loss, divided by F², asks for a larger weight.
    """

    smallest_batch: ClassVar = 2

    def __init__(
        self,
        num_classes: int,
        trade_off: float = 1.0,
        layer: Layer = "logits",
        **kwargs: Any,
    ):
        if layer not in LAYERS:
            raise unknown("layer", layer, LAYERS)
        super().__init__(num_classes, **kwargs)

    def adaptation(
        self, source: Activations, target: Activations, batch: Batch
    ) -> dict[str, Tensor]:
        """The distance of the covariances."""
        layer = self.hparams["layer"]
        loss = coral_loss(getattr(source, layer), getattr(target, layer))
        return {"coral": self.hparams["trade_off"] * loss}
