"""Predictions as files: a CSV for tables, JSON for programs. Text that is no UTF-8 is escaped."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

COLUMNS = ("file", "class", "probability")


class Prediction(NamedTuple):
    """What is said of one file.

    Attributes:
        file: its name, relative to the folder that was named.
        probabilities: of every class, in the order of the classes; they sum to 1.
    """

    file: str
    probabilities: Sequence[float]

    @property
    def best(self) -> int:
        """The most probable class."""
        return max(range(len(self.probabilities)), key=lambda k: self.probabilities[k])


def printable(name: str) -> str:
    r"""A name as UTF-8, with an escape for every byte that is none, and for control characters.

    >>> print(printable("caf\udce9.jpg"), printable("a\nb.jpg"))
    caf\xe9.jpg a\nb.jpg
    """
    text = as_utf8(name)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def as_utf8(name: str) -> str:
    r"""A name as UTF-8, with an escape for every byte that is none: others stay as they are."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def class_columns(classes: Sequence[str]) -> list[str]:
    """The columns of the classes: their names, marked where a column before them has that name.

    >>> class_columns(["cat", "file"])
    ['cat', 'file (class)']
    """
    names = [as_utf8(name) for name in classes]
    return [f"{name} (class)" if name in COLUMNS else name for name in names]


def as_csv(predictions: Sequence[Prediction], classes: Sequence[str]) -> str:
    """A line per file: the most probable class, its probability, and that of every class."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow([*COLUMNS, *class_columns(classes)])
    for one in predictions:
        shown = [f"{p:.6f}" for p in one.probabilities]
        rows.writerow([as_utf8(one.file), as_utf8(classes[one.best]), shown[one.best], *shown])
    return text.getvalue()


def as_json(
    predictions: Sequence[Prediction],
    classes: Sequence[str],
    network: str,
    unreadable: Mapping[str, str],
    damaged: Mapping[str, str],
) -> str:
    """An object per file, its classes from the most probable to the least.

    Args:
        predictions: of the files.
        classes: their names.
        network: the file that it is in.
        unreadable: files that nothing is predicted of, and why.
        damaged: files that are damaged inside and predicted all the same, and how.
    """

    def shown(one: Prediction) -> dict[str, object]:
        order = sorted(range(len(classes)), key=lambda k: -one.probabilities[k])
        likely = {as_utf8(classes[k]): round(one.probabilities[k], 6) for k in order}
        best = order[0]
        return {
            "file": as_utf8(one.file),
            "class": as_utf8(classes[best]),
            "probability": round(one.probabilities[best], 6),
            "probabilities": likely,
        }

    content = {
        "network": as_utf8(network),
        "classes": [as_utf8(name) for name in classes],
        "predictions": [shown(one) for one in predictions],
        "unreadable": {as_utf8(k): as_utf8(v) for k, v in unreadable.items()},
        "damaged": {as_utf8(k): as_utf8(v) for k, v in damaged.items()},
    }
    return json.dumps(content, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
