"""Soft neighbourhood density: how many other images each target image is predicted like."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from da.selection.base import Evidence, Score

TEMPERATURE = 0.05

CHUNK = 2**24
"""Similarities that are held at a time: 64 MB, and a few copies of it."""


class SND(Score):
    """The mean entropy of each target image's similarities to all others, in nats.

    Of softmax outputs, at a temperature of 0.05 (Saito et al. 2021, Tune it the Right Way, ICCV).
    High where predictions form dense groups; a model that puts all images into one class scores
    best, log(N - 1). Published implementations differ in the image itself: the paper's ignores it,
    as here; that of EnsV and MixVal sets its similarity to -1, which adds a term of e^-20.

    The time grows with the square of the number of images; the memory does not.
    """

    def __call__(self, evidence: Evidence) -> float:
        """The score, in [0, log(N - 1)]; 0 of a single image."""
        return soft_neighbourhood_density(torch.softmax(evidence.target.logits, dim=1))


def soft_neighbourhood_density(
    predictions: Tensor, temperature: float = TEMPERATURE, chunk: int = CHUNK
) -> float:
    """-1/N Σ_i Σ_j≠i P_ij log P_ij, P_i = softmax over j ≠ i of cos(p_i, p_j) / temperature.

    Args:
        predictions: ``(N, K)`` float, no row of zeros.
        temperature: of the softmax over neighbours.
        chunk: how many of the N² similarities are computed at a time.
    """
    n = len(predictions)
    if n < 2:
        return 0.0
    unit = F.normalize(predictions.float(), dim=1)
    total = 0.0
    for rows in torch.arange(n).split(max(1, chunk // n)):
        similar = unit[rows] @ unit.T / temperature
        similar[torch.arange(len(rows)), rows] = -torch.inf
        log_p = torch.log_softmax(similar, dim=1)
        # Of the image itself, p log p = 0 · -inf is 0.
        total -= float((log_p.exp() * log_p.nan_to_num(neginf=0.0)).double().sum())
    return total / n
