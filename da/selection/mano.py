"""MaNo: how far from uniform the normalised logits on the target are."""

from __future__ import annotations

import torch
from torch import Tensor

from da.selection.base import Evidence, Score

THRESHOLD = 5.0
ORDER = 4


class MaNo(Score):
    """The entry-wise 4-norm of normalised target logits (Xie et al. 2024, NeurIPS).

    Logits are normalised by softmax where the network is far from uniform, which is where the mean
    of -log p over images and classes exceeds 5, else by a Taylor polynomial of degree 2, which is
    less sure of itself (eq. 6). The criterion is that of the whole target, as in the authors'
    package; where networks that are compared lie on both sides of it, their scores jump.
    """

    def __call__(self, evidence: Evidence) -> float:
        """The score, in [1/K, K^(-1/4)]."""
        return matrix_norm(evidence.target.logits)


def matrix_norm(logits: Tensor, threshold: float = THRESHOLD) -> float:
    """(1/(NK) Σ_ik σ(z)_ik^4)^(1/4), σ the softmax or the polynomial.

    Args:
        logits: ``(N, K)`` float, N at least 1.
        threshold: of the mean of -log p, above which σ is the softmax.
    """
    z = logits.double()
    unlikely = -torch.log_softmax(z, dim=1).mean()
    p = torch.softmax(z, dim=1) if unlikely > threshold else taylor_softmax(z)
    return float(p.pow(ORDER).mean().pow(1 / ORDER))


def taylor_softmax(logits: Tensor) -> Tensor:
    """1 + z + z²/2, less the smallest of each row, over its sum: ``(N, K)``.

    As in the authors' code. Where all of a row are equal it is uniform, there a row of zeros.

    Args:
        logits: ``(N, K)`` float.
    """
    y = 1 + logits + logits.square() / 2
    y = y - y.amin(dim=1, keepdim=True)
    total = y.sum(dim=1, keepdim=True)
    return torch.where(total > 0, y / total, 1 / y.shape[1])
