"""What is wrong with a set's files: every image decoded in parallel, counts against the published.

A check changes nothing. It reads each file once, so that it also knows which are the same.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from da.errors import UserError
from da.types import Check, Split

from .decoding import Reading
from .image_probe import Seen, probe_image, touched
from .image_sets import FileImages
from .layout import Listing, require_root
from .parallel import in_parallel
from .peculiarities import Peculiar, sum_up
from .remarks import remarks_of_files

if TYPE_CHECKING:
    from .file_data import FileData


MOST_NAMED = 200
"""So many bad files are named; the rest are counted."""


def probe_files(files: FileImages, workers: int | None, show: bool, text: str) -> Iterator[Seen]:
    """Every file in order, decoded by processes; a few are in memory at a time.

    Args:
        files: what to look at.
        workers: processes; one per core by default.
        show: say how far it is, a bar on a terminal, else a line now and then.
        text: what is being done.
    """
    where = (files.root, files.reading)
    return in_parallel(_probe_under, [(where, path) for path in files.paths], workers, text, show)


def _probe_under(where: tuple[Path, Reading], path: str) -> Seen:
    root, reading = where
    return probe_image(root / path, reading)


def unreadable(files: FileImages, workers: int | None = None, show: bool = True) -> dict[int, str]:
    """The images that can't be read.

    Args:
        files: all are decoded.
        workers: see :func:`probe_files`.
        show: see :func:`probe_files`.

    Returns:
        For each of them its index and one line that names the file and the reason.
    """
    bad = {}
    for i, item in enumerate(probe_files(files, workers, show, "decoding every image")):
        if item.problem:
            bad[i] = named(files.root / files.paths[i], item.problem)
    return bad


def named(path: Path, problem: str) -> str:
    """One line for a file that can't be read."""
    return f"image '{path}' can't be read: {problem}"


@dataclass
class Part:
    """What was found of one domain, or of one of its published splits.

    Attributes:
        name: ``"amazon"`` or ``"clipart/train"``.
        listing: its files; None where it was not found.
        missing: why it was not found.
        needed: some published task has it.
        published: the number of images that it has as published, where that is known.
        class_counts: the published number of each class; empty where unknown.
        bad: one line for every file that can't be read.
        manifest: a checksum of names, labels and contents; empty where files are missing, or none
            was opened.
        kinds: images of each kind.
        smallest: least width and height.
        largest: greatest width and height.
        turned: images with an EXIF orientation.
        contents: ``(N,)`` uint64, equal for equal files.
        peculiar: what is to be said of the files besides.
        damaged: one line for every file that is damaged inside and decoded all the same.
    """

    name: str
    listing: Listing | None = None
    missing: str = ""
    needed: bool = True
    published: int | None = None
    class_counts: tuple[int, ...] = ()
    bad: list[str] = field(default_factory=list)
    manifest: str = ""
    kinds: Counter[str] = field(default_factory=Counter)
    smallest: tuple[int, int] = (0, 0)
    largest: tuple[int, int] = (0, 0)
    turned: int = 0
    contents: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    peculiar: Peculiar = field(default_factory=Peculiar)
    damaged: list[str] = field(default_factory=list)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Images of each class, ``(K,)``."""
        assert self.listing is not None
        labels = self.listing.labels
        return np.bincount(labels[labels >= 0], minlength=len(self.listing.classes))

    def describe(self, decoded: bool) -> list[str]:
        """What there is of it, for people; no line where it was not found."""
        if self.listing is None:
            return []
        listing, counts = self.listing, self.counts
        published = "" if self.published is None else f" (published {self.published:,})"
        images = f"{self.name}: {len(listing.paths):,} images{published}"
        if len(counts):
            images += f", {len(counts)} classes of {counts.min():,} to {counts.max():,}"
        if bare := int((listing.labels < 0).sum()):
            images += f", {bare:,} without labels" if len(counts) else ", without labels"
        lines = [images, f"  found: {listing.layout} in {listing.root}"]
        if listing.passed_over:
            endings = ", ".join(f"{ending} {n:,}" for ending, n in listing.passed_over.items())
            count = f"{listing.passed_over.total():,}"
            lines.append(f"  passed over: {count} files that aren't called like images ({endings})")
        lines += [f"  {text}" for text in remarks_of_files("note", self.peculiar)]
        if decoded and self.kinds:
            kinds = ", ".join(f"{name} {n:,}" for name, n in self.kinds.most_common())
            (w, h), (wide, high) = self.smallest, self.largest
            turned = f"{self.turned:,} with" if self.turned else "none with"
            lines.append(
                f"  {kinds}; {w} to {wide} pixels wide, {h} to {high} high; {turned} EXIF rotation"
            )
        if empty := [listing.classes[k] for k in np.flatnonzero(counts == 0)]:
            lines.append(f"  without images: {', '.join(empty)}")
        if decoded:
            lines.append(f"  manifest sha256 {self.manifest[:16] or 'none, files are missing'}")
        return lines

    def problems(self) -> list[str]:
        """What is wrong with it, beside its bad files; one line each."""
        if self.listing is None:
            return [f"{self.name}: {self.missing}"] if self.needed else []
        found, count = [], len(self.listing.paths)
        if self.published is not None and count != self.published:
            found.append(f"{self.name}: {count:,} images, published are {self.published:,}")
        if self.class_counts:
            pairs = zip(self.listing.classes, self.counts, self.class_counts, strict=True)
            wrong = [f"{name} {got} (published {k})" for name, got, k in pairs if got != k]
            if wrong:
                found.append(f"{self.name}: classes of another size: {', '.join(wrong)}")
        return found


@dataclass
class Report:
    """What was found of a set."""

    parts: list[Part]
    decoded: bool

    @property
    def bad(self) -> list[str]:
        """One line for every file that can't be read."""
        return [line for part in self.parts for line in part.bad]

    def problems(self) -> list[str]:
        """Counts and classes that are not as they should be; one line each."""
        found = [line for part in self.parts for line in part.problems()]
        present = [part for part in self.parts if part.listing and part.listing.classes]
        for part in present[1:]:
            first, own = (set(p.listing.classes) for p in (present[0], part) if p.listing)
            if first != own:
                found.append(
                    f"{present[0].name} and {part.name} have different classes: only in "
                    f"{present[0].name}: {', '.join(sorted(first - own)) or 'none'}; only in "
                    f"{part.name}: {', '.join(sorted(own - first)) or 'none'} (class_sets allows "
                    "it)"
                )
        return found

    def summary(self) -> Check:
        """All of it, for people."""
        lines = [line for part in self.parts for line in part.describe(self.decoded)]
        lines += [f"note: {text}" for text in (*self.duplicates(), *self.absent())]
        bad, problems = self.bad, self.problems()
        damaged = [line for part in self.parts for line in part.damaged]
        for word, named_files in (("bad", bad), ("damaged", damaged)):
            lines += [f"{word}: {text}" for text in named_files[:MOST_NAMED]]
            if len(named_files) > MOST_NAMED:
                lines.append(f"{word}: and {len(named_files) - MOST_NAMED:,} more")
        lines += [f"differs: {text}" for text in problems]
        total = sum(len(part.listing.paths) for part in self.parts if part.listing)
        how = "decoded" if self.decoded else "listed, none decoded"
        said = [f"{total:,} images {how}"]
        said.append(f"{len(bad):,} can't be read" if bad else "all can be read" * self.decoded)
        if damaged:
            said.append(f"{len(damaged):,} are damaged inside, parts of them grey or shifted")
        if problems:
            said.append(f"{len(problems)} differences from what is expected")
        elif any(part.published is not None for part in self.parts):
            said.append("counts as published")
        well = not bad and not problems and not damaged
        lines.append(("all is well: " if well else "not well: ") + ", ".join(filter(None, said)))
        return Check("\n".join(lines), well)

    def absent(self) -> list[str]:
        """Why domains were not found that no published task needs; one line each."""
        parts = (part for part in self.parts if part.listing is None and not part.needed)
        return [f"{part.name}, which no published task needs: {part.missing}" for part in parts]

    def duplicates(self) -> list[str]:
        """Files that two domains or splits have in common; one line for each two."""
        found = []
        for i, one in enumerate(self.parts):
            for other in self.parts[i + 1 :]:
                both, a, b = np.intersect1d(one.contents, other.contents, return_indices=True)
                both, a, b = (x[both != 0] for x in (both, a, b))
                if len(both) and one.listing and other.listing:
                    found.append(
                        f"{len(both):,} images are the same in {one.name} and {other.name}, such "
                        f"as '{one.listing.paths[a[0]]}' and '{other.listing.paths[b[0]]}'"
                    )
        return found


