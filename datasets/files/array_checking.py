"""What is to be said of sets in memory: their counts, beside those that are published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from da.errors import UserError
from da.types import Check, Split

from .image_sets import ImageSet

if TYPE_CHECKING:
    from ..base import DomainData


def check_arrays(
    sets: Mapping[str, Mapping[Split, ImageSet]], published: Mapping[str, int]
) -> Check:
    """Counts of sets in memory, per domain and split, with a checksum for each.

    Args:
        sets: by domain and split.
        published: counts by ``"domain/split"``, where there are any.
    """
    lines = []
    differences = []
    for domain, splits in sets.items():
        for split, images in splits.items():
            counts = np.bincount(images.labels, minlength=len(images.classes))
            lines.append(
                f"{domain:12} {split:10} {len(images):7} images  {len(images.classes)} classes of "
                f"{counts.min()} to {counts.max()}  sha256 {images.fingerprint()[:16]}"
            )
            if empty := [images.classes[k] for k in np.flatnonzero(counts == 0)]:
                lines.append(f"{'':12} {'':10} without images: {', '.join(empty)}")
            expected = published.get(f"{domain}/{split}", len(images))
            if expected != len(images):
                differences.append(
                    f"differs: {domain}/{split}: {len(images):,} images, published are {expected:,}"
                )
    return Check("\n".join(lines + differences), not differences)


def check_published_arrays(cls: type[DomainData], root: str | None) -> Check:
    """As :func:`check_arrays` of a set with published lists, one domain after the other.

    Each is loaded as a target, which is never a subset. A domain that is not there is a note where
    no published task needs it.
    """
    lines, well, present = [], True, 0
    for domain in cls.domains:
        other = next(name for name in cls.domains if name != domain)
        module = cls(source=other, target=domain, root=root)
        try:
            splits: dict[Split, ImageSet] = {
                "train": module.read_split(domain, "train"),
                "test": module.read_split(domain, "test"),
            }
        except UserError as error:
            needed = cls.is_needed(domain)
            lines.append(f"{'differs' if needed else 'note'}: {error}")
            well = well and not needed
            continue
        check = check_arrays({domain: splits}, cls.counts)
        lines.append(check.text)
        well, present = well and check.well, present + 1
    return Check("\n".join(lines), well and present > 0)
