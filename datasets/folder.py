"""A user's own images: any directory ``root/DOMAIN/CLASS/*.jpg`` is a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from da.errors import UserError

from .base import Split
from .fetching.archives import is_archive, unpack_archive, unpacked_folder
from .files.file_data import FileData
from .files.image_sets import folders
from .files.layout import Listing, list_class_folders, require_root


def list_domains(root: str | None) -> tuple[str, ...]:
    """The domains of a folder; refuses what can't be a data set."""
    found = folders(_folder(require_root(root)))
    if not found:
        raise UserError(f"root '{root}' holds no folders: expected DOMAIN/CLASS/IMAGE in it")
    return tuple(found)


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

    Domains and classes are the names of the folders. Names that start with a dot and files that
    aren't called like images are passed over. Everything else is as in :class:`FileData`.
    """

    version = 3

    def __init__(self, source: str, target: str, root: str | None = None, **kwargs: Any) -> None:
        self.domains = list_domains(root)
        super().__init__(source, target, root=root, **kwargs)
        self.classes = self.listing(source).classes
        self.listing(target)

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
        return list_class_folders(_folder(root), domain)
