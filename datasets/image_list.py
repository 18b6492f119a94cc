"""Image-list files, ``path label`` per line, as many papers ship them."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from da.errors import UserError
from da.ops.domain_names import is_path, split_sources

from .base import Split
from .fetching.archives import unpack_archive
from .files.class_matching import NO_LABEL
from .files.file_data import FileData
from .files.file_names import composed, is_image_name
from .files.layout import Listing, require_root
from .files.list_files import Line, read_list, resolve_paths, split_line

_PLACES = ("", "image_list", "lists", "list")
Pairs = frozenset[tuple[int, str]]
"""The labels of a list, each with the folders of its images; -1 of those without a label."""


class _Read(NamedTuple):
    lines: tuple[Line, ...]
    pairs: Pairs


def find_list_files(root: Path) -> dict[str, Path]:
    """The lists in a folder, or in ``image_list`` in it, by the name of their domain.

    A text that does not begin with ``path label``, such as a README, is passed over.
    """
    for place in _PLACES:
        lists = [file for file in _texts(root / place) if _is_list(file)]
        if lists:
            return {_domain(file): file for file in lists}
    return {}


class ImageList(FileData):
    """Domains given by list files: ``root/NAME.txt`` or ``root/image_list/NAME.txt`` is NAME.

    Each line is the path of an image and the number of its class; the target's may lack it, or have
    -1, where an image has no label. Paths may have the prefix of
    another machine: first parts that don't exist under the root are left out. The numbers are 0 to
    K-1 over all lists; one list may lack some. Classes are named after the folders of their images
    where each label has one folder and each folder one label, else they are their numbers.
    """

    def __init__(self, source: str, target: str, root: str | None = None, **kwargs: Any) -> None:
        folder = _folder(require_root(root, self.describe_root()))
        lists = find_list_files(folder)
        _refuse_others(folder, (*split_sources(source, lists), target))
        self.domains = tuple(lists) if is_path(target) and lists else self.available(root)
        super().__init__(source, target, root=root, **kwargs)
        self.classes = self.classes_of_source
        self.listing(self.target)

    @classmethod
    def describe_root(cls) -> str:
        """See :meth:`FileData.describe_root`."""
        return "lists 'path label' such as amazon.txt, and their images"

    @classmethod
    def available(cls, root: str | None = None) -> tuple[str, ...]:
        """See :meth:`DomainData.available`."""
        found = find_list_files(_folder(require_root(root, cls.describe_root())))
        if len(found) < 2:
            raise UserError(
                f"root '{root}' holds {len(found)} lists, expected 2 or more: NAME.txt that begins "
                "with a line 'path label' for each domain, in it or in its folder image_list"
            )
        return tuple(found)

    @classmethod
    def find(cls, root: Path, domain: str, split: Split) -> Listing:
        """See :meth:`FileData.find`."""
        folder = _folder(root)
        files = find_list_files(folder)
        file = files[domain]
        own = _read(file)
        lists = {other: read.pairs for other in files.values() if (read := _tried(other))}
        _refuse_unused(lists)
        paths = resolve_paths(file, own.lines, list(dict.fromkeys((folder, file.parent))), folder)
        names = class_names(own.pairs, lists.values())
        present = sorted(names)
        numbers = np.array([line.label for line in own.lines])
        labels = np.where(numbers < 0, NO_LABEL, np.searchsorted(present, numbers)).astype(np.int64)
        layout = f"{file.relative_to(folder).as_posix()} ({paths[0]}, …)"
        classes = tuple(names[k] for k in present)
        return Listing(folder, tuple(paths), labels, classes, layout=layout)


def class_names(own: Pairs, lists: Collection[Pairs]) -> dict[int, str]:
    """The name of each label of a list: its folder, if that is one to one, else its number.

    Lists whose folders are classes name the labels of all, so that one with fewer classes, or with
    all images in one folder, agrees with the others.

    Args:
        own: of the list.
        lists: of all lists of the set.
    """
    named = [_labelled(pairs) for pairs in lists if _one_to_one(pairs)]
    agreed = Pairs().union(*named)
    names = dict(agreed)
    own = _labelled(own)
    numbers = {label: str(label) for label, _ in own}
    if not _one_to_one(agreed):  # they number or call classes differently: folders say more
        return dict(own) if own in named else numbers
    if any(label not in names for pairs in lists for label, _ in _labelled(pairs)):
        return numbers
    return {label: names[label] for label in numbers}


def _labelled(pairs: Pairs) -> Pairs:
    """Those of images that have a label."""
    return Pairs(pair for pair in pairs if pair[0] >= 0)


def _one_to_one(pairs: Pairs) -> bool:
    folders = {folder for _, folder in pairs}
    return len({label for label, _ in pairs}) == len(folders) == len(pairs) and all(folders)


def _refuse_unused(lists: dict[Path, Pairs]) -> None:
    """Refuses numbers from 1, or with a gap: a class that no list has is a mistake."""
    lists = {file: own for file, pairs in lists.items() if (own := _labelled(pairs))}
    if not lists:
        return
    largest = {file: max(label for label, _ in pairs) for file, pairs in lists.items()}
    file = max(largest, key=lambda file: largest[file])
    used = {label for pairs in lists.values() for label, _ in pairs}
    unused = next(label for label in count() if label not in used)
    if unused < largest[file]:
        raise UserError(
            f"list '{file}' has label {largest[file]}: labels must be 0 to K-1; none is {unused} "
            f"in any list: number the {len(used)} classes from 0 to {len(used) - 1} in all of them"
        )


def _refuse_others(root: Path, chosen: Collection[str]) -> None:
    """Refuses a domain whose file is there but no list, with the reason."""
    lists = find_list_files(root)
    texts = {_domain(file): file for place in _PLACES[::-1] for file in _texts(root / place)}
    for domain in chosen:
        if domain in texts and domain not in lists:
            line = read_list(texts[domain])[0]  # most often says what is wrong
            raise UserError(
                f"{texts[domain]}:{line.number}: expected 'path label' with the path of an image, "
                f"got '{line.path} {line.label}'; choose one of: {', '.join(lists)}"
            )


def _folder(path: Path) -> Path:
    return path if path.is_dir() else unpack_archive(path)


def _texts(folder: Path) -> list[Path]:
    """The files in a folder that may be lists."""
    files = folder.glob("*.txt") if folder.is_dir() else ()
    return sorted(path for path in files if not path.name.startswith("."))


def _domain(file: Path) -> str:
    return file.stem.removesuffix("_list")


def _is_list(file: Path) -> bool:
    """Whether the first line of a file that isn't blank is an image and a label."""
    try:
        with file.open(encoding="utf-8-sig", errors="replace") as lines:
            first = next((line.strip() for line in lines if line.strip()), "")
    except OSError:
        return file.is_file()  # whoever reads it is told why it can't be
    path, label = split_line(first)
    # "back_pack 0" is the line of a list of classes.
    image = "/" in path or "\\" in path or is_image_name(path)
    return image and (label.isdecimal() or label in ("", "-1"))


def _read(file: Path) -> _Read:
    """A list, read once in a process as long as the file is the same."""
    now = file.stat()
    return _parsed(file, now.st_mtime_ns, now.st_size)


@cache
def _parsed(file: Path, *version: int) -> _Read:
    lines = tuple(read_list(file, labelled=False))
    # Few folders hold many images, and names are cut from paths only once for each.
    pairs = {(line.label, line.path.replace("\\", "/").rpartition("/")[0]) for line in lines}
    named = ((label, composed(PurePosixPath(folder).name)) for label, folder in pairs)
    return _Read(lines, Pairs(named))


def _tried(file: Path) -> _Read | None:
    """None where a list is broken: it is refused where it is chosen, and not where others are."""
    try:
        return _read(file)
    except UserError:
        return None
