"""What is to be said of files that are read, or passed over: nobody would notice by themselves."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from da.errors import UserError

from .class_matching import NO_LABEL
from .content_hashes import content_hashes
from .decoding import Reading
from .file_names import HIDDEN, images_below
from .image_sets import FileImages
from .peculiarities import Peculiar, peculiarities

log = logging.getLogger(__name__)

SIXTEEN_BITS = 65535
FEW = 4095
"""Grey values of a 16-bit file up to here, 12 bits, come out as 15 of 255 at most."""


def remarks_of_names(domain: str, passed_over: Counter[str]) -> list[str]:
    """Which files of a domain were passed over by their names; hidden ones are not worth a word."""
    shown = {ending: n for ending, n in passed_over.most_common() if ending != HIDDEN}
    if not shown:
        return []
    endings = ", ".join(f"{ending} {n:,}" for ending, n in shown.items())
    return [
        f"{domain}: {sum(shown.values()):,} files are passed over, as they aren't called like "
        f"images or lie beside the folders of classes ({endings}); convert, rename or move those "
        "that are meant"
    ]


def remarks_of_files(domain: str, found: Peculiar) -> list[str]:
    """What the images of a domain come out as that nobody would expect, a line each."""
    said = []
    if found.frames:
        said.append(
            f"{domain}: {found.frames:,} files hold several frames or pages, of which the first is "
            f"read, such as '{found.first}'; save others as files of their own"
        )
    if found.deep and found.brightest <= FEW:
        bits = found.brightest.bit_length()
        most = round(found.brightest / 257)
        said.append(
            f"{domain}: the {found.deep:,} grey images of 16 bits have no value above "
            f"{found.brightest:,}, which takes {bits} bits: they come out nearly black, {most} of "
            f"255 at most; multiply them by {SIXTEEN_BITS // max(found.brightest, 1)}"
        )
    return said


def remarks_of_two(a: str, one: FileImages, b: str, other: FileImages) -> list[str]:
    """Which images two domains have in common, by their content."""
    try:
        first, second = (content_hashes(files.root, files.paths) for files in (one, other))
    except UserError:  # a file is gone, which is said elsewhere
        return []
    both = set(first) & set(second)
    if not both:
        return []
    i = next(i for i, content in enumerate(first) if content in both)
    j = second.index(first[i])
    return [
        f"{sum(x in both for x in second):,} of {len(second):,} images of {b} are the same as "
        f"images of {a}, such as '{other.paths[j]}' and '{one.paths[i]}'"
    ]


def remarks_of_domains(
    sources: Sequence[str],
    target: str,
    files: Mapping[str, FileImages],
    passed_over: Mapping[str, Counter[str]],
) -> list[str]:
    """All that is to be said of the domains of a training, a line each."""
    said = []
    for domain, own in files.items():
        said += remarks_of_names(domain, passed_over[domain])
        said += remarks_of_files(domain, peculiarities(own))
        left_out = int((own.labels == NO_LABEL).sum())
        if domain in sources and left_out:
            said.append(f"{domain}: {left_out:,} images have no label, and are not of the source")
    for domain in sources:
        if domain != target:
            said += remarks_of_two(domain, files[domain], target, files[target])
    return said


def images_of_folder(folder: str | Path, reading: Reading) -> FileImages:
    """The images in a folder and below it, to be predicted; says what is passed over.

    Raises:
        UserError: there is no such folder, or no image in it.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise UserError(f"'{folder}' is not a folder; name one that holds images")
    names, others = images_below(path)
    if not names:
        raise UserError(f"folder '{folder}' holds no images (other files: {others.total()})")
    files = FileImages(path, names, np.zeros(len(names), np.int64), ("",), reading)
    called = str(folder)
    for text in (
        *remarks_of_names(called, others),
        *remarks_of_files(called, peculiarities(files)),
    ):
        log.warning("%s", text)
    return files
