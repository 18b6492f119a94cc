"""A published data set: its domains, classes, counts and citation, and how it is found on disk."""

from __future__ import annotations

import logging
from difflib import get_close_matches
from pathlib import Path, PurePosixPath

import numpy as np

from da.errors import UserError
from da.types import Origin

from ..base import Split
from ..fetching.archives import is_archive, unpack_archive, unpacked_folder
from ..fetching.downloads import Download, fetch_files
from .class_folders import list_class_folders
from .file_data import FileData
from .file_names import normalise_name
from .layout import (
    Listing,
    find_class_places,
    find_file,
    find_folder,
    find_named_folders,
    map_spellings,
    name_from_common_folder,
    walk_folders,
)
from .list_files import NoSuchFiles, read_list, resolve_paths

log = logging.getLogger(__name__)


class Benchmark(FileData):
    """A set that the field compares on, in any of the layouts in which it circulates.

    It states all of :class:`SetFacts`; ``classes`` are in the published order of the labels.

    Attributes:
        aliases: other names of a domain's folder; spelling, case and underscores don't matter.
        class_aliases: other names of a class's folder, to its name.
        lists: names of the list files of a domain, or of ``"domain/split"``.
        archives: names of the archives in which it circulates.
        downloads: what can be downloaded by a program.
        by_hand: how to get what can't.
    """

    aliases: dict[str, tuple[str, ...]] = {}
    class_aliases: dict[str, str] = {}
    lists: dict[str, tuple[str, ...]] = {}
    archives: tuple[str, ...] = ()
    downloads: tuple[Download, ...] = ()
    by_hand: str = ""

    @classmethod
    def origin(cls) -> Origin:
        """See :meth:`SetFacts.origin`."""
        return "downloaded" if cls.downloads else "got by hand"

    @classmethod
    def fetch(cls, root: Path) -> None:
        """Downloads the set into a folder, or says what to do by hand."""
        fetch_files(cls.title, cls.downloads, root, cls.by_hand)

    def check_presence(self, domain: str) -> None:
        """See :meth:`DomainData.check_presence`; says where another number is published."""
        super().check_presence(domain)
        splits: tuple[Split, ...] = ("train", "test") if self.published_splits else ("train",)
        for split in splits:
            key, count = self.key_of_split(domain, split), len(self.listing(domain, split).paths)
            if (published := self.counts.get(key, count)) != count:
                log.warning(
                    "%s: %s images, published are %s: what is trained on them is not comparable "
                    "with published numbers; data check %s says which classes differ",
                    *(key, f"{count:,}", f"{published:,}", type(self).__name__),
                )

    @classmethod
    def describe_root(cls) -> str:
        """See :meth:`FileData.describe_root`."""
        name = cls.__name__
        return (
            f"{cls.title} (domains {', '.join(cls.domains)}), or an archive of it; "
            f"'python run.py data fetch {name} --root DIR' gets it or says how"
        )

    @classmethod
    def names_of_classes(cls) -> dict[str, list[str]]:
        """See :meth:`FileData.names_of_classes`: the other names of its folder."""
        return {
            name: [alias for alias, meant in cls.class_aliases.items() if meant == name]
            for name in cls.classes
        }

    @classmethod
    def find(cls, root: Path, domain: str, split: Split) -> Listing:
        """See :meth:`FileData.find`; unpacks archives where there is nothing else."""
        folder = unpack_archive(root) if root.is_file() else root
        looked: list[str] = []
        found = cls.find_anywhere(folder, domain, split, looked)
        if found is None:
            also = f", also not in {', '.join(looked)}" if looked else ""
            raise UserError(
                f"domain '{domain}' of {cls.title} is not in '{root}'{also}: expected "
                f"{cls.describe_wanted(domain, split)}{cls.near(folder, domain)}; "
                f"'python run.py data fetch {cls.__name__} --root DIR' gets it or says how"
            )
        return name_from_common_folder(found)

    @classmethod
    def near(cls, folder: Path, domain: str) -> str:
        """A folder that may be a domain, by its name, in words; nothing where there is none."""
        names = [normalise_name(name) for name in cls.names_of_domain(domain)]
        others = [name for name in cls.domains if name != domain]
        known = frozenset(normalise_name(n) for o in others for n in cls.names_of_domain(o))
        classes = frozenset(map_spellings(cls.names_of_classes()))
        for place in walk_folders(folder, 3, known | classes):
            name = normalise_name(place.name)
            if any(own in name for own in names) or get_close_matches(name, names, 1, 0.75):
                return f" (there is '{place.relative_to(folder)}': rename it if it is meant)"
        return ""

    @classmethod
    def find_anywhere(
        cls, folder: Path, domain: str, split: Split, looked: list[str]
    ) -> Listing | None:
        """Looks in a folder, then in each archive in it, then in all of them together.

        What an archive was unpacked into counts as the archive, which may have changed.

        Args:
            folder: that exists.
            domain: to find.
            split: see :meth:`FileData.find`.
            looked: the names of archives are added to it.
        """
        archives = cls.list_archives(folder, domain)
        missing: NoSuchFiles | None = None
        try:
            skip = frozenset(normalise_name(unpacked_folder(archive).name) for archive in archives)
            if (found := cls.find_in_folder(folder, domain, split, skip)) is not None:
                return found
        except NoSuchFiles as error:  # of a list: they may be packed
            missing = error
        for archive in archives:
            inside = unpack_archive(archive)
            looked.append(archive.name)
            try:
                if (found := cls.find_anywhere(inside, domain, split, looked)) is not None:
                    return found._replace(layout=f"{archive.name}: {found.layout}")
            except NoSuchFiles as error:  # they may be in another archive
                missing = missing or error
        if archives and (found := cls.find_in_folder(folder, domain, split)) is not None:
            return found
        if missing is not None:
            raise missing
        return None

    @classmethod
    def describe_wanted(cls, domain: str, split: Split) -> str:
        """Where a domain would be, for people."""
        lists = cls.lists.get(cls.key_of_split(domain, split), ())
        named = [f"a folder '{domain}' of {len(cls.classes)} class folders"]
        if lists:
            named.append(f"the list '{lists[0]}'")
        return (" and " if cls.published_splits else " or ").join(named)

    @classmethod
    def key_of_split(cls, domain: str, split: Split) -> str:
        """How ``counts`` and ``lists`` call a domain, or one of its published splits."""
        return f"{domain}/{split}" if cls.published_splits else domain

    @classmethod
    def find_in_folder(
        cls, root: Path, domain: str, split: Split, skip: frozenset[str] = frozenset()
    ) -> Listing | None:
        """Folders of classes, or a list file, in or below a folder; None where there are none.

        Args:
            root: the folder.
            domain: to find.
            split: see :meth:`FileData.find`.
            skip: plain names of folders below that are not looked into.
        """
        if not cls.published_splits:
            folder = find_folder(root, cls.names_of_domain(domain), cls.names_of_classes(), skip)
            if folder is not None:
                return list_class_folders(root, folder, cls.names_of_classes(), domain)
        return cls.find_by_list(root, domain, split, skip)

    @classmethod
    def names_of_domain(cls, domain: str) -> tuple[str, ...]:
        """A domain's name and its others."""
        return (domain, *cls.aliases.get(domain, ()))

    @classmethod
    def find_by_list(
        cls, root: Path, domain: str, split: Split, skip: frozenset[str] = frozenset()
    ) -> Listing | None:
        """A list file, see :meth:`find_in_folder`; None where there is none."""
        known = frozenset(normalise_name(name) for name in cls.classes)
        file = find_file(root, cls.lists.get(cls.key_of_split(domain, split), ()), known | skip)
        return None if file is None else cls.read_listed(file, root, domain, skip)

    @classmethod
    def read_listed(
        cls, file: Path, root: Path, domain: str, skip: frozenset[str] = frozenset()
    ) -> Listing:
        """The images of a list file, see :meth:`find_in_folder`.

        The class is the folder that an image lies in, since lists of different authors number the
        classes differently; the number is used where the folder is no class.
        """
        lines = read_list(file)
        paths = resolve_paths(file, lines, cls.find_bases(file, root, domain, skip), root)
        place = {name: label for label, name in enumerate(cls.classes)}
        label = {
            spelt: place[name] for spelt, name in map_spellings(cls.names_of_classes()).items()
        }
        folders = [PurePosixPath(path).parent for path in paths]
        numbers: dict[PurePosixPath, set[int]] = {}
        for folder, line in zip(folders, lines, strict=True):
            numbers.setdefault(folder, set()).add(line.label)
        # VisDA's domain "train" is called as a class: a folder of several classes is the domain's.
        own = {normalise_name(name) for name in cls.names_of_domain(domain)}
        several = {
            f for f, found in numbers.items() if normalise_name(f.name) in own and len(found) > 1
        }
        labels = np.array(
            [
                line.label
                if folder in several
                else label.get(normalise_name(folder.name), line.label)
                for folder, line in zip(folders, lines, strict=True)
            ],
            np.int64,
        )
        if labels.max() >= len(cls.classes):
            first = lines[int(np.argmax(labels >= len(cls.classes)))]
            raise UserError(
                f"{file}:{first.number}: label {first.label} of '{first.path}' is beyond the "
                f"{len(cls.classes)} classes of {cls.title}"
            )
        layout = f"{file.relative_to(root).as_posix()} ({paths[0]}, …)"
        return Listing(root, tuple(paths), labels, cls.classes, layout=layout)

    @classmethod
    def find_bases(cls, file: Path, root: Path, domain: str, skip: frozenset[str]) -> list[Path]:
        """Folders that the paths of a list may be relative to."""
        around = find_named_folders(root, cls.names_of_domain(domain), cls.names_of_classes(), skip)
        around += find_class_places(around, cls.names_of_classes())
        above = [path for place in around for path in (place, *place.parents)]
        inside = [path for path in (*above, *file.parents) if path.is_relative_to(root)]
        return list(dict.fromkeys((root, *inside)))

    @classmethod
    def list_archives(cls, folder: Path, domain: str) -> list[Path]:
        """Archives in a folder that may hold a domain: those of the set's names, else all."""
        found = sorted(path for path in folder.iterdir() if path.is_file() and is_archive(path))
        known = {normalise_name(name) for name in (*cls.archives, *(d.file for d in cls.downloads))}
        named = [path for path in found if normalise_name(path.name) in known]
        own = [
            path
            for path in found
            if normalise_name(path.name.partition(".")[0])
            in {normalise_name(x) for x in cls.names_of_domain(domain)}
        ]
        return own or named or found
