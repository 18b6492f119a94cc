"""Image-list files, ``path label`` per line, as many papers ship them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from da.errors import UserError
from datasets.archives import unpacked
from datasets.base import Split
from datasets.file_data import FileData
from datasets.listing import Listing, opened, read_list, resolved

_PLACES = ("", "image_list", "lists", "list")


def list_files(root: Path) -> dict[str, Path]:
    """The lists in a folder, or in ``image_list`` in it, by the name of their domain."""
    for place in _PLACES:
        folder = root / place
        if folder.is_dir():
            files = sorted(p for p in folder.glob("*.txt") if not p.name.startswith("."))
            if files:
                return {path.stem.removesuffix("_list"): path for path in files}
    return {}


class ImageList(FileData):
    """Domains given by list files: ``root/NAME.txt`` or ``root/image_list/NAME.txt`` is NAME.

    Each line is the path of an image and the number of its class. Paths may have the prefix of
    another machine: first parts that don't exist under the root are left out. Classes are named
    after the folders of their images where each label has one folder and each folder one label,
    else they are their numbers.
    """

    def __init__(self, source: str, target: str, root: str | None = None, **kwargs: Any) -> None:
        self.domains = self.available(root)
        super().__init__(source, target, root=root, **kwargs)
        self.classes = self.listing(source).classes
        self.listing(target)

    @classmethod
    def expected(cls) -> str:
        """See :meth:`FileData.expected`."""
        return "lists 'path label' such as amazon.txt, and their images"

    @classmethod
    def available(cls, root: str | None = None) -> tuple[str, ...]:
        """See :meth:`DomainData.available`."""
        found = list_files(_folder(opened(root, cls.expected())))
        if len(found) < 2:
            raise UserError(
                f"root '{root}' holds {len(found)} lists, expected 2 or more: NAME.txt with lines "
                "'path label' for each domain, in it or in its folder image_list"
            )
        return tuple(found)

    @classmethod
    def find(cls, root: Path, domain: str, split: Split) -> Listing:
        """See :meth:`FileData.find`."""
        folder = _folder(root)
        file = list_files(folder)[domain]
        lines = read_list(file)
        paths = resolved(file, lines, list(dict.fromkeys((folder, file.parent))), folder)
        labels = np.array([line.label for line in lines], np.int64)
        classes = _names(paths, labels)
        layout = f"{file.relative_to(folder).as_posix()} ({paths[0]}, …)"
        return Listing(folder, tuple(paths), labels, classes, 0, layout)


def _folder(path: Path) -> Path:
    return path if path.is_dir() else unpacked(path)


def _names(paths: list[str], labels: np.ndarray) -> tuple[str, ...]:
    """The name of each class: its folder, if that is one to one, else its number."""
    count = int(labels.max()) + 1
    pairs = {(int(k), Path(path).parent.name) for k, path in zip(labels, paths, strict=True)}
    names = dict(pairs)
    if len(pairs) == len(names) == len(set(names.values())) == count:
        return tuple(names[k] for k in range(count))
    return tuple(str(k) for k in range(count))
