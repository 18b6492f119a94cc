"""Image files in a folder and below, prepared as in evaluation; a bad one stops no other."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from da.errors import UserError
from da.ops.image_preparation import ImagePreparation
from da.types import NamedImages

from ..files.decoder_complaints import describe_damage, read_with_complaints
from ..files.decoding import Reading, UnreadableImage
from ..files.file_names import Found, images_below
from ..files.image_probe import touched
from ..files.remarks import remarks_of_folder
from .augmentation import CropAndFlip, Transform
from .loader import Loader

log = logging.getLogger(__name__)


def find_images(place: str | Path) -> tuple[Path, Found]:
    """A folder and, sorted, the image files in it and below (:func:`images_below`); or one file.

    Raises:
        UserError: where there is none, or a folder can't be listed.
    """
    root = Path(place).expanduser()
    if root.is_file():
        return root.parent, Found([root.name], Counter())
    if not root.is_dir():
        raise UserError(f"'{place}' is not a folder or a file; name one that holds images")
    found = images_below(root)
    if not found.names:
        raise UserError(
            f"folder '{place}' holds no images (other files: {found.passed_over.total()})"
        )
    return root, found._replace(names=sorted(found.names))


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
        images, names = [], []
        unreadable, damaged = {}, {}
        for name in self.paths[item * self.batch_size : (item + 1) * self.batch_size]:
            try:
                if reason := touched(self.root / name):
                    raise UnreadableImage(f"image '{self.root / name}' can't be read: {reason}")
                pixels, complaint = read_with_complaints(self.root / name, self.reading)
                images.append(torch.from_numpy(pixels))
                names.append(name)
                if complaint:
                    damaged[name] = describe_damage(self.root / name, complaint)
            except UnreadableImage as error:
                unreadable[name] = str(error)
        prepared = self.transform.prepare(images) if images else torch.empty(0, 3, 0, 0)
        return NamedImages(prepared, names, unreadable, damaged)


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
    root, found = find_images(place)
    for text in remarks_of_folder(f"'{place}'", root, *found):
        log.warning("%s", text)
    batches = FileBatches(root, found.names, reading, transform, batch_size)
    return Loader(batches, transform, **options)


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
