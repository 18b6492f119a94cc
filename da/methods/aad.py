"""AaD: attracting and dispersing (Yang et al. 2022, NeurIPS, arXiv 2205.04183)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from da.errors import UserError, refuse_negative
from da.methods.base import Stage
from da.methods.source_free import SourceFree
from da.ops.schedules import annealing
from da.types import Activations, Batch, DataModule


def nearest_neighbours(features: Tensor, bank: Tensor, own: Tensor, number: int) -> Tensor:
    """The nearest features in a bank by cosine, ``(B, number)`` int64, the image itself left out.

    Args:
        features: ``(B, F)`` float, of unit length.
        bank: ``(N, F)`` float, of unit length; N is above ``number``.
        own: ``(B,)`` int64, the places of the features' own images in the bank.
        number: how many.
    """
    similarity = features @ bank.T
    similarity.scatter_(1, own[:, None], -torch.inf)
    return similarity.topk(number, dim=1).indices


def last_of_each(own: Tensor) -> Tensor:
    """For each sample the last one of the same image, ``(B,)`` int64.

    A batch that crosses into the next pass over the data may hold an image twice, and which of two
    values is written to one place is left open on a GPU.

    >>> last_of_each(torch.tensor([7, 3, 7, 5])).tolist()
    [2, 1, 2, 3]
    """
    same = own[:, None] == own
    return (same * torch.arange(len(own), device=own.device)).amax(dim=1)


def attraction_loss(probabilities: Tensor, of_neighbours: Tensor) -> Tensor:
    """-1/B Σ_i Σ_k p_i · q_ik, a scalar in [-k, 0]: predictions agree with those of neighbours.

    The first term of the objective of Yang et al. 2022. Their code writes it as a KL divergence,
    which differs by what has no gradient.

    Args:
        probabilities: ``(B, K)`` float, p.
        of_neighbours: ``(B, k, K)`` float, q; it takes no gradient.
    """
    return -(probabilities[:, None] * of_neighbours).sum(dim=(1, 2)).mean()


def dispersion_loss(probabilities: Tensor) -> Tensor:
    """1/B Σ_i Σ_{j≠i} p_i · p_j, a scalar in [0, B - 1]: predictions of a batch are different ones.

    The second term of the objective of Yang et al. 2022.

    Args:
        probabilities: ``(B, K)`` float, p; of one image there is nothing to disperse.
    """
    products = probabilities @ probabilities.T
    return (products.sum() - products.diagonal().sum()) / len(probabilities)


class AaD(SourceFree):
    """Predictions that agree with those of near features, and differ within the batch.

    Banks hold the features and the predictions of all target images: filled once, when adaptation
    begins, and replaced batch by batch as they come. All parts are trained, the classifier, too.
    Network, stages, and the baseline that belongs beside it: see
    :class:`~da.methods.source_free.SourceFree`.

    Target-only passes in training mode are AdaBN in disguise: compare with ``bn@target-stats`` of
    the source stage (or of SourceOnly in the same grid), and not with the source's statistics.

    Its losses are sums over neighbours and over the batch: a rate that trains a source from scratch
    makes it predict few classes, and ``adaptation_factor: 0.1`` is where to begin.

    Where this differs from the published code: the banks begin with images that are not augmented;
    an image is left out of its own neighbours by its place, where theirs leaves out the nearest.

    Args:
        neighbours: how many, the paper's K. The published commands use 5 for VisDA and 3 for
            Office-31 and Office-Home.
        dispersion: weight of the second term at the start, their alpha.
        dispersion_decay: their beta, the weight being dispersion · (1 + 10 · progress)^-beta. They
            use 5 for VisDA, 1 for Office-31, and 0, which is the default, for Office-Home.
            Without a ``dispersion`` there is nothing to decay.
    """

    memory: ClassVar = ("bank_features", "bank_predictions")
    bank_features: Tensor
    bank_predictions: Tensor
    small: ClassVar = {"neighbours": 2}

    def __init__(
        self,
        num_classes: int,
        neighbours: int = 5,
        dispersion: float = 1.0,
        dispersion_decay: float = 0.0,
        **kwargs: Any,
    ):
        if neighbours < 1:
            raise UserError(f"neighbours: expected a whole number from 1, got {neighbours}")
        refuse_negative(dispersion=dispersion, dispersion_decay=dispersion_decay)
        super().__init__(num_classes, **kwargs)

    def refuse_data(self, data: DataModule) -> None:
        """See :meth:`Method.refuse_data`; an image has fewer neighbours than there are images."""
        super().refuse_data(data)
        images, neighbours = len(data.set_of("target", "train")), self.hparams["neighbours"]
        if images <= neighbours and any(not stage.source for stage in self.stages()):
            raise UserError(
                f"neighbours: expected fewer than the {images} training images of the target, got "
                f"{neighbours}"
            )

    def start_stage(self, stage: Stage) -> None:
        """Fills the banks with what the source's network makes of the target."""
        super().start_stage(stage)
        if stage.source or self.stage_resumed:
            return
        seen = self.collect("target")
        self.remember(
            bank_features=F.normalize(seen.features, dim=1),
            bank_predictions=seen.logits.softmax(dim=1),
        )

    def source_free(self, target: Activations, batch: Batch) -> dict[str, Tensor]:
        """Attraction to neighbours in the bank, dispersion within the batch."""
        h, own = self.hparams, batch.target.indices
        p = target.logits.softmax(dim=1)
        z = F.normalize(target.features.detach().float(), dim=1)
        last = last_of_each(own)
        self.bank_features[own] = z[last]
        self.bank_predictions[own] = p.detach().float()[last]
        near = nearest_neighbours(z, self.bank_features, own, h["neighbours"])
        weight = h["dispersion"] * annealing(self.progress, 10.0, h["dispersion_decay"])
        terms = {"attraction": attraction_loss(p, self.bank_predictions[near])}
        if weight:
            terms["dispersion"] = weight * dispersion_loss(p)
        return terms
