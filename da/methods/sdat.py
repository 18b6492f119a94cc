"""SDAT: smooth domain-adversarial training (Rangwani et al. 2022, ICML, arXiv 2206.08213)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from da.errors import refuse_negative
from da.methods.base import Sharpness, Step
from da.methods.cdan import CDAN
from da.methods.cdan_mcc import CDANMCC
from da.methods.dann import DANN
from da.types import Batch


class SDAT(DANN):
    """DANN whose task loss is made flat around the weights; its domain loss is left as it is.

    min_θ max_Φ  max_{‖ε‖ <= radius} E_S[l(h_{θ+ε}(x), y)] + d^Φ(θ) (Rangwani et al. 2022, the
    objective of SDAT), the inner maximum by one step of SAM (Foret et al. 2021, eq. 2): the task
    loss takes its gradient at θ + ε, the domain loss its own at θ.

    The published code differs from this objective: it takes the gradients of both losses at θ + ε,
    the critic's too, where ε comes from the task loss alone; and batch norm's running statistics
    see both passes. Here they see the one at θ.

    Args:
        radius: of the neighbourhood, rho. The published commands use 0.02, and 0.005 for CDAN on
            VisDA; the default of SAM is 0.05. At 0 nothing is made flat.

    Attributes:
        smooth: names of the losses whose sharpness counts.
    """

    smooth: ClassVar[tuple[str, ...]] = ("task",)

    def __init__(self, num_classes: int, radius: float = 0.02, **kwargs: Any):
        refuse_negative(radius=radius)
        super().__init__(num_classes, **kwargs)

    def steps(self, batch: Batch) -> Iterator[Step]:
        """One update of all parameters, with the sharpness of what is smooth."""
        radius = self.hparams["radius"]
        # Without a radius a second pass would only round differently.
        sharpness = Sharpness(self.smooth, radius) if radius else None
        yield Step(lambda: self.losses(batch), sharpness=sharpness)


class CDANSDAT(SDAT, CDAN):
    """CDAN whose task loss is made flat around the weights, see :class:`SDAT`."""


class CDANMCCSDAT(SDAT, CDANMCC):
    """CDAN+MCC whose task loss and class confusion are made flat around the weights, as published.

    See :class:`SDAT`; in its code the class confusion counts as a part of the task loss.
    """

    smooth: ClassVar[tuple[str, ...]] = ("task", "class_confusion")
