"""Entropy minimisation of target predictions, with or without the diversity of the marginal."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from da.errors import refuse_negative
from da.methods.base import Method
from da.ops.entropy import conditional_entropy, marginal_entropy
from da.types import Activations, Batch


def entropy_loss(logits: Tensor, diversity: float = 1.0) -> Tensor:
    """H(Y|X) - diversity · H(Y) of target predictions, a scalar in nats.

    With ``diversity`` 0 it is the entropy regulariser of Grandvalet & Bengio 2005 (eq. 6); with 1
    the information maximisation of SHOT (Liang et al. 2020, eq. 3 and 4).

    Args:
        logits: ``(B, K)`` float.
        diversity: weight of the marginal's entropy; without it, one class for all is a minimum.
    """
    loss = conditional_entropy(logits)
    return loss - diversity * marginal_entropy(logits) if diversity else loss


class EntropyMinimisation(Method):
    """Sure predictions on the target, spread over the classes.

    Args:
        trade_off: weight of the entropy loss.
        diversity: weight of the marginal's entropy within it; 0 leaves it out.
    """

    own_scores: ClassVar = ("NegativeEntropy", "InformationMaximisation")

    def __init__(
        self,
        num_classes: int,
        trade_off: float = 0.1,
        diversity: float = 1.0,
        **kwargs: Any,
    ):
        refuse_negative(diversity=diversity)
        super().__init__(num_classes, **kwargs)

    def adaptation(
        self, source: Activations, target: Activations, batch: Batch
    ) -> dict[str, Tensor]:
        """The entropy of the target's predictions."""
        loss = entropy_loss(target.logits, self.hparams["diversity"])
        return {"entropy": self.hparams["trade_off"] * loss}
