"""Image files in a folder and below, prepared as in evaluation; a bad one stops no other."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from da.errors import UserError
from da.ops.image_preparation import ImagePreparation
from da.types import NamedImages

from ..files.decoding import Reading, UnreadableImage, read_image
from ..files.file_names import EXTENSIONS
from ..files.image_probe import touched
from .augmentation import CropAndFlip, Transform
from .loader import Loader

log = logging.getLogger(__name__)


def find_images(place: str | Path) -> tuple[Path, list[str], int]:
    """The image files in a folder and all folders in it, sorted; or the one file that is named.

    Folders and files whose names start with a dot are passed over, and so is what isn't called
    like an image; links are followed.

    Returns:
        The folder, the paths in it, and the number of files passed over.

    Raises:
        UserError: where there is none, or a folder can't be listed.
    """
    root = Path(place).expanduser()
    if root.is_file():
        return root.parent, [root.name], 0
    if not root.is_dir():
        raise UserError(f"'{place}' is not a folder or a file; name one that holds images")
    names: list[str] = []
    others = 0
    visited: set[str] = set()  # a link may lead back
    for folder, inner, files in os.walk(root, onerror=_refuse_unlisted, followlinks=True):
        real = os.path.realpath(folder)
        shown = [name for name in inner if not name.startswith(".") and name != "__MACOSX"]
        inner[:] = [] if real in visited else sorted(shown)
        files = [] if real in visited else files
        visited.add(real)
        images = [
            name
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS
        ]
        others += len(files) - len(images)
        names += [Path(folder, name).relative_to(root).as_posix() for name in images]
    if not names:
        raise UserError(f"folder '{place}' holds no images (other files: {others})")
    return root, sorted(names), others


def _refuse_unlisted(error: OSError) -> None:
    raise UserError(f"folder '{error.filename}' can't be listed: {error.strerror}") from error


class FileBatches(Dataset[NamedImages]):
    """Batches of image files, their images to be finished by the loader.

    Args:
        root: folder that the paths are relative to.
        paths: of N files.
        reading: how they are decoded and resized.
        transform: prepares them.
        batch_size: files of a batch.
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        reading: Reading,
        transform: Transform,
        batch_size: int,
    ) -> None:
        self.root = root
        self.paths = paths
        self.reading = reading
        self.transform = transform
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.paths) // self.batch_size)

    def __getitem__(self, item: int) -> NamedImages:
        if not 0 <= item < len(self):
            raise IndexError(item)
        images, names, unreadable = [], [], {}
        for name in self.paths[item * self.batch_size : (item + 1) * self.batch_size]:
            try:
                if reason := touched(self.root / name):
                    raise UnreadableImage(f"image '{self.root / name}' can't be read: {reason}")
                images.append(torch.from_numpy(read_image(self.root / name, self.reading)))
                names.append(name)
            except UnreadableImage as error:
                unreadable[name] = str(error)
        prepared = self.transform.prepare(images) if images else torch.empty(0, 3, 0, 0)
        return NamedImages(prepared, names, unreadable)


def prepared_images(
    place: str | Path,
    preparation: ImagePreparation,
    batch_size: int,
    workers: int = 0,
    device: torch.device | None = None,
) -> Loader:
    """Yields :class:`da.types.NamedImages` of the files in a folder, see :func:`find_images`.

    Args:
        place: a folder, or one file.
        preparation: what is done with an image.
        batch_size: files of a batch.
        workers: processes that read them.
        device: where images are normalised; the CPU where not given.
    """
    p = preparation
    reading = Reading(p.resize, p.keep_aspect, p.alpha, p.exif)
    transform = CropAndFlip(p.mean, p.std, p.image_size)
    return named_loader(place, reading, transform, batch_size, num_workers=workers, device=device)


def named_loader(
    place: str | Path, reading: Reading, transform: Transform, batch_size: int, **options: Any
) -> Loader:
    """As :func:`prepared_images`, of the parts of a data module; the options are the loader's."""
    root, paths, others = find_images(place)
    if others:
        log.info("'%s': %d files that are not called like images are passed over", place, others)
    return Loader(FileBatches(root, paths, reading, transform, batch_size), transform, **options)


def preparation_by(reading: Reading, transform: Transform) -> ImagePreparation | None:
    """What a data module's own parts do with an image in evaluation, as plain values.

    Returns:
        None where a transform of one's own may do anything else.
    """
    if not type(transform).__module__.startswith(f"{__package__}."):
        return None
    mean, std = (tuple(float(x) for x in getattr(transform, name)) for name in ("mean", "std"))
    size = getattr(transform, "size", reading.size)
    return ImagePreparation(
        reading.size, size, mean, std, reading.keep_aspect, reading.alpha, reading.exif
    )
