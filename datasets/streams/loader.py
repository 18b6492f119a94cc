"""Loaders whose items are whole batches, made by processes and finished by the one that trains."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from .augmentation import Transform


class Loader(DataLoader[Any]):
    """Batches of a data set whose items are batches; nothing is taken from torch's global state.

    Args:
        dataset: its images are as :meth:`Transform.augment` or :meth:`Transform.prepare` leave
            them.
        transform: finishes them.
        seed: of whatever torch draws.
        device: where to; on the CPU where not given.
        kwargs: of torch's loader.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        transform: Transform,
        sampler: Sampler[int] | None = None,
        seed: int = 0,
        device: torch.device | None = None,
        **kwargs: Any,
    ) -> None:
        options: dict[str, Any] = {
            "batch_size": None,
            "collate_fn": _as_it_is,
            "worker_init_fn": _begin,
            "generator": torch.Generator().manual_seed(seed),
        }
        super().__init__(dataset, sampler=sampler, **options | kwargs)
        self.transform = transform
        self.seed = seed
        self.device = device

    def __iter__(self) -> Any:
        memory = Memory()

        def finish(images: Tensor) -> Tensor:
            if self.device is not None:
                images = images.to(self.device, non_blocking=True)
            return self.transform.finish(images, memory)

        return (finish_batch(batch, finish) for batch in super().__iter__())


def finish_batch(batch: Any, finish: Callable[[Tensor], Tensor]) -> Any:
    """A batch whose images, all that has four dimensions, have gone through a function."""
    if isinstance(batch, Tensor):
        return finish(batch) if batch.ndim == 4 else batch
    if not isinstance(batch, tuple):
        return batch
    parts = [finish_batch(part, finish) for part in batch]
    return type(batch)(*parts) if hasattr(batch, "_fields") else tuple(parts)


class Memory:
    """Memory of batches, given out again once nothing refers to what it was given out as.

    The system hands fresh memory over page by page, which takes longer than filling it.

    Args:
        most: pieces that are kept; who holds more batches than that gets fresh memory.
    """

    def __init__(self, most: int = 8) -> None:
        self.most = most
        self._given: list[tuple[NDArray[np.float32], weakref.ref[NDArray[np.float32]]]] = []

    def __call__(self, *shape: int) -> Tensor:
        """Float32 of any content."""
        for i, (array, taken) in enumerate(self._given):
            if taken() is None and array.shape == shape:
                return self._give(i, array)
        self._given = self._given[: self.most - 1]
        return self._give(len(self._given), np.empty(shape, np.float32))

    def _give(self, i: int, array: NDArray[np.float32]) -> Tensor:
        view = array.view()  # of a tensor that stands for it, the storage keeps it alive
        self._given[i : i + 1] = [(array, weakref.ref(view))]
        return torch.from_numpy(view)


def _as_it_is(item: Any) -> Any:
    return item


def _begin(worker: int) -> None:
    """Leaves to the parent what a worker has from it.

    A collection would write to every such object, and so copy the memory that both share.
    """
    gc.freeze()
