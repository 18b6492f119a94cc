"""AFN: adaptive feature norm (Xu et al. 2019, ICCV, arXiv 1811.07456)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from da.errors import UserError, refuse_negative
from da.methods.base import Method
from da.ops.entropy import conditional_entropy
from da.types import Activations, Batch

STEP = 1.0
"""Δr where none is given, the authors'."""


def feature_norms(features: Tensor) -> Tensor:
    """The length of each feature vector, ``(B,)`` of ``(B, F)``; of zeros, the gradient is 0."""
    return torch.linalg.vector_norm(features, dim=1)


def stepwise_norm_loss(features: Tensor, step: float = STEP) -> Tensor:
    """Mean over samples of (‖f‖ - (‖f‖ + Δr))², the norm in the brackets held fixed: a scalar.

    It is always Δr². Its gradient lengthens every feature vector by the same amount, however long
    it is (Xu et al. 2019, SAFN; IAFN in the authors' code).

    Args:
        features: ``(B, F)`` float.
        step: Δr.
    """
    norms = feature_norms(features)
    return (norms - (norms.detach() + step)).square().mean()


def hard_norm_loss(features: Tensor, radius: float) -> Tensor:
    """(mean over samples of ‖f‖ - R)², a scalar (Xu et al. 2019, HAFN).

    Args:
        features: ``(B, F)`` float.
        radius: R, the mean norm of both domains that is asked for.
    """
    return (feature_norms(features).mean() - radius).square()


class AFN(Method):
    """Features of larger norms: by steps of their own (SAFN), or all of one radius (HAFN).

    The loss of the source and that of the target are added, each a mean over its own samples, as in
    the authors' code and the paper's HAFN. The paper's SAFN is one mean over both domains, half as
    much: the published weight is that of the code.

    Published with one forward pass per domain (``forward_mode: separate``); the default here is
    joint, as of all methods. The authors' bottleneck is 1000 wide and ends in dropout that keeps
    the norm; their HAFN trains on the source alone at first.

    The stepwise pull never ends. Batch norm in the bottleneck leaves it little to move; under
    WeightAlign, which holds no scale, norms grow far faster: lower the rate or ``step`` there, or
    set a ``radius``.

    The Transfer-Learning-Library trains it at a constant rate (``anneal_alpha: 0``), with momentum
    in the heads and none in the backbone; here momentum is one option of all parts, and the rate is
    annealed as for all methods.

    Args:
        trade_off: weight of the norms. The authors' HAFN takes 0.01 for VisDA.
        step: Δr of SAFN, by default the authors' 1. The Transfer-Learning-Library takes 0.3 for
            VisDA, and 0.1 or 0.3 for digits.
        radius: R of HAFN, which is then used in place of SAFN; the authors' is 25.
        entropy: weight of the entropy of target predictions; 0.1 is the published +ENT on
            Office-31.
    """

    def __init__(
        self,
        num_classes: int,
        trade_off: float = 0.05,
        step: float | None = None,
        radius: float | None = None,
        entropy: float = 0.0,
        **kwargs: Any,
    ):
        for option, value in (("step", step), ("radius", radius)):
            if value is not None and value <= 0:
                raise UserError(f"{option}: expected a number above 0, got {value}")
        if radius is not None and step is not None:
            raise UserError(
                f"step {step} with radius {radius}: norms go by steps (SAFN) or to a radius "
                "(HAFN); give one of the two"
            )
        refuse_negative(entropy=entropy)
        super().__init__(num_classes, **kwargs)

    def adaptation(
        self, source: Activations, target: Activations, batch: Batch
    ) -> dict[str, Tensor]:
        """The loss of both domains' norms, and the target's entropy; logs the mean norms."""
        h = self.hparams
        losses = [self._norm_loss(domain.features) for domain in (source, target)]
        terms = {"norm": h["trade_off"] * (losses[0] + losses[1])}
        if h["entropy"]:
            terms["entropy"] = h["entropy"] * conditional_entropy(target.logits)
        if self.logging:
            self.log("norm/source", feature_norms(source.features.detach()).mean())
            self.log("norm/target", feature_norms(target.features.detach()).mean())
        return terms

    def _norm_loss(self, features: Tensor) -> Tensor:
        h = self.hparams
        if h["radius"] is None:
            return stepwise_norm_loss(features, STEP if h["step"] is None else h["step"])
        return hard_norm_loss(features, h["radius"])
