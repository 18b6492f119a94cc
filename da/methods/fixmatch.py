"""FixMatch (Sohn et al. 2020, NeurIPS, arXiv 2001.07685), used for domain adaptation."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from da.errors import UserError
from da.methods.base import Method, Needs
from da.methods.pseudo_labels import confidence_mask, pseudo_label_loss
from da.ops.acceleration import without_autocast
from da.types import Batch


class FixMatch(Method):
    """The strong view of a target image learns what the network is sure of in its weak view.

    L_s + trade_off · 1/B Σ_b 1(max q_b > threshold) · H(argmax q_b, p(y | strong view of b)), where
    q_b is the prediction on the weak view (Sohn et al. 2020, eq. 3 and 4). The source is the
    labelled set, in its weak view, and the target the unlabelled one, as in the
    Transfer-Learning-Library, whose defaults these are; the paper's threshold is 0.95.

    With ``forward_mode`` joint the source and both views of the target are one batch, as in the
    paper's code; separate makes three passes, weak view, source and strong view, as the
    Transfer-Learning-Library does: with batch norm each view is normalised by itself.

    Where this differs from what is published: there are as many target images in a batch as
    source images, since data have one ``batch_size``, from which the lengths of runs are
    computed, too. The Transfer-Learning-Library draws three times as many for Office-31 and twice
    as many for VisDA, the paper seven times. The losses take any sizes.

    Args:
        trade_off: weight of the loss on the target.
        threshold: a pseudo-label counts where its probability is above this; 0 counts all. The
            Transfer-Learning-Library uses 0.9, and 0.8 for VisDA.
    """

    needs: ClassVar[Needs] = Needs(target_views=("weak", "strong"))

    def __init__(
        self, num_classes: int, trade_off: float = 1.0, threshold: float = 0.9, **kwargs: Any
    ):
        if not 0 <= threshold < 1:
            raise UserError(
                f"threshold: expected a probability from 0 up to but not 1, got {threshold}"
            )
        super().__init__(num_classes, **kwargs)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy on the source, and with the pseudo-labels on the target's strong view."""
        assert batch.source is not None  # for the type checker: it has no stage without a source
        weak_view, strong_view = batch.target.views
        weak, source, strong = self.activations_of(
            (weak_view, "target"), (batch.source.images, "source"), (strong_view, "target")
        )
        with without_autocast(source.features):
            teacher = weak.logits.detach()
            mask = confidence_mask(teacher, self.hparams["threshold"])
            loss = pseudo_label_loss(strong.logits, teacher.argmax(dim=1), mask)
        if self.logging:
            self.log("pseudo_labels/confident", mask.mean())
        return {
            "task": self.task_loss(source, batch.source.labels),
            "pseudo_labels": self.hparams["trade_off"] * loss,
        }