def check_files(
    cls: type[FileData],
    root: str | None,
    workers: int | None = None,
    decode: bool = True,
    show: bool = True,
) -> Report:
    """Looks at all files of a set.

    Args:
        cls: the set.
        root: its folder.
        workers: see :func:`probe_files`.
        decode: decode every image; else only whether files are there, and not empty.
        show: see :func:`probe_files`.

    Raises:
        UserError: where none of its domains is found.
    """
    path = require_root(root, cls.describe_root())
    splits: tuple[Split | None, ...] = ("train", "test") if cls.published_splits else (None,)
    parts = []
    for domain in dict.fromkeys(cls.available(root)):
        for split in splits:
            part = Part(f"{domain}/{split}" if split else domain, needed=cls.is_needed(domain))
            part.published = cls.counts.get(part.name)
            part.class_counts = cls.class_counts.get(part.name, ())
            parts.append(part)
            try:
                part.listing = cls.find(path, domain, split or "train")
            except UserError as error:
                part.missing = str(error)
    if all(part.listing is None for part in parts):
        raise UserError(parts[0].missing)
    for part in parts:
        if part.listing is not None:
            _check_part(part, part.listing, workers, decode, show)
    return Report(parts, decode)


def _check_part(part: Part, found: Listing, workers: int | None, decode: bool, show: bool) -> None:
    files = FileImages(found.root, found.paths, found.labels, found.classes, Reading(256))
    if not decode:
        places = (found.root / path for path in found.paths)
        part.bad = [named(place, text) for place in places if (text := touched(place))]
        return
    with contextlib.suppress(UserError):  # a file is missing, and named below
        part.manifest = files.fingerprint()
    part.contents = np.zeros(len(files), np.uint64)
    sizes = np.zeros((len(files), 2), np.int64)
    looked = {}
    for i, item in enumerate(probe_files(files, workers, show, f"decoding {part.name}")):
        if item.problem:
            part.bad.append(named(found.root / found.paths[i], item.problem))
            continue
        part.kinds[item.kind] += 1
        part.turned += item.turned
        part.contents[i], sizes[i] = item.content, item.size
        looked[found.paths[i]] = item.peculiar
        if item.damage:
            place = found.root / found.paths[i]
            part.damaged.append(f"image '{place}' is damaged inside: {item.damage}")
    part.peculiar = sum_up(looked)
    good = sizes[sizes[:, 0] > 0]
    if len(good):
        (w, h), (wide, high) = good.min(axis=0).tolist(), good.max(axis=0).tolist()
        part.smallest, part.largest = (w, h), (wide, high)
