"""Domain critics, which several adversarial methods share."""

from __future__ import annotations

from torch import nn


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
