"""CDAN+MCC: conditional adversaries and minimum class confusion, summed (Jin et al. 2020, ECCV)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from da.methods.cdan import CDAN
from da.methods.mcc import class_confusion, refuse_temperature
from da.types import Activations, Batch


class CDANMCC(CDAN):
    """CDAN with the class confusion of the target's predictions as a further loss.

    Args:
        mcc_trade_off: weight of the class confusion; ``trade_off`` is that of the domain loss.
        temperature: of the class confusion. SDAT's published commands (Rangwani et al. 2022) use
            2 for CDAN+MCC, with and without SDAT.
    """

    def __init__(
        self,
        num_classes: int,
        mcc_trade_off: float = 1.0,
        temperature: float = 2.5,
        **kwargs: Any,
    ):
        refuse_temperature(temperature)
        super().__init__(num_classes, **kwargs)

    def adaptation(
        self, source: Activations, target: Activations, batch: Batch
    ) -> dict[str, Tensor]:
        """The domain loss and the class confusion."""
        terms = super().adaptation(source, target, batch)
        loss = class_confusion(target.logits, self.hparams["temperature"])
        return {**terms, "class_confusion": self.hparams["mcc_trade_off"] * loss}
