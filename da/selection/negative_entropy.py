"""How sure the target predictions are."""

from __future__ import annotations

from da.ops.entropy import conditional_entropy
from da.selection.base import Evidence, Score


class NegativeEntropy(Score):
    """Minus the mean entropy of target predictions, in nats (Morerio et al. 2018).

    A model that puts every image into one class scores best, so it is there to compare with.
    """

    def __call__(self, evidence: Evidence) -> float:
        """The score, in [-log K, 0]."""
        return float(-conditional_entropy(evidence.target.logits))
