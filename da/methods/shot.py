"""SHOT: source hypothesis transfer (Liang, Hu, Feng 2020, ICML, arXiv 2002.08546)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from da.errors import refuse_negative
from da.methods.base import Stage
from da.methods.entropy_minimisation import entropy_loss
from da.methods.source_free import SourceFree
from da.types import Activations, Batch

ROUNDS = 2


@torch.no_grad()
def centroid_labels(features: Tensor, logits: Tensor) -> Tensor:
    """Pseudo-labels ``(N,)`` int64: the class whose centroid is nearest by cosine.

    Weighted k-means of the whole target (Liang et al. 2020, section 3.3). The centroid of a class
    is the mean of all features, weighted by the probabilities of that class; from the labels that
    this gives the centroids are made once more, and the labels. As in the authors' code
    (``obtain_label``), features are of unit length after a 1 is appended to them, and a class that
    no image was given to before has no centroid, where the paper gives it one.

    Args:
        features: ``(N, F)`` float.
        logits: ``(N, K)`` float.
    """
    z = F.normalize(F.pad(features, (0, 1), value=1.0), dim=1)
    weights = logits.softmax(dim=1)
    labels = weights.argmax(dim=1)
    for _ in range(ROUNDS):
        # The cosine leaves out how long a centroid is, and so the sum of its weights.
        similarity = z @ F.normalize(weights.T @ z, dim=1).T
        unused = torch.bincount(labels, minlength=logits.shape[1]) == 0
        labels = similarity.masked_fill(unused, -torch.inf).argmax(dim=1)
        weights = F.one_hot(labels, logits.shape[1]).to(z)
    return labels


class SHOT(SourceFree):
    """Sure and diverse predictions under the source's frozen classifier, and pseudo-labels.

    After the source stage the classifier stays as it is. Backbone and bottleneck maximise the
    information of the target's predictions, H(Y) - H(Y|X), and learn pseudo-labels that each epoch
    makes anew of the whole target, from centroids of its features. Network, stages, and the
    baseline that belongs beside it: see :class:`~da.methods.source_free.SourceFree`.

    Target-only passes in training mode are AdaBN in disguise: compare with ``bn@target-stats`` of
    the source stage (or of SourceOnly in the same grid), and not with the source's statistics.

    Where this differs from the published code: an epoch is ``steps_per_epoch`` batches and no pass
    over the target; on VisDA they leave pseudo-labels out of the first epoch; their bottleneck for
    digits has dropout; their initial weights are other ones. The rates are those of both stages
    (published: 0.01 for the heads, 0.001 on VisDA, a tenth of it for a pretrained backbone).

    Args:
        pseudo_labels: weight of the cross-entropy with pseudo-labels. The paper uses 0.3, and 0.1
            for digits; 0 makes none (SHOT-IM).
    """

    own_scores: ClassVar = ("InformationMaximisation",)

    memory: ClassVar = ("labels_of_target", "labelled_epoch")
    labels_of_target: Tensor
    labelled_epoch: Tensor

    def __init__(self, num_classes: int, pseudo_labels: float = 0.3, **kwargs: Any):
        refuse_negative(pseudo_labels=pseudo_labels)
        super().__init__(num_classes, **kwargs)

    def start_stage(self, stage: Stage) -> None:
        """Freezes the classifier once the source has trained it."""
        super().start_stage(stage)
        self.network.classifier.requires_grad_(stage.source)

    def start_epoch(self) -> None:
        """Makes the pseudo-labels, unless a run goes on within the epoch that made them."""
        if self.stage.source or not self.hparams["pseudo_labels"]:
            return
        epoch = torch.tensor([self.current_epoch])
        if not torch.equal(self.labelled_epoch.cpu(), epoch):
            seen = self.collect("target")
            labels = centroid_labels(seen.features, seen.logits)
            self.remember(labels_of_target=labels, labelled_epoch=epoch)

    def source_free(self, target: Activations, batch: Batch) -> dict[str, Tensor]:
        """-I(X; Y) of the predictions, and the cross-entropy with the pseudo-labels."""
        terms = {"negative_information": entropy_loss(target.logits)}
        if weight := self.hparams["pseudo_labels"]:
            labels = self.labels_of_target[batch.target.indices]
            terms["pseudo_labels"] = weight * F.cross_entropy(target.logits, labels)
        return terms
