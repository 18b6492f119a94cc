from typing import ClassVar

import numpy as np
import pytest
import torch

from datasets.base import DomainData
from datasets.files.image_sets import ArrayImages
from datasets.streams.augmentation import ShiftAndJitter


class Toy(DomainData):
    """Domains of random images; their sizes and classes can be set."""

    domains = ("a", "b")
    development = ("c", "d")
    classes = ("x", "y", "z")
    image_size = 8
    mean = std = (0.5,)
    transform = ShiftAndJitter((0.5,), (0.5,))
    sizes: ClassVar = {"a": 20, "b": 11, "c": 9, "d": 9}
    class_sets: ClassVar = {}

    def read_split(self, domain, split):
        rng = np.random.default_rng([ord(domain), len(split)])
        n = self.sizes[domain]
        images = rng.integers(0, 256, (n, 1, 8, 8), dtype=np.uint8)
        classes = self.class_sets.get(domain, self.classes)
        return ArrayImages(images, np.arange(n) % len(classes), classes)


@pytest.fixture
def toy():
    torch.set_num_threads(1)
    return type("ToyData", (Toy,), {})
