"""How sure and how diverse the target predictions are, by their nuclear norm."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from da.selection.base import Evidence, Score


class NuclearNorm(Score):
    """The nuclear norm of all target predictions, over the largest that there can be.

    The validator that Musgrave, Belongie, Lim (2022, Three New Validators and a Large-Scale
    Benchmark Ranking for Unsupervised Domain Adaptation) make of batch nuclear-norm maximisation
    (Cui et al. 2020, CVPR), there called BNM. They divide by the number of images; dividing by the
    bound ranks networks the same, and makes target sets of different sizes comparable.
    """

    def __call__(self, evidence: Evidence) -> float:
        """The score, in (0, 1]."""
        return relative_nuclear_norm(evidence.target.logits)


def relative_nuclear_norm(logits: Tensor) -> float:
    """‖P‖_* / √(N · min(N, K)) of P = softmax(logits).

    ‖P‖_* ≤ √min(N, K) · ‖P‖_F ≤ √(N · min(N, K)), with equality where each prediction is sure and
    all classes are predicted equally often.

    Args:
        logits: ``(N, K)`` float, N at least 1.
    """
    p = torch.softmax(logits.double(), dim=1)
    return float(torch.linalg.svdvals(p).sum()) / math.sqrt(len(p) * min(p.shape))
