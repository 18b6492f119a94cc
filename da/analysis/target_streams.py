"""Streams of target images: few, mixed with other domains, or in an order that labels decide.

Orders and draws depend on names and numbers alone, so every normaliser sees the same images in the
same order. Labels of the target make an order and score predictions; no network sees them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from da.ops.seeding import derive_seed, permutation
from da.types import DataModule, Images, ImageTransform, Labelled, Role, Split

Indices = NDArray[np.int64]

NOT_SCORED = -1
"""The label of images in a stream that are not of the target."""


def order_by_class(labels: Indices, key: int) -> Indices:
    """One class after another, the classes and the images of each in an order by chance.

    Args:
        labels: ``(N,)`` int64.
        key: seed of the order.
    """
    shuffled = permutation(key, 0, len(labels))
    place = permutation(derive_seed(key, "classes"), 0, int(labels.max()) + 1)
    return shuffled[np.argsort(place[labels[shuffled]], kind="stable")]


def order_by_dirichlet(labels: Indices, concentration: float, key: int) -> Indices:
    """An order in which the mix of classes changes over time, as in NOTE (Gong et al. 2022).

    Time has as many slots as there are classes. The images of each class are dealt out to the
    slots in shares drawn from a symmetric Dirichlet distribution; within a slot their order is by
    chance. A small concentration puts a class into few slots, a large one into all.

    Args:
        labels: ``(N,)`` int64.
        concentration: of the Dirichlet distribution, above 0.
        key: seed of the order.
    """
    generator = np.random.Generator(np.random.Philox(key=[key, 0]))
    classes = np.unique(labels)
    slots: list[list[Indices]] = [[] for _ in classes]
    for label in classes:
        members = generator.permutation(np.flatnonzero(labels == label))
        shares = generator.dirichlet(np.full(len(classes), concentration))
        ends = np.round(np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
        for slot, part in zip(slots, np.split(members, ends), strict=True):
            slot.append(part)
    return np.concatenate([generator.permutation(np.concatenate(slot)) for slot in slots])


def order_of(value: str, labels: Indices, key: int) -> Indices:
    """The order that a study calls ``iid``, ``sorted``, or by a concentration, ``"0.1"``."""
    if value == "iid":
        return permutation(key, 0, len(labels))
    if value == "sorted":
        return order_by_class(labels, key)
    return order_by_dirichlet(labels, float(value), key)


@dataclass(frozen=True)
class LoadedImages:
    """Images of one domain in memory, as they were read: hundreds of passes want them.

    Attributes:
        images: all of them, see :data:`da.types.Images`.
        labels: ``(N,)`` int64.
        transform: makes of them what the network sees.
    """

    images: Images
    labels: Indices
    transform: ImageTransform

    @classmethod
    def of(
        cls, data: DataModule, role: Role, split: Split, most: int | None = None
    ) -> LoadedImages:
        """Those of one split of a domain, at most so many: chosen by the domain's name."""
        images = data.set_of(role, split)
        key = derive_seed("target statistics", data.domain_of(role), split)
        chosen = np.sort(permutation(key, 0, len(images))[:most])
        return cls(images.images(chosen), images.labels[chosen], data.transform)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Indices) -> Tensor:
        """Those at the indices ``(B,)``, ``(B, C, H, W)`` float32, not augmented."""
        if isinstance(self.images, Tensor):
            return self.transform.evaluate(self.images[torch.from_numpy(indices)])
        return self.transform.evaluate([self.images[i] for i in indices])


def pick_endlessly(key: int, n: int, count: int) -> Indices:
    """``count`` of ``n`` images by chance, ``(count,)`` int64; anew from all when none is left."""
    cycles = [permutation(key, cycle, n) for cycle in range(-(-count // n))]
    return np.concatenate([*cycles, np.empty(0, np.int64)])[:count]


@dataclass(frozen=True)
class Mixture:
    """Images of one or several domains, in equal parts, in an endless order by chance.

    Attributes:
        domains: at least one.
        key: seed of the order.
    """

    domains: Sequence[LoadedImages]
    key: int

    @property
    def available(self) -> int:
        """How many there are without one twice, in equal parts."""
        return min(map(len, self.domains)) * len(self.domains)

    def part(self, first: int, count: int) -> list[Tensor]:
        """The ``count`` images from the place ``first`` on, batches of each domain."""
        number = len(self.domains)
        batches = []
        for k, domain in enumerate(self.domains):
            # Place p is of domain p % number: this one's own count before, and after.
            before, after = ((p - k + number - 1) // number for p in (first, first + count))
            if after > before:
                picks = pick_endlessly(derive_seed(self.key, k), len(domain), after)
                batches.append(domain.batch(picks[before:]))
        return batches


def split_batch(size: int, share: float) -> tuple[int, int]:
    """How many images of a batch are of the target, at least one, and how many are not.

    >>> split_batch(32, 0.25), split_batch(2, 0.9)
    ((24, 8), (1, 1))
    """
    others = min(size - 1, round(share * size))
    return size - others, others


def stream(
    target: LoadedImages,
    order: Indices,
    batch_size: int,
    mixture: Mixture | None = None,
    share: float = 0.0,
) -> Iterator[Labelled]:
    """The target's images in an order, each batch with its share of others behind them.

    Args:
        target: what is predicted and scored.
        order: ``(N,)`` int64, of the target's images.
        batch_size: images of a batch; of the last one the same share is of others.
        mixture: the others.
        share: of others in a batch. Their label is ``NOT_SCORED``, and their index too.
    """
    own, others = split_batch(batch_size, share if mixture else 0.0)
    for number, start in enumerate(range(0, len(order), own)):
        indices = order[start : start + own]
        images = target.batch(indices)
        labels = torch.from_numpy(target.labels[indices])
        index = torch.from_numpy(indices)
        if mixture is not None and others:
            count = max(1, round(others * len(indices) / own))
            images = torch.cat([images, *mixture.part(number * others, count)])
            unscored = torch.full((count,), NOT_SCORED)
            labels, index = torch.cat([labels, unscored]), torch.cat([index, unscored])
        yield Labelled((images,), labels, index)
