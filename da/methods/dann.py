"""DANN: domain-adversarial training (Ganin et al. 2016, JMLR 17:59)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from da.errors import UserError, refuse_negative
from da.methods.base import Method
from da.methods.critics import build_critic, domain_loss
from da.ops.gradient_reversal import gradient_reversal
from da.ops.schedules import reversal_strength
from da.types import Activations, Batch


class DANN(Method):
    """Features that a critic can't tell the domains apart by, through a reversed gradient.

    Args:
        trade_off: weight of the domain loss. The strength of the reversal comes on top of it and
            acts on the features only, so the critic always learns at full rate.
        reversal_maximum: the strength that the schedule tends to.
        reversal_gamma: how fast: lambda = maximum · (2 / (1 + exp(-gamma · progress)) - 1).
        critic_width: width of the two hidden layers of the critic.
        environment_smoothing: label the source 1 - this and the target this, in place of 1 and 0:
            environment label smoothing (ELS, Zhang et al. 2023, ICLR). The published code tries
            values from 0 to 0.5 and keeps the best one by target labels.
    """

    critics: ClassVar = ("critic/accuracy",)
    small: ClassVar = {"critic_width": 8}

    def __init__(
        self,
        num_classes: int,
        trade_off: float = 1.0,
        reversal_maximum: float = 1.0,
        reversal_gamma: float = 10.0,
        critic_width: int = 1024,
        environment_smoothing: float = 0.0,
        **kwargs: Any,
    ):
        refuse_negative(reversal_maximum=reversal_maximum, reversal_gamma=reversal_gamma)
        if critic_width < 1:
            raise UserError(f"critic_width: expected a whole number from 1, got {critic_width}")
        if not 0 <= environment_smoothing <= 0.5:
            raise UserError(
                "environment_smoothing: expected a number from 0 to 0.5, at which both domains "
                f"have one label, got {environment_smoothing}"
            )
        super().__init__(num_classes, **kwargs)

    def build(self) -> None:
        """Builds the critic."""
        width = self.hparams["critic_width"]
        self.critic = self.part("critic", lambda: build_critic(self.critic_inputs, width))

    @property
    def critic_inputs(self) -> int:
        """How many numbers of a sample the critic sees."""
        return self.num_features

    def critic_input(self, activations: Activations) -> Tensor:
        """What the critic sees of each sample, ``(B, critic_inputs)``; its gradient is reversed."""
        return activations.features

    def sample_weights(self, activations: Activations, strength: float) -> Tensor | None:
        """Weights of the samples of a domain in its loss, ``(B,)`` of mean 1; None for equal ones.

        Args:
            activations: of the domain.
            strength: of the reversal, for weights that take a gradient.
        """
        return None

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
            (gradient_reversal(self.critic_input(source), strength), "source"),
            (gradient_reversal(self.critic_input(target), strength), "target"),
        )
        if self.logging:
            correct = torch.cat([d_source > 0, d_target <= 0]).float().mean()
            self.log("critic/accuracy", correct)
            self.log("critic/reversal", strength)
        loss = domain_loss(
            d_source,
            d_target,
            self.hparams["environment_smoothing"],
            self.sample_weights(source, strength),
            self.sample_weights(target, strength),
        )
        return {"domain": self.hparams["trade_off"] * loss}
