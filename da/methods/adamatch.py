"""AdaMatch (Berthelot et al. 2022, ICLR, arXiv 2106.04732)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from da.errors import UserError
from da.methods.base import Needs
from da.methods.pseudo_labels import pseudo_label_loss
from da.methods.updates import frozen_statistics
from da.methods.weight_averaging import AveragingMethod
from da.norms.weight_align.sharing import aligned_once
from da.ops.acceleration import without_autocast
from da.ops.schedules import cosine_ramp
from da.types import Activations, Batch


def interpolate_logits(joint: Tensor, alone: Tensor, shares: Tensor) -> Tensor:
    """z2 + u · (z1 - z2), each logit between its two values; ``(B, K)`` float.

    Args:
        joint: ``(B, K)`` float, logits z2 of the source in the batch of both domains.
        alone: ``(B, K)`` float, logits z1 of the same images in a batch of the source.
        shares: ``(B, K)`` float, u in [0, 1).
    """
    return joint + shares * (alone - joint)


def align_distribution(predictions: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """normalise(q · E[p_source] / E[p_target]): ``(B, K)`` float, each row sums to 1.

    1e-6 is added to both expectations, as in the authors' code: a class that is never predicted
    makes no division by 0.

    Args:
        predictions: ``(B, K)`` float, probabilities q of the target.
        source: ``(K,)`` float, the mean prediction on the source.
        target: ``(K,)`` float, the mean prediction on the target.
    """
    aligned = predictions * ((source + 1e-6) / (target + 1e-6))
    return aligned / aligned.sum(dim=1, keepdim=True)


class AdaMatch(AveragingMethod):
    """Pseudo-labels of the target, and source logits between those alone and beside the target.

    The source's logits are computed twice, alone (z1) and in the batch of both domains (z2), and
    are trained at a random place between: z = z2 + u · (z1 - z2), u uniform in [0, 1) for each
    logit. With batch norm they differ since the target is part of the batch's statistics. With
    WeightAlign in all parts z1 = z2 to rounding, and the interpolation does nothing. The mean of
    (z2 - z1)² is logged as ``batch_dependence``; dropout, which draws anew, would add to it. Only
    the batch of both moves running statistics. (The authors' ``losses/hregbn`` is taken after the
    interpolation, and so a third of it on average.)

    The loss is that of weak and strong views of the source, by halves, and mu(t) · trade_off times
    that of the target's strong view with the pseudo-labels of its weak view. These are the
    target's predictions q · E[p_source] / E[p_target], normalised, where they are as sure as
    threshold times the mean confidence on the source's weak view in this batch. As in the authors'
    code E[p_source] is an exponential average and E[p_target] the mean of the last batches, both
    from a uniform start; with ``source_decay`` 0 and ``target_window`` 1 they are those of the
    batch.

    With ``forward_mode`` separate each domain is one pass, both views together. No batch of both
    domains is left then, z2 = z1, nothing is interpolated and no ``batch_dependence`` is logged:
    AdaMatch without its random logit interpolation, which with WeightAlign is the same.

    Where this differs from the authors' code: the average of the weights begins as the true
    average of all so far, where theirs begins at 0 (at the pretrained weights, if any), which
    makes no difference in runs as long as theirs; and there are as many target images in a batch
    as source images, where theirs has three times as many, since data have one ``batch_size``,
    from which the lengths of runs are computed, too. The losses take any sizes.

    Args:
        trade_off: weight of the loss on the target.
        threshold: the confidence from which a pseudo-label counts, as a share of the mean
            confidence on the source (the paper's tau); 0 counts all.
        ramp_up: the share of the run within which mu rises from 0 to 1, half a cosine; 0 for none.
        ema_decay: how much of the average of the weights, which is what is evaluated, an update
            keeps; 0 evaluates the trained network itself.
        source_decay: how much of the mean prediction on the source a batch keeps.
        target_window: batches of which the mean prediction on the target is the mean.
    """

    needs: ClassVar[Needs] = Needs(source_views=("weak", "strong"), target_views=("weak", "strong"))
    source_mean: Tensor
    target_means: Tensor

    def __init__(
        self,
        num_classes: int,
        trade_off: float = 1.0,
        threshold: float = 0.9,
        ramp_up: float = 0.5,
        ema_decay: float = 0.999,
        source_decay: float = 0.999,
        target_window: int = 128,
        **kwargs: Any,
    ):
        for option, share in (("threshold", threshold), ("ramp_up", ramp_up)):
            if not 0 <= share <= 1:
                raise UserError(f"{option}: expected a share from 0 to 1, got {share}")
        for option, decay in (("ema_decay", ema_decay), ("source_decay", source_decay)):
            if not 0 <= decay < 1:
                raise UserError(f"{option}: expected a number from 0 up to but not 1, got {decay}")
        if target_window < 1:
            raise UserError(f"target_window: expected a whole number from 1, got {target_window}")
        super().__init__(num_classes, **kwargs)

    def build(self) -> None:
        """Makes the average of the weights, and the mean predictions on both domains."""
        super().build()
        classes = self.hparams["num_classes"]
        uniform = torch.full((classes,), 1.0 / classes)
        self.register_buffer("source_mean", uniform)
        self.register_buffer("target_means", uniform.repeat(self.hparams["target_window"], 1))

    @property
    def average_decay(self) -> float:
        """See :attr:`AveragingMethod.average_decay`."""
        decay: float = self.hparams["ema_decay"]
        return decay

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy on both views of the source, and with pseudo-labels on the target."""
        assert batch.source is not None  # for the type checker: it has no stage without a source
        source, target = self._forward(torch.cat(batch.source.views), torch.cat(batch.target.views))
        source_weak = source.logits.detach()[: len(batch.source.labels)]
        target_weak, target_strong = target.logits.chunk(2)
        with without_autocast(source.features):
            labels, mask = self.pseudo_labels(source_weak, target_weak.detach())
            loss = pseudo_label_loss(target_strong, labels, mask)
        weight = self.hparams["trade_off"] * cosine_ramp(self.progress, self.hparams["ramp_up"])
        return {
            "task": self.task_loss(source, batch.source.labels.repeat(2)),
            "pseudo_labels": weight * loss,
        }

    def _forward(self, source_images: Tensor, target_images: Tensor) -> list[Activations]:
        """Activations of both domains, the source's logits interpolated where they are joint."""
        groups = (source_images, "source"), (target_images, "target")
        if self.hparams["forward_mode"] == "separate":
            return self.activations_of(*groups)
        with aligned_once(self.network):
            with frozen_statistics(self.network):
                alone = self.network(source_images, "source").logits
            source, target = self.activations_of(*groups)
        with without_autocast(source.features):
            joint = source.logits
            if self.logging:
                self.log("batch_dependence", (joint - alone).detach().square().mean())
            logits = interpolate_logits(joint, alone, torch.rand_like(joint))
        return [source._replace(logits=logits), target]

    @torch.no_grad()
    def pseudo_labels(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Labels ``(B,)`` int64 of the target, and where they are sure: ``(B,)`` float, 0 or 1.

        The mean predictions move on by this batch first.

        Args:
            source: ``(S, K)`` float, logits of the source's weak view.
            target: ``(B, K)`` float, logits of the target's weak view.
        """
        p, q = source.softmax(dim=1), target.softmax(dim=1)
        self.source_mean.lerp_(p.mean(dim=0), 1.0 - self.hparams["source_decay"])
        self.target_means.copy_(torch.cat([self.target_means[1:], q.mean(dim=0, keepdim=True)]))
        aligned = align_distribution(q, self.source_mean, self.target_means.mean(dim=0))
        confidence, labels = aligned.max(dim=1)
        threshold = self.hparams["threshold"] * p.amax(dim=1).mean()
        mask = (confidence >= threshold).to(q.dtype)
        if self.logging:
            self.log("pseudo_labels/threshold", threshold)
            self.log("pseudo_labels/confident", mask.mean())
        return labels, mask
