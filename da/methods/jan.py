"""JAN: joint adaptation network (Long et al. 2017, ICML, arXiv 1605.06636)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from da.errors import unknown
from da.methods.base import Method
from da.ops.kernels import (
    ESTIMATORS,
    Estimator,
    gaussian_kernel,
    kernel_discrepancy,
    multi_kernel,
    squared_distances,
)
from da.types import Activations, Batch

#: Width σ of the kernel of the predictions, in the Transfer-Learning-Library.
PREDICTION_WIDTH = 0.92


def joint_discrepancy(
    source: Activations, target: Activations, estimator: Estimator = "full"
) -> Tensor:
    """The squared MMD of features and predictions together, a scalar (JMMD).

    Its kernel is the product over both layers, k(x_i, x_j) = k_f(f_i, f_j) · k_p(p_i, p_j) (Long et
    al. 2017, section 4.1): k_f is the sum of Gaussian kernels of several widths
    (:func:`da.ops.kernels.multi_kernel`), k_p one Gaussian kernel of the softmax, σ = 0.92.

    Args:
        source: features ``(n, F)`` and logits ``(n, K)``, n at least 2.
        target: the same with m for n.
        estimator: see :func:`da.ops.kernels.kernel_discrepancy`.
    """
    features = torch.cat([source.features, target.features])
    predictions = torch.cat([source.logits, target.logits]).softmax(dim=1)
    kernel = multi_kernel(squared_distances(features)) * gaussian_kernel(
        squared_distances(predictions), PREDICTION_WIDTH**2
    )
    return kernel_discrepancy(kernel, len(source.features), estimator)


class JAN(Method):
    """Features and predictions of both domains with the same joint mean in the space of a kernel.

    This follows the Transfer-Learning-Library, whose loss has a constant added, 2 / (B - 1). Left
    out is the paper's adversarial variant (JAN-A), whose kernels see the layers through one more
    that is trained against them. The library's bottleneck ends in dropout.

    Args:
        trade_off: weight of the discrepancy.
        estimator: ``full`` compares all pairs, as the published commands do, and lets the batches
            of both domains differ in size; ``linear`` neighbours in the batch, as the paper does.
    """

    own_scores: ClassVar = ("MMD",)

    smallest_batch: ClassVar = 2

    def __init__(
        self,
        num_classes: int,
        trade_off: float = 1.0,
        estimator: Estimator = "full",
        **kwargs: Any,
    ):
        if estimator not in ESTIMATORS:
            raise unknown("estimator", estimator, ESTIMATORS)
        super().__init__(num_classes, **kwargs)

    def adaptation(
        self, source: Activations, target: Activations, batch: Batch
    ) -> dict[str, Tensor]:
        """The joint discrepancy of features and predictions."""
        loss = joint_discrepancy(source, target, self.hparams["estimator"])
        return {"joint_discrepancy": self.hparams["trade_off"] * loss}
