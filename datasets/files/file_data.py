"""Data read from image files: what is the same for every set of them, wherever its files lie."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from da.errors import UserError
from da.ops.domain_names import is_path
from da.ops.seeding import derive_seed, permutation
from da.types import Check, Origin

from ..base import DomainData, Role, Split
from ..streams.augmentation import CropAndFlip
from ..streams.batches import choose_fixed_subset
from .checking import check_files
from .class_matching import NO_CLASS, NO_LABEL, ClassSets, relabel_target
from .decoding import Reading
from .image_cache import CachedImages, cached
from .image_sets import FileImages, ImageSet, Part
from .layout import Listing, require_root
from .remarks import remarks_of_domains
from .target_files import list_target, place_of_target
from .target_labels import read_target_labels
from .unreadable_files import refuse_unreadable, without_unreadable

log = logging.getLogger(__name__)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
IMAGE_SIZE = 224


def choose_held_out(labels: NDArray[np.int64], share: float, key: int) -> NDArray[np.bool_]:
    """Chooses a share of every class at random, ``(N,)`` bool.

    At least one image of a class is chosen and at least one isn't; of a single one none is.

    Args:
        labels: ``(N,)`` int64.
        share: in (0, 1).
        key: seed of the choice.
    """
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels[labels >= 0]):
        members = np.flatnonzero(labels == label)
        count = min(max(1, round(share * len(members))), len(members) - 1)
        chosen[members[permutation(derive_seed(key, label), 0, len(members))[:count]]] = True
    return chosen


class FileData(DomainData):
    """Images in files of any sizes and modes.

    Images are decoded once, resized to a square of ``resize`` pixels whatever their shape (as the
    published protocols of Office-31 and VisDA do), and kept in a cache on disk that all workers
    and all runs share. Training then takes crops and flips, evaluation the centre.

    Splits are transductive, as published, unless the set comes with lists of its own: every split
    of the target is all of its images. So it is with the source, unless ``validation`` holds a
    share of it out: then the source is trained on the rest, and its validation and its test are
    both that share. (Where a model is chosen by source validation, source test is no independent
    measure of it, then.) With published lists, training takes the train list, test the test list,
    and validation the train list, or of the source the share of it that is held out.

    Args:
        source: the labelled domain; several with commas, drawn equally often.
        target: the domain without labels, of this set; or the path of a folder of images, of an
            archive, or of a list of their paths, whatever the set is.
        root: folder of the data, or an archive of it.
        image_size: side of the images that the network sees, in pixels; by default what the
            pretrained weights were trained with, else 224.
        resize: side that images are resized to before they are cropped; by default 8/7 of
            ``image_size``: 256 for 224.
        keep_aspect: resize the shorter side, as torchvision's ``Resize(256)`` does, and not to a
            square.
        crop: crops in training: ``random_resized`` (8 to 100 % of the area, ratios of 3/4 to 4/3),
            ``random`` place, or ``centre``.
        flip: mirror half of the images in training.
        validation: share of each class of the source that is held out, chosen by ``seed``.
        mean: of the normalisation, per channel, of images in [0, 1]; by default that of the
            pretrained weights, else ImageNet's.
        std: of the normalisation, per channel.
        class_sets: the classes of the target: the ``same`` as the source's, some of them
            (``partial``), or others, too (``open``). Images of the others are trained on, without
            labels as all of the target, and left out of the evaluation.
        target_labels: a CSV of rows ``file,class`` for a target without labels: it is evaluated on
            the images that have one.
        alpha: of images with transparency: ``drop`` the channel, or put them on ``white``.
        exif: turn images as their EXIF orientation says.
        skip_unreadable: leave out images that can't be read, and say how many.
        cache: keep decoded images on disk.
        cache_folder: where; by default in the user's cache folder.
        cache_limit: decoded images of a domain beyond so many GB are kept re-encoded.
    """

    transductive = True
    own_validation = False
    version = 2  # statistics of the domains are of batches that mix the classes
    evaluation_limit: int | None = None
    """Every evaluation but the target's test is on a fixed subset of at most so many images."""

    def __init__(
        self,
        source: str,
        target: str,
        root: str | None = None,
        image_size: int | None = None,
        resize: int | None = None,
        keep_aspect: bool = False,
        crop: Literal["random_resized", "random", "centre"] = "random_resized",
        flip: bool = True,
        validation: float = 0.0,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
        class_sets: ClassSets = "same",
        target_labels: str | None = None,
        alpha: Literal["drop", "white"] = "drop",
        exif: bool = False,
        skip_unreadable: bool = False,
        cache: bool = True,
        cache_folder: str | None = None,
        cache_limit: float = 8.0,
        **kwargs: Any,
    ) -> None:
        self.path = require_root(root, self.describe_root())
        self.target_path: Path | None = None
        if is_path(target):
            self.target_path, target = place_of_target(target, self.domains, self.path)
            self.domains = tuple(dict.fromkeys((*self.domains, target)))
        super().__init__(source, target, root=root, **kwargs)
        if not 0 <= validation < 1:
            raise UserError(f"validation is {validation}: it must be at least 0 and less than 1")
        if std is not None and min(std) <= 0:
            raise UserError(f"std is {std}: each must be greater than 0")
        self.given = {"image_size": image_size, "resize": resize, "mean": mean, "std": std}
        self.keep_aspect = keep_aspect
        self.crop = crop
        self.flip = flip
        self.validation = validation
        self.class_sets = class_sets
        self.target_labels = None if target_labels is None else Path(target_labels).expanduser()
        if target_labels is not None and self.target in self.sources:
            raise UserError(f"target_labels: target '{self.target}' is the source, and has labels")
        self.alpha = alpha
        self.exif = exif
        self.skip_unreadable = skip_unreadable
        self.cache = cache
        self.cache_folder = cache_folder
        self.cache_limit = cache_limit
        self._listings: dict[tuple[str, Split | None], Listing] = {}
        self._wholes: dict[tuple[str, Split | None], ImageSet] = {}
        self._choose(IMAGENET_MEAN, IMAGENET_STD, IMAGE_SIZE)
        if not self.published_splits:  # the others are the same images, evaluated once
            self.evaluations = (("source", "test"), ("target", "test"))
            self.same_as = {f"{role}/validation": f"{role}/test" for role in ("source", "target")}

    @classmethod
    def origin(cls) -> Origin:
        """See :meth:`SetFacts.origin`."""
        return "the user's"

    @classmethod
    def read_all(cls, root: str | None = None) -> dict[str, dict[Split, ImageSet]]:
        """See :meth:`DomainData.read_all`; nothing is put into the cache."""
        splits: tuple[Split, ...] = ("train", "test") if cls.published_splits else ("train",)
        return cls._read_splits(root, splits, cache=False)

    @classmethod
    def has_labels(cls, root: str | None, domain: str) -> bool:
        """See :meth:`SetFacts.has_labels`."""
        place = require_root(root, cls.describe_root())
        return bool(cls.classes or cls.find(place, domain, "train").classes)

    @classmethod
    def check(cls, root: str | None, workers: int | None = None, decode: bool = True) -> Check:
        """See :meth:`da.types.DataSet.check`; names every file that can't be read."""
        return check_files(cls, root, workers, decode).summary()

    def check_presence(self, domain: str) -> None:
        """See :meth:`DomainData.check_presence`; opens no file."""
        for split in ("train", "test"):  # one and the same where no lists are published
            self.listing(domain, split)

    @classmethod
    def describe_root(cls) -> str:
        """What the root holds, for people."""
        return "DOMAIN/CLASS/IMAGE"

    @classmethod
    @abstractmethod
    def find(cls, root: Path, domain: str, split: Split) -> Listing:
        """Lists the images of a domain, where need be of one of its published splits.

        Args:
            root: folder or archive that exists.
            domain: one of those that the set has.
            split: matters where ``published_splits`` are: ``train`` or ``test``.
        """

    @property
    def preferences(self) -> dict[str, Any]:
        """See :meth:`DomainData.preferences`."""
        return {name: value for name, value in self.given.items() if value is not None}

    def adopt(self, mean: Sequence[float], std: Sequence[float], size: int) -> None:
        """See :meth:`DomainData.adopt`."""
        self._choose(tuple(mean), tuple(std), size)
        self._wholes.clear()
        self._sets.clear()

    def _choose(self, mean: tuple[float, ...], std: tuple[float, ...], size: int) -> None:
        """Settles what the options leave open."""
        given: dict[str, Any] = self.given
        self.image_size = size if given["image_size"] is None else given["image_size"]
        # The published protocols crop 224 out of 256.
        resize = round(self.image_size * 8 / 7) if given["resize"] is None else given["resize"]
        if not 0 < self.image_size <= resize:
            raise UserError(f"image_size is {self.image_size}: it must be 1 to {resize} (resize)")
        self.mean = mean if given["mean"] is None else tuple(given["mean"])
        self.std = std if given["std"] is None else tuple(given["std"])
        self._reading = Reading(resize, self.keep_aspect, self.alpha, self.exif)
        self.transform = CropAndFlip(
            self.mean, self.std, self.image_size, flip=self.flip, crop=self.crop
        )

    def listing(self, domain: str, split: Split = "train") -> Listing:
        """The files of a domain, or of one of its published splits; listed once."""
        key = (domain, self._list_of(split))
        if key not in self._listings:
            if self.target_path is not None and domain == self.target:
                found = list_target(self.target_path, domain, self._spellings)
            else:
                found = self.find(self.path, domain, key[1] or "train")
            self._listings[key] = found
        return self._listings[key]

    @property
    def classes_of_source(self) -> tuple[str, ...]:
        """The names of the source's classes; refuses a source without labels."""
        for domain in self.sources:
            if not self.listing(domain).classes:
                raise UserError(
                    f"source '{domain}' has no labels: choose a domain whose images lie in folders "
                    "of classes, or whose list has labels"
                )
        return self.listing(self.sources[0]).classes

    @classmethod
    def names_of_classes(cls) -> dict[str, list[str]]:
        """Each class with its other names, where they are known."""
        return {name: [] for name in cls.classes}

    @property
    def _spellings(self) -> dict[str, list[str]]:
        """The source's classes, each with its other names."""
        known = self.names_of_classes()
        return {name: known.get(name, []) for name in self.classes_of_source}

    def _list_of(self, split: Split) -> Split | None:
        """The published list that a split is taken from."""
        if not self.published_splits:
            return None
        return "test" if split == "test" else "train"

    def whole(self, domain: str, split: Split = "train") -> ImageSet:
        """All images of a domain, or of one of its published lists, with its own labels."""
        key = (domain, self._list_of(split))
        if key not in self._wholes:
            found = self.listing(domain, split)
            files = FileImages(found.root, found.paths, found.labels, found.classes, self._reading)
            if self.skip_unreadable:
                files = without_unreadable(files, domain)
            else:
                refuse_unreadable(files)
            folder = Path(self.cache_folder).expanduser() if self.cache_folder else None
            self._wholes[key] = cached(files, folder, self.cache_limit) if self.cache else files
        return self._wholes[key]

    def read_split(self, domain: str, split: Split) -> ImageSet:
        """See :meth:`DomainData.read_split`."""
        whole = self.whole(domain, split)
        role: Role = "source" if domain in self.sources else "target"
        labels, classes = self._labelled(domain, split, whole)
        chosen = self._chosen(role, domain, split, labels)
        alike = classes == whole.classes and np.array_equal(labels, whole.labels)
        if alike and len(chosen) == len(labels):
            return whole
        return Part(whole, chosen, labels[chosen], classes)

    def _labelled(
        self, domain: str, split: Split, whole: ImageSet
    ) -> tuple[NDArray[np.int64], tuple[str, ...]]:
        """The labels of a domain, of the source's classes where it is one of the two."""
        first, *others = self.sources
        if domain == first or domain not in (*others, self.target):
            return whole.labels, whole.classes
        classes = self.classes_of_source
        found = self.listing(domain, split)._replace(labels=whole.labels, classes=whole.classes)
        if domain in others:
            return relabel_target(found, classes, "same", first, domain), classes
        labels = relabel_target(found, classes, self.class_sets, self.source, self.target)
        if self.target_labels is None:
            return labels, classes
        if (labels != NO_LABEL).any():
            raise UserError(
                f"target_labels: target '{domain}' has labels of its own; leave the file out"
            )
        names = whole.names(np.arange(len(whole)))
        return read_target_labels(self.target_labels, names, self._spellings), classes

    def _chosen(
        self, role: Role, domain: str, split: Split, labels: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """The images of a split, as positions in the whole."""
        chosen = labels >= 0 if role == "source" else np.ones(len(labels), bool)
        if role == "source" and self.validation and self._list_of(split) != "test":
            held = choose_held_out(
                labels, self.validation, derive_seed(self.seed, domain, "validation")
            )
            if not held.any():
                raise UserError(
                    f"validation is {self.validation}, but no class of '{domain}' has two images: "
                    "add some, or leave it out"
                )
            chosen = chosen & ~held if split == "train" else held
        if split != "train":
            chosen &= labels != NO_CLASS
        indices = np.flatnonzero(chosen)
        limit = self.evaluation_limit
        if limit and split != "train" and (role, split) != ("target", "test"):
            indices = choose_fixed_subset(indices, domain, limit)
        return indices

    def remarks(self) -> list[str]:
        """See :meth:`DomainData.remarks`."""
        files = {
            domain: whole.files if isinstance(whole, CachedImages) else whole
            for domain in (*self.sources, self.target)
            if isinstance(whole := self.whole(domain), CachedImages | FileImages)
        }
        passed_over = {domain: self.listing(domain).passed_over for domain in files}
        return remarks_of_domains(self.sources, self.target, files, passed_over)

    @property
    def reading(self) -> Reading:
        """See :meth:`DomainData.reading`."""
        return self._reading
