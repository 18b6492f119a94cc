"""Published numbers, as data files: ``configs/published/references/NAME.csv``."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from da.errors import UserError, unknown
from da.grids.grid import root

AVERAGE = "average"
MEANS = ("class_mean", "accuracy")
"""Metrics that are compared; ``accuracy`` is the mean over samples."""

BASE = "SourceOnly"
"""The method that gains are measured from."""

ALIASES = {"erm": "SourceOnly"}
"""Other names under which tables have our methods."""


@dataclass(frozen=True)
class Reference:
    """One published number, in percent.

    Attributes:
        method: as the source calls it.
        ours: our class, where our settings are those of the number.
        task: ``source->target``, or ``average``.
        label: the task in the published notation.
        metric: ``accuracy``, ``class_mean``, ``class:NAME``, or ``paper``: the number of the
            method's own paper, as the source quotes it.
        selection: which epoch it is of: ``oracle``, ``last``, ``not stated``, ``source`` (the best
            on held-out images of the source) or ``supervised`` (on a held-out part of the target).
        source: where it was read.
        forward: whether domains passed ``joint`` or ``separate``; empty where it isn't known.
        band: our class, where the number is one of those that sources disagree on; its settings
            need not be ours.
    """

    method: str
    ours: str
    task: str
    label: str
    metric: str
    value: float
    std: float | None
    seeds: int | None
    selection: str
    source: str
    note: str
    forward: str = ""
    band: str = ""


def folder() -> Path:
    """Where the published settings are; their numbers lie in ``references``."""
    return root() / "configs" / "published"


def published() -> list[str]:
    """The names of the published settings."""
    return sorted(path.stem for path in folder().glob("*.yaml"))


def config(name: str) -> Path:
    """The settings of a benchmark by its name, or a file called like it, changed to taste."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") and path.is_file() and path.stem in published():
        return path
    if name not in published():
        raise unknown("benchmark", name, published())
    return folder() / f"{name}.yaml"


def read(name: str) -> list[Reference]:
    """The numbers of a benchmark."""
    path = folder() / "references" / f"{name}.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return [_reference(row) for row in csv.DictReader(file)]


def _reference(row: dict[str, Any]) -> Reference:
    numbers: dict[str, Any] = {
        "value": float(row["value"]),
        "std": float(row["std"]) if row["std"] else None,
        "seeds": int(row["seeds"]) if row["seeds"] else None,
    }
    # Most rows end before the last columns.
    texts: dict[str, Any] = {name: value or "" for name, value in row.items()}
    return Reference(**texts | numbers)


def same_task(a: str, b: str) -> bool:
    """Whether two tasks are one: folders of domains are spelt in several ways."""
    return a.replace(" ", "").lower() == b.replace(" ", "").lower()


def method_named(name: str, ours: Iterable[str]) -> str:
    """A method by its name in any spelling.

    >>> method_named("source_only", ["DANN", "SourceOnly"]), method_named("cdan+e", ["CDANE"])
    ('SourceOnly', 'CDANE')
    """
    choices = list(ours)
    wanted = re.sub(r"[_+-]", "", name).lower()
    wanted = ALIASES.get(wanted, wanted).lower()
    same = [choice for choice in choices if choice.lower() == wanted]
    if not same:
        raise unknown("method", name, choices)
    return same[0]


def methods_named(names: list[str] | None, ours: Iterable[str]) -> list[str] | None:
    """Several; each once."""
    if names is None:
        return None
    methods = [method_named(name, ours) for name in names]
    if len(set(methods)) < len(methods):
        raise UserError(f"--method: given twice: {', '.join(sorted(set(methods)))}")
    return methods
