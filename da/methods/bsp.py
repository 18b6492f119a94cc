"""BSP: batch spectral penalisation (Chen et al. 2019, ICML)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from da.errors import UserError, refuse_negative
from da.methods.cdan import CDAN
from da.methods.dann import DANN
from da.ops.decompositions import of_finite
from da.types import Activations, Batch


def spectral_penalty(features: Tensor, number: int = 1) -> Tensor:
    """The sum of the squares of the largest singular values of a batch of features, a scalar.

    Σ_{i <= k} σ_i² of one domain's features (Chen et al. 2019, section on batch spectral
    penalisation); they aren't centred. The squares are the eigenvalues of F Fᵀ and of Fᵀ F, and
    those of the smaller one take less than half the time of a singular value decomposition. On a
    GPU it is a point at which the processor waits, as is any decomposition.

    Args:
        features: ``(B, F)`` float32 or float64. Where their squares aren't finite, neither is
            the penalty.
        number: k; where there are fewer singular values, all of them count.
    """
    wide = features.shape[0] <= features.shape[1]
    gram = features @ features.T if wide else features.T @ features
    # Eigenvalues come in ascending order.
    return of_finite(lambda x: torch.linalg.eigvalsh(x)[-number:].sum(), gram)


class BSP(DANN):
    """DANN that keeps the directions of largest variance from taking over the features.

    The adversary strengthens what the domains share, which lies along the first singular vectors;
    classes are told apart by the others, too. So the largest singular values of the features are
    penalised, in each domain.

    The Transfer-Learning-Library first trains on the source alone for 3 epochs; the paper's own
    code doesn't, nor does this.

    Args:
        penalty: weight of the penalty, the sum over both domains. The paper's is 1e-4, that of the
            Transfer-Learning-Library 2e-4.
        singular_values: how many of the largest are penalised, k.
    """

    def __init__(
        self, num_classes: int, penalty: float = 1e-4, singular_values: int = 1, **kwargs: Any
    ):
        refuse_negative(penalty=penalty)
        if singular_values < 1:
            raise UserError(
                f"singular_values: expected a whole number from 1, got {singular_values}"
            )
        super().__init__(num_classes, **kwargs)

    def adaptation(
        self, source: Activations, target: Activations, batch: Batch
    ) -> dict[str, Tensor]:
        """The terms of what it extends, and the penalty."""
        number = self.hparams["singular_values"]
        penalties = [spectral_penalty(domain.features, number) for domain in (source, target)]
        terms = super().adaptation(source, target, batch)
        return {**terms, "spectral": self.hparams["penalty"] * sum(penalties)}


class BSPCDAN(BSP, CDAN):
    """CDAN with the penalty of :class:`BSP`, the paper's second form."""
