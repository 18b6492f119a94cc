"""DANN: domain-adversarial training (Ganin et al. 2016, JMLR 17:59)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from da.errors import UserError
from da.methods.base import AdaptationModule
from da.ops.gradient_reversal import gradient_reversal
from da.ops.schedules import reversal_strength
from da.types import Activations


def domain_loss(source: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of the critic, the mean over both domains; source is 1, target 0.

    L_d = ½ · mean[-log σ(d_s)] + ½ · mean[-log(1 - σ(d_t))] (Ganin et al. 2016, eq. 9).

    Args:
        source: ``(B,)`` or ``(B, 1)`` float, the critic's logits on the source.
        target: the same on the target; the two may differ in B.
    """
    return 0.5 * (F.softplus(-source).mean() + F.softplus(target).mean())


class DANN(AdaptationModule):
    """Features that a critic can't tell the domains apart by, through a reversed gradient.

    Args:
        trade_off: weight of the domain loss. The strength of the reversal comes on top of it and
            acts on the features only, so the critic always learns at full rate.
        reversal_maximum: the strength that the schedule tends to.
        reversal_gamma: how fast: lambda = maximum · (2 / (1 + exp(-gamma · progress)) - 1).
        critic_width: width of the two hidden layers of the critic.
    """

    def __init__(
        self,
        num_classes: int,
        trade_off: float = 1.0,
        reversal_maximum: float = 1.0,
        reversal_gamma: float = 10.0,
        critic_width: int = 1024,
        **kwargs: Any,
    ):
        if critic_width < 1:
            raise UserError(f"critic_width: expected a whole number from 1, got {critic_width}")
        super().__init__(num_classes, **kwargs)
        features = self.num_features
        self.critic = self.part("critic", lambda: critic(features, critic_width))

    def adaptation(self, source: Activations, target: Activations) -> dict[str, Tensor]:
        """The domain loss; logs the critic's accuracy and the strength of the reversal."""
        strength = reversal_strength(
            self.progress, self.hparams["reversal_gamma"], self.hparams["reversal_maximum"]
        )
        if self.hparams["forward_mode"] == "joint":
            joint = torch.cat([source.features, target.features])
            d_source, d_target = self.critic(gradient_reversal(joint, strength)).split(
                [len(source.features), len(target.features)]
            )
        else:
            d_source, d_target = (
                self.critic(gradient_reversal(x.features, strength)) for x in (source, target)
            )
        if self.logging:
            correct = torch.cat([d_source > 0, d_target <= 0]).float().mean()
            self.log("critic/accuracy", correct)
            self.log("critic/reversal", strength)
        return {"domain": self.hparams["trade_off"] * domain_loss(d_source, d_target)}


def critic(features: int, width: int) -> nn.Sequential:
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
