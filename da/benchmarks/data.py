"""How fast images arrive: the data module against torchvision's ``ImageFolder``."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

CLASSES = 31
SIDES = ((1000, 1000), (300, 300), (640, 480), (300, 300))
"""Width and height of the images in turn: a quarter is large, as amazon's, webcam's and dslr's."""


class Speed(NamedTuple):
    """Images per second.

    Attributes:
        first: in the first epoch, with whatever has to be made before it.
        second: in the second.
    """

    first: float
    second: float


def write_image_tree(root: Path, images: int) -> None:
    """Writes domains a and b of JPEGs: crops of scikit-learn's two photographs, with noise."""
    from sklearn.datasets import load_sample_images

    photos = load_sample_images().images
    rng = np.random.default_rng(0)
    for i in range(images):
        width, height = SIDES[i % len(SIDES)]
        photo = photos[rng.integers(len(photos))]
        tall = int(rng.integers(photo.shape[0] // 2, photo.shape[0]))
        wide = min(photo.shape[1], tall * width // height)
        top, left = (
            int(rng.integers(0, n - m + 1)) for n, m in zip(photo.shape, (tall, wide), strict=False)
        )
        crop = Image.fromarray(photo[top : top + tall, left : left + wide])
        pixels = np.asarray(crop.resize((width, height), Image.Resampling.BICUBIC), np.float32)
        noisy = (pixels + rng.normal(0, 4, (height, width, 1))).clip(0, 255).astype(np.uint8)
        folder = root / "ab"[i // len(SIDES) % 2] / f"class{i // (2 * len(SIDES)) % CLASSES:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy).save(folder / f"{i:05d}.jpg", quality=90)


def build_image_folder_loader(root: Path, batch: int, workers: int) -> Iterable[object]:
    """Both domains through ImageFolder, with the published transforms."""
    transform = v2.Compose(
        [
            v2.Resize((256, 256)),
            v2.RandomResizedCrop(224),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    data: Any = torch.utils.data.ConcatDataset([ImageFolder(root / d, transform) for d in "ab"])
    return DataLoader(
        data, batch, shuffle=True, drop_last=True, num_workers=workers,
        persistent_workers=workers > 0,
    )  # fmt: skip


def measure_loader(make: Callable[[], Iterable[object]], images: int) -> Speed:
    """Two epochs of a loader; making it counts to the first."""
    start = time.perf_counter()
    loader = make()
    times = []
    for _ in range(2):
        for _ in loader:
            pass
        times.append(time.perf_counter() - start)
        start = time.perf_counter()
    del loader
    return Speed(*(images / seconds for seconds in times))


def race_loaders(
    root: Path,
    images: int,
    batch: int,
    workers: int,
    rounds: int,
    ours: Callable[[int, bool], Iterable[object]],
    progress: Callable[[], None],
) -> dict[str, list[Speed]]:
    """Rounds of ``ImageFolder`` and of our loader with and without its cache, in turn.

    Args:
        root: the tree of :func:`write_image_tree`.
        images: how many of them an epoch takes.
        batch: images in a batch, of both domains together.
        workers: processes that load.
        rounds: how often.
        ours: makes our loader of so many workers, with a cache that is still to be built, or none.
        progress: called after every measurement.
    """
    ways: dict[str, Callable[[], Iterable[object]]] = {
        "ImageFolder": lambda: build_image_folder_loader(root, batch, workers),
        "with the cache": lambda: ours(workers, True),
        "without a cache": lambda: ours(workers, False),
    }
    speeds: dict[str, list[Speed]] = {name: [] for name in ways}
    for _, (name, make) in itertools.product(range(rounds), ways.items()):
        speeds[name].append(measure_loader(make, images))
        progress()
    return speeds


def median_speedups(speeds: dict[str, list[Speed]], name: str) -> Speed:
    """How many times as fast as ImageFolder in the same round, medians."""
    pairs = list(zip(speeds[name], speeds["ImageFolder"], strict=True))
    return Speed(*(median(ours[i] / theirs[i] for ours, theirs in pairs) for i in range(2)))
