"""List files, ``path label`` per line, and the image files that they name."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, dropwhile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from da.errors import UserError

from .file_names import is_image_name, spelt_on_disk


class NoSuchFiles(UserError):
    """A list names files that are not there; they may be in an archive."""


class Line(NamedTuple):
    """One line of a list file.

    Attributes:
        number: of the line, from 1.
        path: as it stands.
        label: the number after it; -1 where the image has no label.
    """

    number: int
    path: str
    label: int


def split_line(line: str) -> tuple[str, str]:
    """The path and the label of a line, which a space, a tab or a comma divides.

    The label is empty where there is the path of an image alone.

    >>> split_line("my cats/1.jpg 0"), split_line("cats/1.jpg, 0"), split_line("cats/1.jpg,0")
    (('my cats/1.jpg', '0'), ('cats/1.jpg', '0'), ('cats/1.jpg', '0'))
    >>> split_line("cats/1.jpg -1"), split_line("my cats/1.jpg")
    (('cats/1.jpg', '-1'), ('my cats/1.jpg', ''))
    """
    line = line.strip()
    if is_image_name(line):
        return line, ""
    path, _, label = line.replace("\t", " ").rpartition(" ")
    if not _is_label(label):
        path, _, label = line.rpartition(",")
    return path.rstrip(" ,"), label


def _is_label(text: str) -> bool:
    return text.isdecimal() or text == "-1"


def read_list(file: Path, labelled: bool = True) -> list[Line]:
    """The lines ``path label`` of a list file, see :func:`split_line`; blank lines are passed over.

    Args:
        file: the list.
        labelled: refuse a line without a label, or with the label -1, which says the same.

    Raises:
        UserError: with file and line where a label is no whole number from 0, or a path is missing.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"list '{file}' can't be read: {error}; expected lines 'path label'"
        ) from None
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        path, label = split_line(line)
        bare = not labelled and label in ("", "-1")
        if not path or not (label.isdecimal() or bare):
            raise UserError(
                f"{file}:{number}: expected 'path label' with a whole number from 0, got "
                f"'{line.strip()[:80]}'"
            )
        lines.append(Line(number, path, -1 if bare else int(label)))
    if not lines:
        raise UserError(f"list '{file}' is empty: expected lines 'path label'")
    return lines


def resolve_paths(
    file: Path, lines: Sequence[Line], bases: Sequence[Path], root: Path
) -> list[str]:
    """The files that a list names, relative to the root, whatever prefix it has.

    A path is read as it stands below one of ``bases``, else without its first parts, as few of
    them as leave a file that exists: ``/other/machine/office/amazon/images/mug/1.jpg`` becomes
    ``amazon/images/mug/1.jpg``.

    Raises:
        NoSuchFiles: with file and line for a path that names no file.
        UserError: with file and line for a path that has ``..`` inside, or comes twice.
    """
    found: list[str] = []
    last: tuple[Path, int] | None = None  # what fitted the line before most often fits this one
    seen: dict[str, Line] = {}
    for line in lines:
        parts = PurePosixPath(line.path.replace("\\", "/")).parts
        parts = tuple(dropwhile(lambda part: part in ("/", "..", "."), parts))
        if ".." in parts:
            raise UserError(
                f"{file}:{line.number}: path '{line.path}' has '..' after its beginning: write it "
                "without"
            )
        whole, *shorter = ([(base, cut) for base in bases] for cut in range(len(parts)))
        for base, cut in chain(whole, [last] if last else [], *shorter):
            path = base.joinpath(*parts[cut:]) if cut < len(parts) else base
            if path.is_file() or (path := spelt_on_disk(path)).is_file():
                break
        else:
            raise NoSuchFiles(
                f"{file}:{line.number}: no file '{line.path}' under '{root}', also not without its "
                "first folders; name the folder of the images as root"
            )
        last = base, cut
        name = path.relative_to(root).as_posix()
        if (before := seen.setdefault(name, line)) is not line:
            what = "twice" if before.label == line.label else "with two labels"
            raise UserError(
                f"{file}:{line.number}: '{line.path}' is listed {what} (line {before.number})"
            )
        found.append(name)
    return found
