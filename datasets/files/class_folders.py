"""The images of a domain by their folders: those of its classes, or any of one without labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from da.errors import UserError

from .class_matching import NO_LABEL
from .file_names import (
    BESIDE,
    composed,
    folders,
    image_files,
    images_below,
    in_order,
    normalise_name,
)
from .layout import Listing, map_spellings

UNLABELLED = ("unlabelled", "unlabeled")
"""Names of a folder beside those of classes, or in place of them, whose images have no labels."""


def list_class_folders(
    root: Path, domain: str, classes: Mapping[str, Sequence[str]] | None = None, inside: str = ""
) -> Listing:
    """Lists ``root/DOMAIN/CLASS/IMAGE``, with what lies in folders below those of classes.

    Other files are passed over, an empty class is refused. Images in ``DOMAIN/unlabelled`` have no
    label, and neither have those of a domain without folders.

    Args:
        root: folder that ``domain`` lies in.
        domain: folder of the classes, relative to ``root``; ``""`` is ``root`` itself.
        classes: the names of each class in the order of the labels; without them, the names of
            the folders, sorted, by number where all are numbers.
        inside: what to call the domain in an error; ``domain`` where not given.
    """
    called, place = inside or domain, root / domain
    prefix = f"{domain}/" if domain else ""
    within = folders(place)
    bare = [name for name in within if normalise_name(name) in UNLABELLED]
    named = [name for name in within if name not in bare]
    direct = image_files(place)
    if not within:
        if direct.names:
            return list_unlabelled(root, [domain], called)
        raise UserError(
            f"domain '{called}' has no folders of classes, and no images: expected images in "
            f"'{place}/CLASS/', or in it where they have no labels; move them there, or name "
            "another root"
        )
    if not named:
        return list_unlabelled(root, [f"{prefix}{name}" for name in bare], called)
    if classes is None:
        pairs = pair_with_names(named, called, place)
    else:
        pairs = match_folders(named, classes, called, place)
    paths: list[str] = []
    labels: list[int] = []
    passed_over = Counter(direct.passed_over)
    if direct.names:
        passed_over[BESIDE] = len(direct.names)
    for label, (name, folder) in enumerate(pairs):
        found = images_below(place / folder)
        if not found.names:
            raise UserError(
                f"class '{name}' of domain '{called}' holds no images (other files: "
                f"{found.passed_over.total()}): put some into '{place / folder}', or remove the "
                "folder"
            )
        paths += [f"{prefix}{folder}/{file}" for file in found.names]
        labels += [label] * len(found.names)
        passed_over += found.passed_over
    if bare:
        rest = list_unlabelled(root, [f"{prefix}{name}" for name in bare], called)
        paths += rest.paths
        labels += [NO_LABEL] * len(rest.paths)
        passed_over += rest.passed_over
    return Listing(
        root,
        tuple(paths),
        np.array(labels, np.int64),
        tuple(name for name, _ in pairs),
        passed_over,
        f"{prefix}CLASS/IMAGE",
    )


def list_unlabelled(root: Path, places: Sequence[str], domain: str) -> Listing:
    """The images in some folders and below them, none of which has a label.

    Args:
        root: folder that the paths are relative to.
        places: folders, relative to ``root``; ``""`` is ``root`` itself.
        domain: what to call it in an error.
    """
    paths: list[str] = []
    passed_over = Counter[str]()
    for place in places:
        found = images_below(root / place)
        paths += [f"{place}/{name}" if place else name for name in found.names]
        passed_over += found.passed_over
    if not paths:
        raise UserError(
            f"domain '{domain}' holds no images (other files: {passed_over.total()}): put some "
            f"into '{root / places[0]}', or name another folder"
        )
    labels = np.full(len(paths), NO_LABEL, np.int64)
    layout = f"{places[0]}/IMAGE, without labels" if places[0] else "IMAGE, without labels"
    return Listing(root, tuple(paths), labels, (), passed_over, layout)


def pair_with_names(found: Sequence[str], domain: str, where: Path) -> list[tuple[str, str]]:
    """Pairs the names of a user's classes with their folders, in order; refuses two of one name."""
    folder: dict[str, str] = {}
    for name in found:
        if folder.setdefault(composed(name), name) != name:
            raise UserError(
                f"domain '{domain}' in '{where}' has class '{name}' twice, in two spellings of its "
                "accents (NFC and NFD); join the folders, or rename one"
            )
    return [(name, folder[name]) for name in in_order(folder)]


def match_folders(
    found: Sequence[str], classes: Mapping[str, Sequence[str]], domain: str, where: Path
) -> list[tuple[str, str]]:
    """Pairs each class with its folder; refuses another folder, a second one, and a missing one."""
    known = map_spellings(classes)
    folder: dict[str, str] = {}
    for name in found:
        if (
            normalise_name(name) in known
            and (other := folder.setdefault(known[normalise_name(name)], name)) != name
        ):
            raise UserError(
                f"domain '{domain}' in '{where}' has class '{known[normalise_name(name)]}' twice: "
                f"folders '{other}' and '{name}'; join them, or remove one"
            )
    extra = [name for name in found if normalise_name(name) not in known]
    missing = [name for name in classes if name not in folder]
    if extra or missing:
        raise UserError(
            f"domain '{domain}' in '{where}' has other classes than published: missing: "
            f"{_some(missing)}; not published: {_some(extra)}; complete or remove them, or use "
            "--data Folder"
        )
    return [(name, folder[name]) for name in classes]


def _some(names: Sequence[str], most: int = 8) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
