"""A few labels of a target, in a CSV: they are evaluated on, and training never sees them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from da.errors import UserError, unknown

from .class_matching import NO_LABEL
from .file_names import composed, normalise_name
from .layout import map_spellings


def read_target_labels(
    file: Path, paths: Sequence[str], classes: Mapping[str, Sequence[str]]
) -> NDArray[np.int64]:
    """The labels of N images, ``(N,)`` int64; ``NO_LABEL`` of those that the file does not name.

    Its rows are ``file,class``, more columns are passed over; commas, semicolons or tabs divide
    them, and a first row ``file,class`` may head them, so that a CSV of ``predict`` will do. A file
    is named by its path or by as much of its end as tells it from others; a row without a class
    says nothing.

    Args:
        file: the CSV.
        paths: of the images.
        classes: in the order of the labels, each with its other names.

    Raises:
        UserError: with file and line for an image that there is not, or that several rows or images
            could mean, and for a class that there is not.
    """
    named: dict[str, list[int]] = {}
    for i, path in enumerate(paths):
        named.setdefault(composed(path).rpartition("/")[2], []).append(i)
    known, place = map_spellings(classes), {name: i for i, name in enumerate(classes)}
    labels = np.full(len(paths), NO_LABEL, np.int64)
    for number, (image, name) in _rows(file):
        where = f"target_labels: {file}:{number}"
        if not name:
            continue
        chosen = _image(image, named, paths, where)
        exact = composed(name)
        right = exact if exact in place else known.get(normalise_name(name))
        if right is None:
            raise UserError(f"{where}: {unknown('class', name, classes)}")
        if labels[chosen] not in (NO_LABEL, place[right]):
            raise UserError(
                f"{where}: '{image}' is '{right}' here and '{[*classes][labels[chosen]]}' above; "
                "leave one of the rows out"
            )
        labels[chosen] = place[right]
    if (labels == NO_LABEL).all():
        raise UserError(f"target_labels: '{file}' has no label; expected rows 'file,class'")
    return labels


def _rows(file: Path) -> list[tuple[int, tuple[str, str]]]:
    """The first two columns of each row, with the number of its line."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"target_labels: '{file}' can't be read: {error}; expected a CSV of rows 'file,class'"
        ) from None
    first = text.partition("\n")[0]
    divider = max(",;\t", key=first.count)
    reader = csv.reader(text.splitlines(), delimiter=divider)
    found = []
    for row in reader:
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        if len(cells) < 2 or not cells[0]:
            raise UserError(
                f"target_labels: {file}:{reader.line_num}: expected 'file,class', got "
                f"'{divider.join(row)[:80]}'"
            )
        found.append((reader.line_num, (cells[0], cells[1])))
    head = [cell.lower() for cell in found[0][1]] if found else []
    return found[1:] if head[:1] in (["file"], ["path"], ["image"]) else found


def _image(name: str, named: Mapping[str, list[int]], paths: Sequence[str], where: str) -> int:
    """The position of the image that a row names."""
    plain = composed(name.replace("\\", "/")).lstrip("./")
    alike = [
        i
        for i in named.get(plain.rpartition("/")[2], [])
        if f"/{composed(paths[i])}".endswith(f"/{plain}")
        or f"/{plain}".endswith(f"/{composed(paths[i])}")
    ]
    exact = [i for i in alike if composed(paths[i]) == plain]
    if len(exact or alike) == 1:
        return (exact or alike)[0]
    if not alike:
        raise UserError(f"{where}: the target has no image '{name}'; name a file of it")
    raise UserError(
        f"{where}: '{name}' may be '{paths[alike[0]]}' or '{paths[alike[1]]}'; name more of its "
        "path"
    )
