"""How sure the target predictions are."""

from __future__ import annotations

from torch import Tensor

from da.ops.entropy import conditional_entropy
from da.selection.base import Score


class NegativeEntropy(Score):
    """Minus the mean entropy of target predictions, in nats (Morerio et al. 2018).

    A model that puts every image into one class scores best, so it is there to compare with.
    """

    def __call__(self, logits: Tensor) -> Tensor:
        """The score, a scalar in [-log K, 0], of target logits ``(N, K)``."""
        return -conditional_entropy(logits)
