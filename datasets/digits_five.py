"""Digits-Five: MNIST, USPS, SVHN, MNIST-M and synthetic digits."""

from __future__ import annotations

import gzip
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.datasets as published
from numpy.typing import NDArray
from torch.nn import functional

from da.errors import UserError
from da.ops.files import write_atomically
from da.ops.seeding import derive_seed, permutation
from da.types import Check, Origin

from .base import DomainData, Split
from .fetching.downloads import Download, fetch_files
from .files.array_checking import check_published_arrays
from .files.digit_files import read_digits
from .files.image_sets import ArrayImages, ImageSet
from .streams.augmentation import CropAndFlip
from .streams.batches import choose_fixed_subset

log = logging.getLogger(__name__)

_HALF = (0.5, 0.5, 0.5)


class DigitsFive(DomainData):
    """Digits-Five: mnist, usps, svhn, mnistm, synth; 10 classes, published training and test sets.

    Images get three channels and are resized to a square of ``image_size``: 28 for LeNet on MNIST
    and USPS, 32 for DTN on SVHN. There is no augmentation: left and right mean something.
    Validation is on the training set, or of the source on the share of it that ``validation``
    holds out. Every evaluation but the target's test is on a fixed 2,000 images at most.

    Args:
        source: the labelled domain.
        target: the domain without labels.
        root: folder of the data; ``python run.py data fetch DigitsFive`` fills it.
        image_size: side of the images, in pixels.
        validation: share of the source's training images that is held out, chosen by ``seed``.
    """

    title = "Digits-Five"
    reference = (
        "MNIST: LeCun et al. 1998; USPS: Hull 1994; SVHN: Netzer et al. 2011; MNIST-M and "
        "synthetic digits: Ganin, Lempitsky, ICML 2015"
    )
    licence = "MNIST: CC BY-SA 3.0; SVHN: non-commercial; the others state none"
    homepage = "https://arxiv.org/abs/1812.01754"
    domains = ("mnist", "usps", "svhn", "mnistm", "synth")
    symbols = {"mnist": "M", "usps": "U", "svhn": "S", "mnistm": "MM", "synth": "SY"}
    counts = {
        **{"mnist/train": 60000, "mnist/test": 10000, "usps/train": 7291, "usps/test": 2007},
        **{"svhn/train": 73257, "svhn/test": 26032, "mnistm/train": 59001, "mnistm/test": 9001},
        **{"synth/train": 479400, "synth/test": 9553},
    }
    by_hand = (
        "MNIST-M: mnist_m.tar.gz by the link on http://yaroslav.ganin.net, unpacked into the root "
        "(mnist_m/mnist_m_train_labels.txt); synthetic digits: SynthDigits.zip from the same page "
        "(synth_train_32x32.mat, synth_test_32x32.mat)"
    )
    classes = tuple(str(digit) for digit in range(10))
    published_splits = True
    own_validation = False
    version = 2  # see FileData
    evaluation_limit = 2000
    mean = _HALF
    std = _HALF

    def __init__(
        self,
        source: str,
        target: str,
        root: str | None = None,
        image_size: int = 28,
        validation: float = 0.0,
        **kwargs: Any,
    ) -> None:
        if root is None:
            raise UserError(
                "root is missing: name the folder of MNIST, USPS and SVHN; 'python run.py data "
                "fetch DigitsFive --root DIR' fills it"
            )
        if image_size < 1:
            raise UserError(f"image_size is {image_size}: it must be at least 1")
        if not 0 <= validation < 1:
            raise UserError(f"validation is {validation}: it must be at least 0 and less than 1")
        super().__init__(source, target, root=root, **kwargs)
        self.image_size = image_size
        self.validation = validation
        self.transform = CropAndFlip(_HALF, _HALF, image_size, flip=False, crop="centre")
        self._read: dict[tuple[str, bool], ArrayImages] = {}

    @classmethod
    def tasks(cls) -> tuple[str, ...]:
        """The published ones."""
        return ("S→M", "M→U", "U→M")

    @classmethod
    def fetch(cls, root: Path) -> None:
        """Downloads MNIST, USPS and SVHN from where torchvision does; the rest is to be got by
        hand.

        Raises:
            UserError: names the files that failed; the others are there all the same.
        """
        fetch_files(cls.title, list_published_files(), root, cls.by_hand, then=_write_without_gzip)
        for name in ("mnist", "usps", "svhn"):
            for train in (True, False):
                count = len(read_digits(name, root, train).labels)
                log.info("%s, %s: %s images", name, "training" if train else "test", f"{count:,}")
        log.info("by hand: %s", cls.by_hand)

    @classmethod
    def origin(cls) -> Origin:
        """See :meth:`SetFacts.origin`; a part of them is."""
        return "downloaded"

    @classmethod
    def read_all(cls, root: str | None = None) -> dict[str, dict[Split, ImageSet]]:
        """See :meth:`DomainData.read_all`."""
        return cls._read_splits(root, ("train", "test"))

    @classmethod
    def check(cls, root: str | None, workers: int | None = None, decode: bool = True) -> Check:
        """See :meth:`DomainData.check`."""
        return check_published_arrays(cls, root)

    def read_split(self, domain: str, split: Split) -> ArrayImages:
        """See :meth:`DomainData.read_split`."""
        train = split != "test"
        whole = self._all(domain, train)
        chosen = np.arange(len(whole))
        if domain == self.source and train and self.validation:
            order = permutation(derive_seed(self.seed, domain, "validation"), 0, len(whole))
            held = max(1, round(self.validation * len(whole)))
            chosen = np.sort(order[held:] if split == "train" else order[:held])
        if split != "train" and (domain, split) != (self.target, "test"):
            chosen = choose_fixed_subset(chosen, domain, self.evaluation_limit)
        return ArrayImages(whole.array.numpy()[chosen], whole.labels[chosen], self.classes)

    def _all(self, domain: str, train: bool) -> ArrayImages:
        if (domain, train) not in self._read:
            found = read_digits(domain, Path(str(self.root)).expanduser(), train)
            images = _resize_to_square(found.images, self.image_size)
            self._read[domain, train] = ArrayImages(images, found.labels, self.classes)
        return self._read[domain, train]


