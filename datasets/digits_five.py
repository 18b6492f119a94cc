"""Digits-Five: MNIST, USPS, SVHN, MNIST-M and synthetic digits."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torchvision.datasets as published
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from da.errors import UserError
from da.ops.files import write_bytes_atomically
from da.ops.seeding import derive, permutation
from datasets.base import DomainData, Split
from datasets.decoding import Reading, read_image
from datasets.fetching import Download, fetch
from datasets.images import ArrayImages, image_files
from datasets.listing import find_file, find_folder, read_list, resolved
from datasets.streams import fixed_subset
from datasets.transforms import CropAndFlip

_HALF = (0.5, 0.5, 0.5)


class Digits(NamedTuple):
    """Images of one domain as they are published.

    Attributes:
        images: ``(N, H, W)`` or ``(N, H, W, 3)`` uint8.
        labels: ``(N,)`` int64, the digits.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def mnist(root: Path, train: bool) -> Digits:
    """MNIST, read by torchvision."""
    data = published.MNIST(root, train)
    return Digits(data.data.numpy(), data.targets.numpy())


def usps(root: Path, train: bool) -> Digits:
    """USPS, read by torchvision."""
    data = published.USPS(root, train)
    return Digits(data.data, np.array(data.targets, np.int64))


def svhn(root: Path, train: bool) -> Digits:
    """SVHN's cropped digits, read by torchvision."""
    data = published.SVHN(root, "train" if train else "test")
    return Digits(data.data.transpose(0, 2, 3, 1), data.labels)


def synth(root: Path, train: bool) -> Digits:
    """Synthetic digits: the .mat files of Ganin and Lempitsky, ``X`` and ``y``."""
    import scipy.io

    name = f"synth_{'train' if train else 'test'}_32x32.mat"
    file = find_file(root, (name,), frozenset())
    if file is None:
        raise FileNotFoundError(name)
    content = scipy.io.loadmat(file)
    return Digits(content["X"].transpose(3, 0, 1, 2), content["y"].astype(np.int64).ravel())


def mnistm(root: Path, train: bool) -> Digits:
    """MNIST-M: folders with lists, or folders of classes, ``mnist_m/…``."""
    part = "train" if train else "test"
    classes = {str(digit): () for digit in range(10)}
    file = find_file(root, (f"mnist_m_{part}_labels.txt",), frozenset(classes))
    if file is not None:
        lines = read_list(file)
        bases = [file.parent, file.parent / f"mnist_m_{part}"]
        paths = resolved(file, lines, bases, root)
        labels = [line.label for line in lines]
    else:
        parts = dict.fromkeys(("training", "train", "testing", "test"), ())
        outer = find_folder(root, ("mnist_m", "MNIST-M"), parts)
        inner = find_folder(root / outer, (part, f"{part}ing"), classes) if outer else None
        if outer is None or inner is None:
            raise FileNotFoundError(f"mnist_m_{part}_labels.txt")
        found = [(f"{outer}/{inner}/{k}/{name}", int(k)) for k in classes
                 for name in image_files(root / outer / inner / k)[0]]  # fmt: skip
        paths, labels = [path for path, _ in found], [label for _, label in found]
    with Image.open(root / paths[0]) as first:
        reading = Reading(first.width)
    images = np.stack([read_image(root / path, reading) for path in paths])
    return Digits(images.transpose(0, 2, 3, 1), np.array(labels, np.int64))


READERS: dict[str, Callable[[Path, bool], Digits]] = {
    "mnist": mnist,
    "usps": usps,
    "svhn": svhn,
    "mnistm": mnistm,
    "synth": synth,
}


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
        fetch(cls.title, published_files(), root, cls.by_hand, then=_without_gzip)
        for name in ("mnist", "usps", "svhn"):
            for train in (True, False):
                count = len(_read(name, root, train).labels)
                print(f"{name}, {'training' if train else 'test'}: {count:,} images")
        print(f"by hand: {cls.by_hand}")

    def load(self, domain: str, split: Split) -> ArrayImages:
        """See :meth:`DomainData.load`."""
        train = split != "test"
        whole = self._all(domain, train)
        chosen = np.arange(len(whole))
        if domain == self.source and train and self.validation:
            order = permutation(derive(self.seed, domain, "validation"), 0, len(whole))
            held = max(1, round(self.validation * len(whole)))
            chosen = np.sort(order[held:] if split == "train" else order[:held])
        if split != "train" and (domain, split) != (self.target, "test"):
            chosen = fixed_subset(chosen, domain, self.evaluation_limit)
        return ArrayImages(whole.array.numpy()[chosen], whole.labels[chosen], self.classes)

    def _all(self, domain: str, train: bool) -> ArrayImages:
        if (domain, train) not in self._read:
            found = _read(domain, Path(str(self.root)).expanduser(), train)
            images = _square(found.images, self.image_size)
            self._read[domain, train] = ArrayImages(images, found.labels, self.classes)
        return self._read[domain, train]


def published_files() -> tuple[Download, ...]:
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


def _without_gzip(download: Download, path: Path) -> None:
    """Puts MNIST's files beside those of gzip, as torchvision reads them: whole or not at all."""
    if path.suffix == ".gz":
        content = gzip.decompress(path.read_bytes())
        plain = path.with_suffix("")
        if not plain.exists() or plain.stat().st_size != len(content):
            write_bytes_atomically(plain, content)


def _read(domain: str, root: Path, train: bool) -> Digits:
    try:
        return READERS[domain](root, train)
    except UserError:
        raise
    except Exception as error:  # torchvision and scipy have many kinds for a broken file
        raise UserError(
            f"domain '{domain}' can't be read from '{root}' "
            f"({' '.join(str(error).split()) or type(error).__name__}); 'python run.py "
            "data fetch DigitsFive --root DIR' gets it or says how"
        ) from error


def _square(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
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
