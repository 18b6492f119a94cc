"""Pseudo-labels: predictions on the target that are taken for its labels where they are sure."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def confidence_mask(logits: Tensor, threshold: float) -> Tensor:
    """Which predictions are sure: ``(B,)`` float, 1 where max softmax > threshold.

    Args:
        logits: ``(B, K)`` float.
        threshold: a probability; 0 for all samples.
    """
    return (logits.softmax(dim=1).amax(dim=1) > threshold).to(logits.dtype)


def pseudo_label_loss(strong: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """The cross-entropy with pseudo-labels: mean over samples of m · -log p_label, a scalar.

    The samples that are masked out count in the mean (Sohn et al. 2020, eq. 4), so that the loss
    is 0 where no sample is sure.

    Args:
        strong: ``(B, K)`` float, logits of the strong view; p is their softmax.
        labels: ``(B,)`` int64, the pseudo-labels.
        mask: ``(B,)`` float, the weight m of each sample.
    """
    return (F.cross_entropy(strong, labels, reduction="none") * mask).mean()
