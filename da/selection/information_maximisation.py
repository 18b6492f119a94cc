"""Mutual information between target images and their predicted classes."""

from __future__ import annotations

from da.ops.entropy import mutual_information
from da.selection.base import Evidence, Score


class InformationMaximisation(Score):
    """H(mean prediction) - mean H(prediction) on the target, in nats; the default score.

    High where each prediction is sure and all classes are predicted (Musgrave, Belongie, Lim 2022,
    Three New Validators and a Large-Scale Benchmark Ranking for Unsupervised Domain Adaptation,
    call it IM).
    """

    def __call__(self, evidence: Evidence) -> float:
        """The score, in [0, log K]."""
        return float(mutual_information(evidence.target.logits))
