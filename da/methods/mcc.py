"""MCC: minimum class confusion (Jin et al. 2020, ECCV, arXiv 1912.03699)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from da.errors import UserError
from da.methods.base import Method
from da.ops.entropy import certainty_weights, sample_entropies
from da.types import Activations, Batch


def class_confusion(logits: Tensor, temperature: float = 2.5) -> Tensor:
    """How much classes are confused in predictions, a scalar in [0, 1 - 1/K].

    Of p = softmax(logits / T) and the weights w of :func:`certainty_weights`, the correlation of
    classes C_jk = Σ_i p_ij w_i p_ik is normalised to rows of sum 1, and
    1/K Σ_j Σ_{k≠j} C_jk / Σ_l C_jl is what leaves the diagonal (Jin et al. 2020, section on
    minimum class confusion). The weights take no gradient, as in the authors' code.

    Since Σ_k p_ik = 1, row j of it is Σ_i a_ij p_ik with a_ij = w_i p_ij / Σ_n w_n p_nj, a softmax
    over the samples: a class that is never predicted has a finite gradient, where the published
    code divides 0 by 0.

    Args:
        logits: ``(B, K)`` float, B at least 1.
        temperature: T.
    """
    log_p = torch.log_softmax(logits / temperature, dim=1)
    weights = certainty_weights(sample_entropies(logits / temperature)).detach()
    shares = torch.softmax(log_p + weights.log().unsqueeze(1), dim=0)
    return 1.0 - (shares * log_p.exp()).sum(dim=0).mean()


def refuse_temperature(temperature: float) -> None:
    """Refuses what logits can't be divided by.

    Raises:
        UserError: with the option's name.
    """
    if temperature <= 0:
        raise UserError(f"temperature: expected a number above 0, got {temperature}")


class MCC(Method):
    """Predictions on the target that do not waver between classes.

    Published settings differ in the forward: the authors' code takes one domain at a time
    (``forward_mode: separate``), the Transfer-Learning-Library both jointly.

    Args:
        trade_off: weight of the class confusion.
        temperature: what logits are divided by within it: the authors' 2.5; the
            Transfer-Learning-Library has 3 for VisDA.
    """

    def __init__(
        self,
        num_classes: int,
        trade_off: float = 1.0,
        temperature: float = 2.5,
        **kwargs: Any,
    ):
        refuse_temperature(temperature)
        super().__init__(num_classes, **kwargs)

    def adaptation(
        self, source: Activations, target: Activations, batch: Batch
    ) -> dict[str, Tensor]:
        """The class confusion of the target's predictions."""
        loss = class_confusion(target.logits, self.hparams["temperature"])
        return {"class_confusion": self.hparams["trade_off"] * loss}
