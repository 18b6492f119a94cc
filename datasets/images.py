"""Sets of labelled images, in memory or in files, behind one small interface."""

from __future__ import annotations

import hashlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from da.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")


class UnreadableImage(UserError):
    """An image that can't be read, by its path.

    Raised in a worker of a DataLoader, it is made again in the main process from the worker's whole
    traceback, which ends with the message: that alone is kept.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].rstrip())


class ImageSet(ABC):
    """Labelled images of one domain and one split.

    Attributes:
        labels: ``(N,)`` int64, positions in ``classes``.
        classes: names in the order of the labels.
    """

    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def images(self, indices: NDArray[np.int64]) -> Tensor:
        """The images at ``(B,)`` int64 indices, ``(B, C, H, W)`` uint8."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A SHA-256 of what the set holds, 64 hexadecimal digits."""


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

    def fingerprint(self) -> str:
        """Of the class names, the labels and every pixel."""
        return digest(self.classes, self.labels, self.array.numpy())


class FileImages(ImageSet):
    """Images in files, decoded when asked for and resized to a square.

    Args:
        root: folder that the paths are relative to.
        paths: of N files.
        labels: ``(N,)`` int64.
        classes: names in the order of the labels.
        size: side of the square in pixels.
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        labels: NDArray[np.int64],
        classes: Sequence[str],
        size: int,
    ) -> None:
        self.root = root
        self.paths = tuple(paths)
        self.labels = labels
        self.classes = tuple(classes)
        self.size = size

    def images(self, indices: NDArray[np.int64]) -> Tensor:
        """See :meth:`ImageSet.images`; C is 3."""
        decoded = [read_image(self.root / self.paths[i], self.size) for i in indices]
        return torch.from_numpy(np.stack(decoded))

    def fingerprint(self) -> str:
        """Of the class names, labels, paths and sizes of the files; their content is not read."""
        sizes = []
        for path in self.paths:
            try:
                sizes.append((self.root / path).stat().st_size)
            except OSError as error:
                raise _unreadable(self.root / path, error) from error
        return digest(self.classes, self.labels, self.paths, sizes)


def digest(*parts: object) -> str:
    """A SHA-256 over names, numbers and arrays; arrays count with their shape and type."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            total.update(f"{part.dtype.str}{part.shape}".encode())
            total.update(np.ascontiguousarray(part).data)
        else:
            total.update(repr(part).encode())
    return total.hexdigest()


def read_image(path: Path, size: int) -> NDArray[np.uint8]:
    """Decodes a file of any mode and resizes it to a square, ``(3, size, size)`` uint8.

    Grey is repeated, palettes and CMYK are converted, 16 bits are scaled to 8 (by 257; Pillow
    alone would saturate), an alpha channel is dropped, EXIF rotation is not applied (as in
    torchvision's ``ImageFolder``).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                image = _rgb(file)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point images have no fixed range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("grey values beyond 16 bits; save it with 8 or 16 bits")
        image = Image.fromarray(np.rint(values / 257).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _unreadable(path: Path, error: Exception) -> UnreadableImage:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    reason = " ".join(text.split())
    return UnreadableImage(f"image '{path}' can't be read: {reason}; repair or remove it")


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
    """The names of the folders in a folder, sorted; those that start with a dot are passed over."""
    return sorted(e.name for e in _entries(folder) if e.is_dir() and not e.name.startswith("."))


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise UserError(f"folder '{folder}' can't be listed: {error.strerror}") from error
