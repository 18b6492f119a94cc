"""A target that is no domain of the set: a folder of pictures, an archive of one, or a list."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from da.errors import UserError
from da.ops.domain_names import name_of_domain

from ..fetching.archives import is_archive, unpack_archive
from .class_folders import list_class_folders, list_unlabelled
from .class_matching import NO_LABEL
from .file_names import folders, normalise_name
from .layout import Listing, map_spellings
from .list_files import read_list, resolve_paths


def place_of_target(target: str, domains: Collection[str], root: Path) -> tuple[Path | None, str]:
    """What a target's path names, and what to call it.

    Args:
        target: the path.
        domains: of the set; another folder than theirs is called otherwise.
        root: of the set.

    Returns:
        The place and a name; no place where it is a domain of the set.

    Raises:
        UserError: there is no such folder or file.
    """
    path = Path(target).expanduser()
    if not path.exists():
        raise UserError(
            f"target: there is no folder '{target}'; name a folder of images, a list of their "
            f"paths, or one of: {', '.join(domains)}"
        )
    name = name_of_domain(target)
    if name in domains and (own := root / name).exists() and own.samefile(path):
        return None, name
    return path, f"{path.resolve().parent.name}/{name}" if name in domains else name


def list_target(path: Path, name: str, classes: Mapping[str, Sequence[str]]) -> Listing:
    """The images of a target that a path names.

    Folders in it are classes where any is called as a class of the source; else nothing in it has
    a label, however its images lie in folders. Of a list, lines without a label or with -1 have
    none, and numbers are no names, so that they are refused.

    Args:
        path: of a folder, an archive, or a list.
        name: what to call it.
        classes: of the source, each with its other names.
    """
    if path.is_file() and not is_archive(path):
        return _listed(path, name)
    folder = unpack_archive(path) if path.is_file() else path
    known = map_spellings(classes)
    if not any(normalise_name(one) in known for one in folders(folder)):
        return list_unlabelled(folder, [""], name)
    found = list_class_folders(folder, "", inside=name)
    spelt = tuple(known.get(normalise_name(one), one) for one in found.classes)
    return found if len({*spelt}) < len(spelt) else found._replace(classes=spelt)


def _listed(file: Path, name: str) -> Listing:
    lines = read_list(file, labelled=False)
    labelled = next((line for line in lines if line.label >= 0), None)
    if labelled is not None:
        raise UserError(
            f"{file}:{labelled.number}: label {labelled.label} of target '{name}' is a number, and "
            "classes are matched by name: leave the labels out, name a folder, or use --data "
            "ImageList with the list in its root"
        )
    paths = resolve_paths(file, lines, [file.parent], file.parent)
    labels = np.full(len(paths), NO_LABEL, np.int64)
    return Listing(file.parent, tuple(paths), labels, (), layout=f"{file.name} ({paths[0]}, …)")
