"""Domain critics and their loss, which several adversarial methods share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def build_critic(features: int, width: int) -> nn.Sequential:
    """Three layers from features ``(B, features)`` to one logit per sample ``(B, 1)``."""
    # No bias where batch norm follows: it would be subtracted again and never move.
    return nn.Sequential(
        nn.Linear(features, width, bias=False),
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.Linear(width, width, bias=False),
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.Linear(width, 1),
    )


def domain_loss(
    source: Tensor,
    target: Tensor,
    smoothing: float = 0.0,
    source_weights: Tensor | None = None,
    target_weights: Tensor | None = None,
) -> Tensor:
    """Binary cross-entropy of the critic, the mean over both domains; source is 1, target 0.

    L_d = ½ · mean[w_s · l(d_s)] + ½ · mean[w_t · l(-d_t)], l(d) = -(1 - ε) log σ(d) - ε log σ(-d)
    (Ganin et al. 2016, eq. 9, where ε is 0 and all w are 1).

    Args:
        source: ``(B,)`` or ``(B, 1)`` float, the critic's logits on the source.
        target: the same on the target; the two may differ in B.
        smoothing: ε of environment label smoothing (Zhang et al. 2023, ICLR, of two domains): the
            source is 1 - ε and the target ε.
        source_weights: ``(B,)`` float, w_s of mean 1; none for 1.
        target_weights: the same of the target.
    """
    return 0.5 * (
        _own_domain_loss(source, smoothing, source_weights)
        + _own_domain_loss(-target, smoothing, target_weights)
    )


def _own_domain_loss(logits: Tensor, smoothing: float, weights: Tensor | None) -> Tensor:
    """The half of one domain, of logits that are high where the critic is right."""
    losses = F.softplus(-logits)
    if smoothing:
        losses = losses + smoothing * logits  # log σ(d) - log σ(-d) = d
    if weights is not None:
        losses = weights * losses.flatten()
    return losses.mean()
