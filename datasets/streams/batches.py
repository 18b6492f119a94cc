"""Which samples make up which batch: pure functions of a key and the number of the step.

A stream is endless: it passes over its samples again and again, in a new order on every pass
(cycle). Position p of a stream is sample p % B of step p // B. Nothing is remembered between steps,
so a resumed run, any number of workers and every normaliser of a grid see the same batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from da.ops.seeding import derive_seed, permutation, uniforms
from da.types import Batch, Labelled, Unlabelled, View

from ..files.image_sets import Images, ImageSet, Joined
from .augmentation import Transform

_order = lru_cache(maxsize=128)(permutation)


class Picks(NamedTuple):
    """Samples of one batch.

    Attributes:
        cycles: ``(B,)`` int64, the pass over the data that each is drawn in.
        indices: ``(B,)`` int64.
    """

    cycles: NDArray[np.int64]
    indices: NDArray[np.int64]


def pick_shuffled(key: int, positions: NDArray[np.int64], n: int) -> Picks:
    """Each sample exactly once per cycle of ``n``, reshuffled every cycle.

    Args:
        key: seed of the stream.
        positions: ``(B,)`` int64, in the endless stream.
        n: number of samples.
    """
    cycles, offsets = np.divmod(positions, n)
    # One order serves a batch, two where it crosses from one cycle into the next.
    orders = {cycle: _order(key, cycle, n) for cycle in sorted(set(cycles.tolist()))}
    pairs = zip(cycles.tolist(), offsets.tolist(), strict=True)
    return Picks(cycles, np.array([orders[cycle][offset] for cycle, offset in pairs]))


def pick_balanced(key: int, positions: NDArray[np.int64], members: Sequence[NDArray]) -> Picks:
    """Each class exactly once in every K positions, in random order; each class has its own cycles.

    Args:
        key: seed of the stream.
        positions: ``(B,)`` int64, in the endless stream.
        members: for each of K classes the indices of its samples, int64, none empty.
    """
    blocks, places = np.divmod(positions, len(members))
    cycles, indices = np.empty_like(positions), np.empty_like(positions)
    for row, (block, place) in enumerate(zip(blocks.tolist(), places.tolist(), strict=True)):
        label = int(_order(derive_seed(key, "classes"), block, len(members))[place])
        cycle, offset = divmod(block, len(members[label]))
        cycles[row] = cycle
        order = _order(derive_seed(key, "class", label), cycle, len(members[label]))
        indices[row] = members[label][order[offset]]
    return Picks(cycles, indices)


def choose_fixed_subset(
    indices: NDArray[np.int64], domain: str, most: int | None
) -> NDArray[np.int64]:
    """At most so many of the indices, sorted; they depend on the domain, and on no choice of a run.

    Args:
        indices: ``(N,)`` int64.
        domain: its name.
        most: how many; None for all.
    """
    order = permutation(derive_seed(0, domain, "evaluation"), 0, len(indices))
    return np.sort(indices[order[:most]])


class Stream:
    """An endless sequence of training batches of one domain, addressed by step.

    Args:
        data: what to draw from.
        transform: how images are augmented and normalised.
        key: seed of the stream; the order and the augmentation derive from it.
        batch_size: samples per step.
        balance: draw every class equally often (needs every class in ``data``). Several domains
            that are joined are drawn equally often in any case.
        augment: augment the images.
    """

    def __init__(
        self,
        data: ImageSet,
        transform: Transform,
        key: int,
        batch_size: int,
        balance: bool = False,
        augment: bool = True,
    ) -> None:
        self.data = data
        self.transform = transform
        self.key = key
        self.augmentation_key = derive_seed(key, "augmentation")
        self.batch_size = batch_size
        self.augment = augment
        self.members = _groups(data, balance)

    def picks(self, step: int) -> Picks:
        """The samples of a step."""
        positions = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        if self.members is not None:
            return pick_balanced(self.key, positions, self.members)
        return pick_shuffled(self.key, positions, len(self.data))

    def views(self, picks: Picks, names: Sequence[View]) -> tuple[torch.Tensor, ...]:
        """Views of these samples, each ``(B, C, H, W)``, still to be finished.

        The numbers of a view depend on its name and on how often the name came before: what one
        method sees as its first weak view, all do.
        """
        images = self.data.images(picks.indices)
        return tuple(
            self._view(images, picks, name, list(names[:i]).count(name))
            for i, name in enumerate(names)
        )

    def _view(self, images: Images, picks: Picks, name: View, repeat: int) -> torch.Tensor:
        if not self.augment or name == "plain":
            return self.transform.prepare(images)
        first = name == "weak" and not repeat
        key = self.augmentation_key if first else derive_seed(self.augmentation_key, name, repeat)
        if name == "weak":
            return self.transform.augment(images, uniforms(key, *picks, self.transform.draws))
        draws = uniforms(key, *picks, self.transform.strong_draws)
        return self.transform.augment_strongly(images, draws)


def _groups(data: ImageSet, balance: bool) -> list[NDArray[np.int64]] | None:
    """What is drawn equally often: classes, joined domains, or both at once; None where nothing."""
    joined = isinstance(data, Joined)
    if not (balance or joined):
        return None
    kinds = data.labels if balance else np.zeros(len(data), np.int64)
    if isinstance(data, Joined):
        kinds = kinds + data.origins * len(data.classes)
    return [np.flatnonzero(kinds == kind) for kind in np.unique(kinds)]


class Pairs(Dataset[Batch]):
    """Training batches of two streams, their images to be finished; item k is step k of the run.

    The labels of the target stop here: nothing of them is put into a batch.
    """

    def __init__(
        self, source: tuple[Stream, Sequence[View]], target: tuple[Stream, Sequence[View]]
    ) -> None:
        self.source, self.source_views = source
        self.target, self.target_views = target

    def __getitem__(self, step: int) -> Batch:
        picks = self.source.picks(step)
        index = torch.from_numpy(picks.indices)
        labels = torch.from_numpy(self.source.data.labels[picks.indices])
        source = Labelled(self.source.views(picks, self.source_views), labels, index)
        picks = self.target.picks(step)
        index = torch.from_numpy(picks.indices)
        return Batch(source, Unlabelled(self.target.views(picks, self.target_views), index))


class Steps(Sampler[int]):
    """The numbers of the steps of one epoch, counted from the start of the run.

    Args:
        length: steps per epoch.
        first: says how many steps of the run are done; asked at the start of every epoch.
        begun: called once, when the first step of all is asked for: workers are running then.
    """

    def __init__(
        self, length: int, first: Callable[[], int], begun: Callable[[], object] | None = None
    ) -> None:
        self.length = length
        self.first = first
        self.begun = begun

    def __iter__(self) -> Iterator[int]:
        first = self.first()
        return self._steps(range(first, first + self.length))

    def _steps(self, steps: range) -> Iterator[int]:
        if self.begun is not None:
            self.begun()
            self.begun = None
        yield from steps

    def __len__(self) -> int:
        return self.length


class Chunks(Dataset[Labelled]):
    """Evaluation batches of a set, in its own order or another; only the last may be smaller.

    As all batches here they are finished by the loader, see :meth:`Transform.finish`.
    """

    def __init__(
        self,
        data: ImageSet,
        transform: Transform,
        batch_size: int,
        order: NDArray[np.int64] | None = None,
    ) -> None:
        self.data = data
        self.transform = transform
        self.batch_size = batch_size
        self.order = order

    def __len__(self) -> int:
        return -(-len(self.data) // self.batch_size)

    def indices(self, item: int) -> NDArray[np.int64]:
        """The samples of a batch, ``(B,)`` int64."""
        if not 0 <= item < len(self):
            raise IndexError(item)
        first = item * self.batch_size
        indices = np.arange(first, min(first + self.batch_size, len(self.data)))
        return indices if self.order is None else self.order[indices]

    def __getitem__(self, item: int) -> Labelled:
        indices = self.indices(item)
        images = self.transform.prepare(self.data.images(indices))
        labels = torch.from_numpy(self.data.labels[indices])
        return Labelled((images,), labels, torch.from_numpy(indices))


class ImageChunks(Chunks):
    """As :class:`Chunks`, images alone."""

    def __getitem__(self, item: int) -> torch.Tensor:  # type: ignore[override]
        return self.transform.prepare(self.data.images(self.indices(item)))
