"""Digits in the formats in which they are published."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torchvision.datasets as published
from numpy.typing import NDArray
from PIL import Image

from da.errors import UserError

from ..fetching.archives import is_archive, unpack_archive, unpacked_folder
from .decoding import Reading, read_image
from .file_names import image_files, normalise_name
from .layout import find_file, find_folder
from .list_files import read_list, resolve_paths
from .parallel import in_parallel


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


def synth(root: Path, train: bool, skip: frozenset[str] = frozenset()) -> Digits:
    """Synthetic digits: the .mat files of Ganin and Lempitsky, ``X`` and ``y``."""
    import scipy.io

    name = f"synth_{'train' if train else 'test'}_32x32.mat"
    file = find_file(root, (name,), skip)
    if file is None:
        raise FileNotFoundError(name)
    content = scipy.io.loadmat(file)
    return Digits(content["X"].transpose(3, 0, 1, 2), content["y"].astype(np.int64).ravel())


def mnistm(root: Path, train: bool, skip: frozenset[str] = frozenset()) -> Digits:
    """MNIST-M: folders with lists, or folders of classes, ``mnist_m/…``."""
    part = "train" if train else "test"
    classes = {str(digit): () for digit in range(10)}
    file = find_file(root, (f"mnist_m_{part}_labels.txt",), frozenset(classes) | skip)
    if file is not None:
        lines = read_list(file)
        bases = [file.parent, file.parent / f"mnist_m_{part}"]
        paths = resolve_paths(file, lines, bases, root)
        labels = [line.label for line in lines]
    else:
        parts = dict.fromkeys(("training", "train", "testing", "test"), ())
        outer = find_folder(root, ("mnist_m", "MNIST-M"), parts, skip)
        inner = find_folder(root / outer, (part, f"{part}ing"), classes) if outer else None
        if outer is None or inner is None:
            raise FileNotFoundError(f"mnist_m_{part}_labels.txt")
        found = [(f"{outer}/{inner}/{k}/{name}", int(k)) for k in classes
                 for name in image_files(root / outer / inner / k)[0]]  # fmt: skip
        paths, labels = [path for path, _ in found], [label for _, label in found]
    with Image.open(root / paths[0]) as first:
        reading = Reading(first.width)
    jobs = [((root, reading), path) for path in paths]
    images = np.stack(list(in_parallel(_image, jobs, title="decoding MNIST-M")))
    return Digits(images.transpose(0, 2, 3, 1), np.array(labels, np.int64))


def _image(where: tuple[Path, Reading], path: str) -> NDArray[np.uint8]:
    root, reading = where
    return read_image(root / path, reading)


READERS: dict[str, Callable[..., Digits]] = {
    "mnist": mnist,
    "usps": usps,
    "svhn": svhn,
    "mnistm": mnistm,
    "synth": synth,
}

ARCHIVES = {"mnistm": ("mnistm",), "synth": ("synth", "synthdigits", "syntheticdigits")}
"""Names of the archives that a domain circulates in, plain and without suffix."""


def read_digits(domain: str, root: Path, train: bool) -> Digits:
    """The training or the test images of a domain.

    An archive of it is unpacked where the root holds nothing else of it.

    Raises:
        UserError: says what is missing or broken, and how to get it.
    """
    reason: Exception | None = None
    try:
        for place, skip in _places(domain, root):
            try:
                return READERS[domain](place, train, *skip)
            except FileNotFoundError as error:
                reason = reason or error
    except UserError:
        raise
    except Exception as error:  # torchvision and scipy have many kinds for a broken file
        reason = error
    raise UserError(
        f"domain '{domain}' can't be read from '{root}' "
        f"({' '.join(str(reason).split()) or type(reason).__name__}); 'python run.py "
        "data fetch DigitsFive --root DIR' gets it or says how"
    ) from reason


def _places(domain: str, root: Path) -> Iterator[tuple[Path, tuple[frozenset[str], ...]]]:
    """The root, without what archives were unpacked into, which may have changed; then these."""
    if domain not in ARCHIVES:
        yield root, ()
        return
    archives = [
        path
        for path in (sorted(root.iterdir()) if root.is_dir() else ())
        if normalise_name(path.name.partition(".")[0]) in ARCHIVES[domain]
        and path.is_file()
        and is_archive(path)
    ]
    yield root, (frozenset(normalise_name(unpacked_folder(path).name) for path in archives),)
    for path in archives:
        yield unpack_archive(path), ()
