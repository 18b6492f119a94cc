"""Mean teacher (Tarvainen, Valpola 2017) for domain adaptation (French et al. 2018)."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from da.errors import UserError, refuse_negative
from da.methods.base import Needs
from da.methods.pseudo_labels import confidence_mask
from da.methods.weight_averaging import AveragingMethod
from da.ops.acceleration import without_autocast
from da.types import Batch


def consistency_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """The squared difference of the predictions: mean over samples of m · 1/K Σ_k (p_k - q_k)².

    The samples that are masked out count in the mean (French et al. 2018, section 3.2).

    Args:
        student: ``(B, K)`` float, logits; p is their softmax.
        teacher: ``(B, K)`` float, logits; q is their softmax.
        mask: ``(B,)`` float, the weight m of each sample.
    """
    difference = student.softmax(dim=1) - teacher.softmax(dim=1)
    return (difference.square().mean(dim=1) * mask).mean()


def balance_loss(student: Tensor, mask: Tensor) -> Tensor:
    """The distance of the mean prediction p̄ from a uniform one (French et al. 2018, section 3.4).

    mean(m) · Σ_k -[1/K · log p̄_k + (1 - 1/K) · log(1 - p̄_k)], each logarithm of 1e-6 more, as in
    the authors' code.

    Args:
        student: ``(B, K)`` float, logits.
        mask: ``(B,)`` float.
    """
    mean = student.softmax(dim=1).mean(dim=0)
    share = 1.0 / len(mean)
    entropy = share * (mean + 1e-6).log() + (1.0 - share) * (1.0 - mean + 1e-6).log()
    return -entropy.sum() * mask.mean()


class MeanTeacher(AveragingMethod):
    """Predictions on a strong view of the target that agree with a teacher's on a weak view.

    The teacher is the average of all students so far. It is what is evaluated; it takes no
    gradient. It forwards the weak view of the target alone, in training mode as in both papers'
    code, so that its batch norms see the target's batch and no other. The student forwards the
    source and the strong view of the target: in one batch (``forward_mode`` joint, French et al.'s
    ``combine_batches``) or one after the other (separate, as they published).

    Args:
        trade_off: weight of the consistency.
        teacher_alpha: how much of the teacher an update keeps, see :func:`rate_of_average`.
        confidence: the consistency counts where the teacher's largest probability is above this;
            0 counts all, as the papers do where they ramp up instead.
        ramp_up: the share of the run within which the weight rises as exp(-5 (1 - p)²), p going
            from 0 to 1 (Tarvainen & Valpola 2017; French et al. 2018, section 3.2); 0 for none.
        class_balance: weight of the class balance, relative to the consistency; 0 leaves it out.
    """

    needs: ClassVar[Needs] = Needs(target_views=("weak", "strong"))

    def __init__(
        self,
        num_classes: int,
        trade_off: float = 3.0,
        teacher_alpha: float = 0.99,
        confidence: float = 0.968,
        ramp_up: float = 0.0,
        class_balance: float = 0.005,
        **kwargs: Any,
    ):
        refuse_negative(class_balance=class_balance)
        if not 0 <= teacher_alpha < 1:
            raise UserError(
                f"teacher_alpha: expected a number from 0 up to but not 1, got {teacher_alpha}"
            )
        if not 0 <= confidence < 1:
            raise UserError(
                f"confidence: expected a probability from 0 up to but not 1, got {confidence}"
            )
        if not 0 <= ramp_up <= 1:
            raise UserError(f"ramp_up: expected a share of the run from 0 to 1, got {ramp_up}")
        super().__init__(num_classes, **kwargs)

    @property
    def average_decay(self) -> float:
        """See :attr:`AveragingMethod.average_decay`."""
        alpha: float = self.hparams["teacher_alpha"]
        return alpha

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy on the source, consistency and class balance on the target."""
        assert batch.source is not None  # for the type checker: it has no stage without a source
        weak, strong = batch.target.views
        source, student = self.activations_of((batch.source.images, "source"), (strong, "target"))
        with torch.no_grad():
            teacher = self.teacher(weak, "target")
        with without_autocast(student.features):
            mask = confidence_mask(teacher.logits, self.hparams["confidence"])
            weight = self.hparams["trade_off"] * self.ramp
            terms = {"consistency": consistency_loss(student.logits, teacher.logits, mask)}
            if self.hparams["class_balance"]:
                terms["balance"] = self.hparams["class_balance"] * balance_loss(
                    student.logits, mask
                )
        if self.logging:
            self.log("teacher/confident", mask.mean())
        return {
            "task": self.task_loss(source, batch.source.labels),
            **{name: weight * loss for name, loss in terms.items()},
        }

    @property
    def ramp(self) -> float:
        """The factor on the target's losses at this point of the run, in (0, 1]."""
        length = self.hparams["ramp_up"]
        remaining = max(0.0, 1.0 - self.progress / length) if length else 0.0
        return math.exp(-5.0 * remaining**2)
