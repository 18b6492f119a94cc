"""The embedded digits: three domains that need no download, and two more to tune on."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from .base import SPLITS, DomainData, Split
from .files.array_cache import Arrays, folder, kept
from .files.digits_recipe import RECIPES, SIZE, VERSION
from .files.image_sets import ArrayImages
from .streams.augmentation import ShiftAndJitter

_HALF = (0.5, 0.5, 0.5)


class Digits(DomainData):
    """Digits in three domains of 3 x 32 x 32, split 60/20/20; needs no download.

    How they are made, and how hard they are, is said in :mod:`.files.digits_recipe`.

    ``rendered``: 2,000 digits in 20 fonts. ``optical``: 1,000 handwritten digits. ``photo``: 797
    other handwritten digits, twice each, blended into photographs. They are made at the first use
    (seconds) and kept, checked by a checksum, in ``root`` or in the user's cache folder.

    ``outlined`` and ``sketched`` are for tuning alone: they share no image with the three.
    """

    domains = ("rendered", "optical", "photo")
    development = ("outlined", "sketched")
    version = VERSION
    classes_in_turn = True
    classes = tuple(str(digit) for digit in range(10))
    image_size = SIZE
    mean = _HALF
    std = _HALF
    transform = ShiftAndJitter(_HALF, _HALF)

    def __init__(self, source: str = "rendered", target: str = "optical", **kwargs: Any) -> None:
        super().__init__(source, target, **kwargs)

    def read_split(self, domain: str, split: Split) -> ArrayImages:
        """See :meth:`DomainData.read_split`."""
        arrays, _ = read_or_make_arrays(domain, folder(self.root))
        chosen = arrays["splits"] == SPLITS.index(split)
        return ArrayImages(arrays["images"][chosen], arrays["labels"][chosen], self.classes)


@lru_cache(maxsize=8)
def read_or_make_arrays(domain: str, root: Path) -> tuple[Arrays, str]:
    """A domain's arrays (see ``Made`` in :mod:`.files.digits_recipe`) and their SHA-256.

    They are read, or made where they are missing, once per process.
    """
    path = root / "digits" / f"v{VERSION}" / f"{domain}.npz"
    return kept(path, lambda: {k: np.asarray(v) for k, v in RECIPES[domain]()._asdict().items()})
