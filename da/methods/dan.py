"""DAN: deep adaptation network (Long et al. 2015, ICML, arXiv 1502.02791)."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from da.errors import unknown
from da.methods.base import Method
from da.ops.kernels import ESTIMATORS, Estimator, mean_discrepancy
from da.types import Activations, Batch


class DAN(Method):
    """Features of both domains with the same mean in the space of several Gaussian kernels.

    The loss is the squared maximum mean discrepancy of the features, see
    :func:`da.ops.kernels.mean_discrepancy`. This follows the Transfer-Learning-Library: the kernels
    weigh equally and act on the bottleneck's output. The paper learns their weights, and adds up
    the discrepancies of all fully connected layers. Left out is what the library adds to the loss,
    2 / (B - 1), a constant. Its bottleneck has dropout, and no batch norm.

    Published with one forward pass per domain (``forward_mode: separate``); the default here is
    joint, as of all methods.

    Args:
        trade_off: weight of the discrepancy.
        estimator: ``linear`` compares neighbours in the batch, as the published commands do;
            ``full`` all pairs, which is less noisy and lets the batches of both domains differ in
            size.
    """

    own_scores: ClassVar = ("MMD",)

    smallest_batch: ClassVar = 2

    def __init__(
        self,
        num_classes: int,
        trade_off: float = 1.0,
        estimator: Estimator = "linear",
        **kwargs: Any,
    ):
        if estimator not in ESTIMATORS:
            raise unknown("estimator", estimator, ESTIMATORS)
        super().__init__(num_classes, **kwargs)

    def adaptation(
        self, source: Activations, target: Activations, batch: Batch
    ) -> dict[str, Tensor]:
        """The discrepancy of the features."""
        loss = mean_discrepancy(
            source.features, target.features, estimator=self.hparams["estimator"]
        )
        return {"discrepancy": self.hparams["trade_off"] * loss}
