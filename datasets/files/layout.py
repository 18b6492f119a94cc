"""Where a domain lies: in which folder, in whatever layout, and what is found there."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from da.errors import UserError

from ..fetching.archives import UNPACKED
from .file_names import folders, image_files, normalise_name


class Listing(NamedTuple):
    """The images of a domain; none of them is opened.

    Attributes:
        root: folder that the paths are relative to.
        paths: of N files, by class and name.
        labels: ``(N,)`` int64, positions in ``classes``; ``NO_LABEL`` where an image has none.
        classes: names in the order of the labels; empty where no image has a label.
        passed_over: other files, counted by how their names end.
        layout: what was found, for people: ``"amazon/images/CLASS/IMAGE"``.
    """

    root: Path
    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    passed_over: Counter[str] = Counter()
    layout: str = ""


def name_from_common_folder(listing: Listing) -> Listing:
    """The same images, named from the folder that holds them all.

    What they are called then does not depend on what lies above, such as an archive's folder.
    """
    base = os.path.commonpath({PurePosixPath(path).parent.as_posix() for path in listing.paths})
    paths = tuple(PurePosixPath(path).relative_to(base).as_posix() for path in listing.paths)
    return listing._replace(root=listing.root / base, paths=paths)


def map_spellings(classes: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The class that each name means, plain, of classes with their other names."""
    return {normalise_name(x): name for name, aliases in classes.items() for x in (name, *aliases)}


def require_root(root: str | None, expected: str = "DOMAIN/CLASS/IMAGE") -> Path:
    """The folder of a data set, or an archive of it; refuses what can't be either."""
    if root is None:
        raise UserError(f"root is missing: name the folder that holds {expected}")
    path = Path(root).expanduser()
    if not path.exists():
        raise UserError(f"root '{root}' is not a folder: name one that holds {expected}")
    return path


def walk_folders(root: Path, depth: int, skip: frozenset[str]) -> Iterator[Path]:
    """Folders below a folder, nearest first, not into those whose plain name is in ``skip``."""
    level = [root]
    for _ in range(depth):
        level = [
            folder / name
            for folder in level
            for name in folders(folder)
            if normalise_name(name) not in skip
        ]
        yield from level


def find_named_folders(
    root: Path,
    names: Sequence[str],
    classes: Mapping[str, Sequence[str]],
    skip: frozenset[str] = frozenset(),
    depth: int = 4,
) -> list[Path]:
    """A folder, or those below it, nearest first, that are called so, in any spelling.

    What an archive was unpacked into is called as the archive.

    Args:
        root: where to begin.
        names: of a domain.
        classes: as in :func:`find_folder`; a folder of a class is not looked into.
        skip: plain names of other folders that are not looked into.
        depth: how far below.
    """
    wanted = {normalise_name(name) for name in names}
    known = frozenset(map_spellings(classes))
    places = (
        root,
        *walk_folders(root, depth, skip | (known - wanted)),
    )  # VisDA's "train" is a class, too
    return [
        place for place in places if normalise_name(place.name.partition(UNPACKED)[0]) in wanted
    ]


def find_folder(
    root: Path,
    names: Sequence[str],
    classes: Mapping[str, Sequence[str]],
    skip: frozenset[str] = frozenset(),
) -> str | None:
    """The folder of a domain, relative to the root: the one that holds most of the classes.

    It is called by one of ``names`` in any spelling; its classes lie in it, or one level deeper
    (``amazon/images/CLASS``). None where there is none.

    Args:
        root: where to begin.
        names: of the domain.
        classes: each class with the other names of its folder.
        skip: plain names of folders that are not looked into.

    Raises:
        UserError: names two folders where several hold as many.
    """
    found = find_class_places(find_named_folders(root, names, classes, skip), classes)
    if len(found) > 1:  # there may be features beside images, in folders of the same names
        found = [
            place for place in found if any(image_files(place / name)[0] for name in folders(place))
        ] or found[:1]
    if len(found) > 1:
        raise UserError(
            f"domain '{names[0]}' is in '{found[0]}' and in '{found[1]}': name a root that holds "
            "one of them"
        )
    return found[0].relative_to(root).as_posix() if found else None


def find_class_places(around: Sequence[Path], classes: Mapping[str, Sequence[str]]) -> list[Path]:
    """The folders that hold most of the classes, of some and of those in them."""
    known = frozenset(map_spellings(classes))
    counts: dict[Path, int] = {}
    for folder in around:
        for inner in (folder, *walk_folders(folder, 1, known)):
            counts[inner] = sum(normalise_name(name) in known for name in folders(inner))
    most = max(counts.values(), default=0)
    return [place for place, count in counts.items() if most and count == most]


def find_file(
    root: Path, names: Sequence[str], skip: frozenset[str], depth: int = 3
) -> Path | None:
    """The first file of one of these names (in any case) in a folder or below it.

    A name may have a folder: ``test/image_list.txt``.
    """
    for folder in (root, *walk_folders(root, depth, skip)):
        inside = {entry.name.lower(): entry for entry in folder.iterdir()}
        for name in names:
            found = inside.get(name.lower()) if "/" not in name else folder / name
            if found is not None and found.is_file():
                return found
    return None
