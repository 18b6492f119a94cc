"""Sets of labelled images, in memory or in files, behind one small interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from da.errors import UserError
from da.types import Images

from .content_hashes import content_hashes, digest
from .decoding import Reading, read_image

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")


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

    def images(self, indices: NDArray[np.int64]) -> Images:
        """See :meth:`ImageSet.images`; C is 3."""
        return [
            torch.from_numpy(read_image(self.root / self.paths[i], self.reading)) for i in indices
        ]

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


def image_files(folder: Path) -> tuple[list[str], int]:
    """The names of the images directly in a folder, sorted, and the number of files passed over.

    Names that start with a dot are passed over, and so is what isn't called like an image.
    """
    names, others = [], 0
    for entry in _entries(folder):
        if entry.name.startswith(".") or entry.suffix.lower() not in EXTENSIONS:
            others += not entry.is_dir()
        elif not entry.is_dir():
            names.append(entry.name)
    return sorted(names), others


def folders(folder: Path) -> list[str]:
    """The names of the folders in a folder, sorted.

    Those that start with a dot are passed over, and what macOS puts beside what it packs.
    """
    return sorted(
        entry.name
        for entry in _entries(folder)
        if entry.is_dir() and not entry.name.startswith(".") and entry.name != "__MACOSX"
    )


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise UserError(f"folder '{folder}' can't be listed: {error.strerror}") from error
