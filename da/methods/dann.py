"""DANN: domain-adversarial training (Ganin et al. 2016, JMLR 17:59)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from da.errors import UserError
from da.methods.base import Method
from da.methods.critics import build_critic
from da.ops.gradient_reversal import gradient_reversal
from da.ops.schedules import reversal_strength
from da.types import Activations, Batch


def domain_loss(source: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of the critic, the mean over both domains; source is 1, target 0.

    L_d = ½ · mean[-log σ(d_s)] + ½ · mean[-log(1 - σ(d_t))] (Ganin et al. 2016, eq. 9).

    Args:
        source: ``(B,)`` or ``(B, 1)`` float, the critic's logits on the source.
        target: the same on the target; the two may differ in B.
    """
    return 0.5 * (F.softplus(-source).mean() + F.softplus(target).mean())


class DANN(Method):
    """Features that a critic can't tell the domains apart by, through a reversed gradient.

    Args:
        trade_off: weight of the domain loss. The strength of the reversal comes on top of it and
            acts on the features only, so the critic always learns at full rate.
        reversal_maximum: the strength that the schedule tends to.
        reversal_gamma: how fast: lambda = maximum · (2 / (1 + exp(-gamma · progress)) - 1).
        critic_width: width of the two hidden layers of the critic.
    """

    small: ClassVar = {"critic_width": 8}

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

    def build(self) -> None:
        """Builds the critic."""
        width = self.hparams["critic_width"]
        self.critic = self.part("critic", lambda: build_critic(self.num_features, width))

    @property
    def reversal(self) -> float:
        """The strength of the gradient reversal at this point of the run."""
        h = self.hparams
        return reversal_strength(self.progress, h["reversal_gamma"], h["reversal_maximum"])

    def adaptation(
        self, source: Activations, target: Activations, batch: Batch
    ) -> dict[str, Tensor]:
        """The domain loss; logs the critic's accuracy and the strength of the reversal."""
        strength = self.reversal
        d_source, d_target = self.apply_part(
            self.critic,
            (gradient_reversal(source.features, strength), "source"),
            (gradient_reversal(target.features, strength), "target"),
        )
        if self.logging:
            correct = torch.cat([d_source > 0, d_target <= 0]).float().mean()
            self.log("critic/accuracy", correct)
            self.log("critic/reversal", strength)
        return {"domain": self.hparams["trade_off"] * domain_loss(d_source, d_target)}
