"""A user's own images: any directory ``root/DOMAIN/CLASS/*.jpg`` is a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from da.errors import UserError

from .base import Split
from .fetching.archives import is_archive, unpack_archive, unpacked_folder
from .files.class_folders import list_class_folders
from .files.file_data import FileData
from .files.file_names import composed, folders, spelt_on_disk
from .files.layout import Listing, require_root


def list_domains(root: str | None) -> tuple[str, ...]:
    """The domains of a folder; refuses what can't be a data set."""
    found = folders(_folder(require_root(root)))
    if not found:
        raise UserError(f"root '{root}' holds no folders: expected DOMAIN/CLASS/IMAGE in it")
    return tuple(dict.fromkeys(map(composed, found)))


def _folder(path: Path) -> Path:
    """An archive is unpacked, also the only one in a folder that holds no others.

    A single folder in it, which most have, is the root.
    """
    if path.is_dir():
        archives = [file for file in path.iterdir() if file.is_file() and is_archive(file)]
        if len(archives) != 1 or set(folders(path)) - {unpacked_folder(archives[0]).name}:
            return path
        path = archives[0]
    inside = unpack_archive(path)
    found = folders(inside)
    return inside / found[0] if len(found) == 1 else inside


class Folder(FileData):
    """A folder of domains, ``root/DOMAIN/CLASS/IMAGE``, with images of any sizes and modes.

    Domains and classes are the names of the folders; images may lie in folders below those of
    classes. A target without labels is a folder of images, ``DOMAIN/unlabelled``, or any folder by
    its path. Names that start with a dot are passed over, and so are files that aren't called like
    images, which is said. Everything else is as in :class:`FileData`.
    """

    version = 3

    def __init__(self, source: str, target: str, root: str | None = None, **kwargs: Any) -> None:
        self.domains = list_domains(root)
        super().__init__(source, target, root=root, **kwargs)
        self.classes = self.classes_of_source
        self.listing(self.target)

    @classmethod
    def available(cls, root: str | None = None) -> tuple[str, ...]:
        """See :meth:`DomainData.available`."""
        found = list_domains(root)
        if len(found) < 2:
            raise UserError(f"root '{root}' has one domain, '{found[0]}': expected 2 or more")
        return found

    @classmethod
    def find(cls, root: Path, domain: str, split: Split) -> Listing:
        """See :meth:`FileData.find`."""
        folder = _folder(root)
        return list_class_folders(folder, spelt_on_disk(folder / domain).name)
