"""BNM: batch nuclear-norm maximisation (Cui et al. 2020, CVPR, arXiv 2003.12237)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from da.methods.base import Method
from da.ops.decompositions import of_finite
from da.types import Activations, Batch


def nuclear_norm_loss(logits: Tensor) -> Tensor:
    """-1/B · ‖P‖_*, P = softmax(logits), a scalar (Cui et al. 2020, L_bnm).

    ‖P‖_* is the sum of the singular values: √(B / K) where all predictions are uniform, √B where
    all are sure of one class, and at most √(B · min(B, K)), where all are sure and the classes are
    used evenly.

    Args:
        logits: ``(B, K)`` float, B at least 1. Where they aren't finite, neither is the loss.
    """
    norm = of_finite(lambda p: torch.linalg.matrix_norm(p, ord="nuc"), logits.softmax(dim=1))
    return -norm / len(logits)


def fast_nuclear_norm_loss(logits: Tensor) -> Tensor:
    """-1/B times the approximation of ‖P‖_* by the min(B, K) longest columns of P, a scalar.

    Sure predictions have orthogonal columns, whose lengths are then the singular values (Cui et
    al. 2021, arXiv 2107.06154, FBNM).

    Args:
        logits: ``(B, K)`` float, B at least 1.
    """
    lengths = torch.linalg.vector_norm(logits.softmax(dim=1), dim=0)
    return -lengths.topk(min(logits.shape)).values.sum() / len(logits)


class BNM(Method):
    """Predictions on the target that are sure and diverse, through their nuclear norm.

    The published code divides by min(B, K) where the paper, and so this, divides by B: its weight
    of 1 is B / min(B, K) here.

    Args:
        trade_off: weight of the loss.
        fast: approximate the nuclear norm by the lengths of columns (FBNM), without a singular
            value decomposition, for which a GPU waits in every step.
    """

    own_scores: ClassVar = ("NuclearNorm",)

    def __init__(self, num_classes: int, trade_off: float = 1.0, fast: bool = False, **kwargs: Any):
        super().__init__(num_classes, **kwargs)

    def adaptation(
        self, source: Activations, target: Activations, batch: Batch
    ) -> dict[str, Tensor]:
        """The nuclear norm of the target's predictions."""
        loss = fast_nuclear_norm_loss if self.hparams["fast"] else nuclear_norm_loss
        return {"nuclear_norm": self.hparams["trade_off"] * loss(target.logits)}
