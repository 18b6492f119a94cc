"""Which files are images by their names, in a folder and below it, and what they are called."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from da.errors import UserError

EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"),
    ".webp",
)

HIDDEN = "hidden"
"""What files are counted as whose names start with a dot."""


BESIDE = "beside the folders of classes"
"""What images are counted as that lie where they are of no class."""


class Found(NamedTuple):
    """Image files, and what lies beside them.

    Attributes:
        names: of the images, relative to the folder that was looked at.
        passed_over: the other files, counted by how their names end (:data:`HIDDEN` of hidden ones,
            "no ending").
    """

    names: list[str]
    passed_over: Counter[str]


def is_image_name(name: str) -> bool:
    """Whether a file is called like an image.

    >>> is_image_name("a.JPG"), is_image_name("a/b.jfif"), is_image_name(".a.jpg")
    (True, True, False)
    """
    path = PurePosixPath(name)
    return path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")


def image_files(folder: Path) -> Found:
    """The images directly in a folder, sorted, and the other files in it."""
    names, others = [], Counter[str]()
    for entry in _entries(folder):
        if entry.is_dir():
            continue
        if is_image_name(entry.name):
            names.append(entry.name)
        else:
            others[_ending(entry.name)] += 1
    return Found(sorted(names), others)


def images_below(folder: Path) -> Found:
    """The images in a folder and in all folders below it, in the order of ``ImageFolder``.

    Links to folders are followed, each folder once. Folders that :func:`folders` leaves out are not
    looked into.
    """
    names: list[str] = []
    others = Counter[str]()
    for inner in _folders_below(folder, set()):
        found = image_files(folder / inner)
        names += [f"{inner}/{name}" if inner else name for name in found.names]
        others += found.passed_over
    return Found(names, others)


def _folders_below(folder: Path, seen: set[tuple[int, int]], inner: str = "") -> Iterator[str]:
    state = folder.stat()
    if (state.st_dev, state.st_ino) in seen:
        return
    seen.add((state.st_dev, state.st_ino))
    yield inner
    for name in folders(folder):
        yield from _folders_below(folder / name, seen, f"{inner}/{name}" if inner else name)


def _ending(name: str) -> str:
    if name.startswith("."):
        return HIDDEN
    return PurePosixPath(name).suffix.lower() or "no ending"


def folders(folder: Path) -> list[str]:
    """The names of the folders in a folder, sorted; by number where all are numbers.

    Those that start with a dot are passed over, and what macOS puts beside what it packs.
    """
    return in_order(
        entry.name
        for entry in _entries(folder)
        if entry.is_dir() and not entry.name.startswith(".") and entry.name != "__MACOSX"
    )


def in_order(names: Iterator[str] | Collection[str]) -> list[str]:
    """Names sorted: as text, or by number where all of them are numbers.

    >>> in_order(["10", "9", "1"]), in_order(["10", "9", "one"])
    (['1', '9', '10'], ['10', '9', 'one'])
    """
    given = sorted(names)
    return sorted(given, key=int) if are_numbers(given) else given


def are_numbers(names: Collection[str]) -> bool:
    """Whether all of these names are whole numbers."""
    return all(name.isascii() and name.isdecimal() for name in names)


def composed(name: str) -> str:
    """A name with each accented letter as one character (NFC), as most systems write it.

    macOS and archives made there write a letter and its accent (NFD); both look the same.
    """
    return unicodedata.normalize("NFC", name)


def normalise_name(name: str) -> str:
    """A name without what its spellings differ in.

    >>> normalise_name("Real World") == normalise_name("real_world") == normalise_name("RealWorld")
    True
    """
    return re.sub(r"[\s_-]+", "", composed(name)).lower()


def spelt_on_disk(path: Path) -> Path:
    """A path as it is on disk, where its names may be spelt in another form of Unicode.

    The path itself where there is nothing like it.
    """
    if os.path.lexists(path) or path.parent == path:
        return path
    parent = spelt_on_disk(path.parent)
    if not path.name.isascii() and parent.is_dir():
        for entry in parent.iterdir():
            if composed(entry.name) == composed(path.name):
                return entry
    return parent / path.name


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise UserError(f"folder '{folder}' can't be listed: {error.strerror}") from error
