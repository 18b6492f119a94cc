"""A user's own images: any directory ``root/DOMAIN/CLASS/*.jpg`` is a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from da.errors import UserError
from da.ops.seeding import derive, permutation
from datasets.base import DomainData, Split
from datasets.decoding import Reading
from datasets.images import FileImages, folders, image_files
from datasets.transforms import CropAndFlip

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Listing(NamedTuple):
    """The images of a domain.

    Attributes:
        paths: of N files, relative to the root, by class and name.
        labels: ``(N,)`` int64, positions in ``classes``.
        classes: the names of the class folders, sorted.
    """

    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]


def opened(root: str | None) -> tuple[Path, tuple[str, ...]]:
    """The folder of a data set and its domains; refuses what can't be one."""
    if root is None:
        raise UserError("root is missing: name the folder that holds DOMAIN/CLASS/IMAGE")
    path = Path(root).expanduser()
    if not path.is_dir():
        raise UserError(f"root '{root}' is not a folder: name one that holds DOMAIN/CLASS/IMAGE")
    domains = folders(path)
    if not domains:
        raise UserError(f"root '{root}' holds no folders: expected DOMAIN/CLASS/IMAGE in it")
    return path, tuple(domains)


def listing(root: Path, domain: str) -> Listing:
    """Lists ``root/DOMAIN/CLASS/IMAGE``; no image is opened.

    Other files are passed over; a class without images is refused.
    """
    paths: list[str] = []
    labels: list[int] = []
    classes = tuple(folders(root / domain))
    for label, name in enumerate(classes):
        names, others = image_files(root / domain / name)
        if not names:
            raise UserError(
                f"class '{name}' of domain '{domain}' holds no images (other files: {others}): "
                f"put some into '{root / domain / name}', or remove the folder"
            )
        paths += [f"{domain}/{name}/{file}" for file in names]
        labels += [label] * len(names)
    if not classes:
        raise UserError(
            f"domain '{domain}' has no folders of classes: expected images in "
            f"'{root / domain}/CLASS/'; move them there, or name another root"
        )
    return Listing(tuple(paths), np.array(labels, np.int64), classes)


def held_out(labels: NDArray[np.int64], share: float, key: int) -> NDArray[np.bool_]:
    """Chooses a share of every class at random, ``(N,)`` bool.

    At least one image of a class is chosen and at least one isn't; of a single one none is.

    Args:
        labels: ``(N,)`` int64.
        share: in (0, 1).
        key: seed of the choice.
    """
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(max(1, round(share * len(members))), len(members) - 1)
        chosen[members[permutation(derive(key, label), 0, len(members))[:count]]] = True
    return chosen


class Folder(DomainData):
    """A folder of domains, ``root/DOMAIN/CLASS/IMAGE``, with images of any sizes and modes.

    Domains and classes are the names of the folders. Names that start with a dot and files that
    aren't called like images are passed over. Images are decoded when they are needed and resized
    to a square of ``resize`` pixels, whatever their shape, as the published protocols of Office-31
    and VisDA do. Training then takes random resized crops (8 to 100 % of the area, ratios of 3/4
    to 4/3) and flips, evaluation the centre.

    Splits are transductive, as published: every split of the target is all of its images. So it is
    with the source, unless ``validation`` holds a share of it out: then the source is trained on
    the rest, and its validation and its test are both that share. (Where a model is chosen by
    source validation, source test is no independent measure of it, then.)

    Args:
        source: the labelled domain.
        target: the domain without labels.
        batch_size: see :class:`DomainData`, as for what follows up to ``allow_same``.
        root: folder of the domains.
        image_size: side of the images that the network sees, in pixels.
        resize: side of the square that images are resized to before they are cropped.
        flip: mirror half of the images in training.
        validation: share of each class of the source that is held out, chosen by ``seed``.
        mean: of the normalisation, per channel, of images in [0, 1]; by default ImageNet's.
        std: of the normalisation, per channel.
    """

    transductive = True

    def __init__(
        self,
        source: str,
        target: str,
        batch_size: int = 32,
        steps_per_epoch: int | Literal["source", "target", "longest"] = "longest",
        balanced: bool = False,
        augment: bool = True,
        num_workers: int = 0,
        eval_batch_size: int = 256,
        seed: int = 0,
        root: str | None = None,
        allow_same: bool = False,
        image_size: int = 224,
        resize: int = 256,
        flip: bool = True,
        validation: float = 0.0,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
    ) -> None:
        self.path, self.domains = opened(root)
        super().__init__(
            source,
            target,
            batch_size=batch_size,
            steps_per_epoch=steps_per_epoch,
            balanced=balanced,
            augment=augment,
            num_workers=num_workers,
            eval_batch_size=eval_batch_size,
            seed=seed,
            root=root,
            allow_same=allow_same,
        )
        if not 0 < image_size <= resize:
            raise UserError(f"image_size is {image_size}: it must be 1 to {resize} (resize)")
        if not 0 <= validation < 1:
            raise UserError(f"validation is {validation}: it must be at least 0 and less than 1")
        if min(std) <= 0:
            raise UserError(f"std is {std}: each must be greater than 0")
        self.image_size = image_size
        self.resize = resize
        self.validation = validation
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.transform = CropAndFlip(self.mean, self.std, image_size, flip)
        self._listings = {domain: listing(self.path, domain) for domain in (source, target)}
        self.classes = self._listings[source].classes

    @classmethod
    def available(cls, root: str | None = None) -> tuple[str, ...]:
        """See :meth:`DomainData.available`."""
        _, found = opened(root)
        if len(found) < 2:
            raise UserError(f"root '{root}' has one domain, '{found[0]}': expected 2 or more")
        return found

    @property
    def reading(self) -> Reading:
        """See :meth:`DomainData.reading`."""
        return Reading(self.resize)

    def load(self, domain: str, split: Split) -> FileImages:
        """See :meth:`DomainData.load`."""
        paths, labels, classes = self._listings.get(domain) or listing(self.path, domain)
        chosen = np.arange(len(paths))
        if domain == self.source and self.validation:
            held = held_out(labels, self.validation, derive(self.seed, domain, "validation"))
            if not held.any():
                raise UserError(
                    f"validation is {self.validation}, but no class of '{domain}' has two images: "
                    "add some, or leave it out"
                )
            chosen = np.flatnonzero(~held if split == "train" else held)
        return FileImages(
            self.path, [paths[i] for i in chosen], labels[chosen], classes, self.reading
        )