def list_published_files() -> tuple[Download, ...]:
    """MNIST, USPS and SVHN where torchvision's classes look for them, by their checksums."""
    first, *others = published.MNIST.mirrors
    found = []
    for file, md5 in published.MNIST.resources:
        mirrors = tuple(f"{mirror}{file}" for mirror in others)
        place = f"MNIST/raw/{file}"
        found.append(Download(f"{first}{file}", place, md5=md5, unpack=False, mirrors=mirrors))
    for splits in (published.USPS.split_list, published.SVHN.split_list):
        for split in ("train", "test"):
            address, file, md5 = splits[split]
            found.append(Download(address, file, md5=md5, unpack=False))
    return tuple(found)


def _write_without_gzip(download: Download, path: Path) -> None:
    """Puts MNIST's files beside those of gzip, as torchvision reads them: whole or not at all."""
    if path.suffix == ".gz":
        content = gzip.decompress(path.read_bytes())
        plain = path.with_suffix("")
        if not plain.exists() or plain.stat().st_size != len(content):
            write_atomically(plain, content)


def _resize_to_square(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """``(N, H, W)`` or ``(N, H, W, 3)`` uint8 as ``(N, 3, size, size)``."""
    if images.ndim == 3:
        images = np.repeat(images[..., None], 3, axis=3)
    batches = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).split(4096)
    if images.shape[1:3] != (size, size):
        batches = tuple(
            functional.interpolate(batch, (size, size), mode="bilinear", antialias=True)
            for batch in batches
        )
    return torch.cat([batch.contiguous() for batch in batches]).numpy()
