"""MixVal: whether mixtures of two target images are classified as the one that prevails."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from da.ops.seeding import derive_seed
from da.selection.base import Evidence, Score

SHARE = 0.55
"""Of the first image in a mixture: its class is the one that is expected."""

Kind = Literal["intra", "inter"]


class MixVal(Score):
    """Accuracy on mixtures, 0.55 x_a + 0.45 x_b, whose label is the predicted class of x_a.

    The mean over both kinds of pairs: images of the same predicted class probe the density of its
    cluster (intra), those of two classes the boundary between them (inter) (Hu et al. 2023,
    NeurIPS). Published code mixes each image with one at the mirrored place of its batch; here the
    images come in an order drawn from a seed and each is mixed with the one before, of the same
    class for intra, so that pairs don't depend on the size of a batch. A kind without any pair
    counts 0: where all images fall into one class there is no boundary.

    An evaluation forwards as many images again for either kind. Up to two images per class are
    held in memory.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("intra", "inter")

    def __call__(self, evidence: Evidence) -> float:
        """The score, in [0, 1]."""
        values = [interpolation_consistency(evidence, kind) for kind in self.kinds]
        return sum(values) / len(values)


class MixValIntra(MixVal):
    """MixVal of pairs of the same predicted class alone."""

    kinds: ClassVar[tuple[Kind, ...]] = ("intra",)


class MixValInter(MixVal):
    """MixVal of pairs of different predicted classes alone."""

    kinds: ClassVar[tuple[Kind, ...]] = ("inter",)


class Pair(NamedTuple):
    """An image ``(C, H, W)`` with its class, and the one that it is mixed with."""

    image: Tensor
    label: int
    other: Tensor


def interpolation_consistency(evidence: Evidence, kind: Kind) -> float:
    """The share of mixtures that the network puts into the class of their larger part.

    Args:
        evidence: with images and a network that looks at mixtures of them.
        kind: of the pairs.
    """
    labels = evidence.target.logits.argmax(dim=1)
    expected: list[int] = []

    def mixtures() -> Iterator[Tensor]:
        images = evidence.images(derive_seed(evidence.seed, "MixVal"))
        for pairs in pairs_by_batch(images, labels, kind):
            if pairs:
                expected.extend(pair.label for pair in pairs)
                yield torch.stack([SHARE * p.image + (1 - SHARE) * p.other for p in pairs])

    batches = mixtures()
    first = next(batches, None)
    if first is None:
        return 0.0
    logits = evidence.logits(chain([first], batches))
    return float((logits.argmax(dim=1) == torch.tensor(expected)).double().mean())


def pairs_by_batch(
    batches: Iterable[tuple[Tensor, Tensor]], labels: Tensor, kind: Kind
) -> Iterator[list[Pair]]:
    """Each image with the one before it, the first with the last; a list per batch, then the rest.

    Args:
        batches: images ``(B, C, H, W)`` and their positions ``(B,)`` int64 among the labels.
        labels: ``(N,)`` int64, the predicted classes.
        kind: ``intra`` pairs within a class, each of which is a ring of its own; ``inter`` within
            all images, and leaves out pairs of one class.
    """
    first: dict[int, tuple[Tensor, int]] = {}
    last: dict[int, tuple[Tensor, int]] = {}
    for images, positions in batches:
        pairs = []
        for image, label in zip(images, labels[positions].tolist(), strict=True):
            ring = label if kind == "intra" else 0
            if ring in last:
                other, of_class = last[ring]
                if kind == "intra" or of_class != label:
                    pairs.append(Pair(image, label, other))
            last[ring] = (image.clone(), label)  # the rest of its batch need not stay in memory
            first.setdefault(ring, last[ring])
        yield pairs
    yield [
        Pair(image, label, last[ring][0])
        for ring, (image, label) in first.items()
        if last[ring][0] is not image and (kind == "intra" or last[ring][1] != label)
    ]
