"""Sets of labelled images, in memory or in files, behind one small interface."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from da.errors import UserError
from da.types import Images

from .content_hashes import content_hashes, digest
from .decoder_complaints import describe_damage, read_with_complaints
from .decoding import Reading
from .domain_checks import name_differences
from .shared_flags import SharedFlags

log = logging.getLogger(__name__)


class ImageSet(ABC):
    """Labelled images of one domain and one split.

    Attributes:
        labels: ``(N,)`` int64, positions in ``classes``.
        classes: names in the order of the labels.
    """

    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    _fingerprint: str | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def images(self, indices: NDArray[np.int64]) -> Images:
        """The images at ``(B,)`` int64 indices; a list where sizes differ."""

    def names(self, indices: NDArray[np.int64]) -> list[str]:
        """What people call the images at ``(B,)`` int64 indices: files, or positions in the set."""
        return [str(i) for i in indices]

    def fingerprint(self) -> str:
        """A SHA-256 of what the set holds, 64 hexadecimal digits; computed once.

        It is that of the first time that it was asked for, as a run that has begun records it:
        files that change later are another set, which a process that starts then reads.
        """
        if self._fingerprint is None:
            self._fingerprint = self.compute_fingerprint()
        return self._fingerprint

    @abstractmethod
    def compute_fingerprint(self) -> str:
        """See :meth:`fingerprint`; computed anew."""


class ArrayImages(ImageSet):
    """Images in memory.

    Args:
        images: ``(N, C, H, W)`` uint8.
        labels: ``(N,)`` int64.
        classes: names in the order of the labels.
    """

    def __init__(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64], classes: Sequence[str]
    ) -> None:
        self.array = torch.from_numpy(images)
        self.labels = labels
        self.classes = tuple(classes)

    def images(self, indices: NDArray[np.int64]) -> Tensor:
        """See :meth:`ImageSet.images`."""
        return self.array.index_select(0, torch.from_numpy(indices))

    def compute_fingerprint(self) -> str:
        """Of the class names, the labels and every pixel."""
        return digest(self.classes, self.labels, self.array.numpy())


class FileImages(ImageSet):
    """Images in files, decoded when asked for.

    Args:
        root: folder that the paths are relative to.
        paths: of N files.
        labels: ``(N,)`` int64.
        classes: names in the order of the labels.
        reading: how they are decoded and resized.
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        labels: NDArray[np.int64],
        classes: Sequence[str],
        reading: Reading,
    ) -> None:
        self.root = root
        self.paths = tuple(paths)
        self.labels = labels
        self.classes = tuple(classes)
        self.reading = reading
        self._damage_said = SharedFlags(len(self.paths))

    def images(self, indices: NDArray[np.int64]) -> Images:
        """See :meth:`ImageSet.images`; C is 3. Says once of each file that it is damaged inside."""
        return [torch.from_numpy(self._image(int(i))) for i in indices]

    def _image(self, i: int) -> NDArray[np.uint8]:
        path = self.root / self.paths[i]
        pixels, complaint = read_with_complaints(path, self.reading)
        if complaint and self._damage_said.set_first(i):
            log.warning("%s", describe_damage(path, complaint))
        return pixels

    def names(self, indices: NDArray[np.int64]) -> list[str]:
        """The paths of the files, relative to the root."""
        return [self.paths[i] for i in indices]

    def compute_fingerprint(self) -> str:
        """Of the class names, labels, paths and contents of the files."""
        contents = content_hashes(self.root, self.paths)
        return digest(self.classes, self.labels, self.paths, contents, tuple(self.reading))


class Part(ImageSet):
    """Some images of a set.

    Args:
        data: the set.
        indices: ``(N,)`` int64, in ``data``.
        labels: ``(N,)`` int64; those of ``data`` where not given.
        classes: names in the order of the labels; those of ``data`` where not given.
    """

    def __init__(
        self,
        data: ImageSet,
        indices: NDArray[np.int64],
        labels: NDArray[np.int64] | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        self.data = data
        self.indices = indices
        self.labels = data.labels[indices] if labels is None else labels
        self.classes = data.classes if classes is None else tuple(classes)

    def images(self, indices: NDArray[np.int64]) -> Images:
        """See :meth:`ImageSet.images`."""
        return self.data.images(self.indices[indices])

    def names(self, indices: NDArray[np.int64]) -> list[str]:
        """Those of the whole set."""
        return self.data.names(self.indices[indices])

    def compute_fingerprint(self) -> str:
        """Of the whole set, and of what of it this is."""
        return digest(self.data.fingerprint(), self.indices, self.labels, self.classes)


class Joined(ImageSet):
    """The images of several domains one after another, as one set.

    Args:
        parts: the sets; their classes are the same, in the same order.

    Attributes:
        origins: ``(N,)`` int64, the number of the part that each image is of.
    """

    def __init__(self, parts: Sequence[ImageSet]) -> None:
        self.parts = tuple(parts)
        self.classes = self.parts[0].classes
        self.labels = np.concatenate([part.labels for part in self.parts])
        sizes = [len(part) for part in self.parts]
        self.origins = np.repeat(np.arange(len(sizes)), sizes)
        self._starts = np.cumsum([0, *sizes[:-1]])

    def images(self, indices: NDArray[np.int64]) -> Images:
        """See :meth:`ImageSet.images`; a tensor where all parts give one of the same size."""
        found: list[Tensor] = [torch.empty(0)] * len(indices)
        for i, rows, own in self._by_part(indices):
            images = self.parts[i].images(own)
            for row, image in zip(rows.tolist(), images, strict=True):
                found[row] = image
        if len({image.shape for image in found}) == 1:
            return torch.stack(found)
        return found

    def names(self, indices: NDArray[np.int64]) -> list[str]:
        """Those of the parts."""
        found = [""] * len(indices)
        for i, rows, own in self._by_part(indices):
            for row, name in zip(rows.tolist(), self.parts[i].names(own), strict=True):
                found[row] = name
        return found

    def compute_fingerprint(self) -> str:
        """Of the fingerprints of the parts, in their order."""
        return digest("joined", *(part.fingerprint() for part in self.parts))

    def _by_part(
        self, indices: NDArray[np.int64]
    ) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
        """Each part's number, which of the indices are its own, and what they are in it."""
        origins = self.origins[indices]
        for i in np.unique(origins).tolist():
            rows = np.flatnonzero(origins == i)
            yield i, rows, indices[rows] - self._starts[i]


def join_sets(parts: Sequence[ImageSet], names: Sequence[str]) -> ImageSet:
    """Several sets as one; a single one as it is.

    Args:
        parts: the sets.
        names: of their domains.

    Raises:
        UserError: where their classes differ.
    """
    for name, part in zip(names[1:], parts[1:], strict=True):
        if part.classes != parts[0].classes:
            raise UserError(
                f"{name_differences(names[0], parts[0].classes, name, part.classes)}; several "
                "sources have the same classes"
            )
    return Joined(parts) if len(parts) > 1 else parts[0]
