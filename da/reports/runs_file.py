"""Accuracies out of rows of ``runs.csv``: what two grids, and a grid and its plan, share.

A committed runs.csv is enough; the folders of its cells are not needed.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from da.errors import UserError
from da.reports.runs import Column
from da.reports.tables import point_text

RUNS = "runs.csv"
SELECTION = "last"
"""The epoch of which the accuracies are."""

Group = tuple[str, str, str]
"""Row of learning rates, method, swept settings."""


@dataclass
class Accuracies:
    """Of one group, by column, task and seed."""

    seeds: set[int] = field(default_factory=set)
    """All of the group, finished or not."""
    values: dict[Column, dict[str, dict[int, float]]] = field(default_factory=dict)

    def differences(self, challenger: Column, baseline: Column) -> dict[str, dict[int, float]]:
        """Paired over seeds, of the tasks in which both have all seeds of the group."""
        first, second = self.values.get(challenger, {}), self.values.get(baseline, {})
        return {
            task: {seed: by_seed[seed] - second[task][seed] for seed in sorted(by_seed)}
            for task, by_seed in first.items()
            if task in second and by_seed.keys() == second[task].keys() == self.seeds
        }


def grouped(rows: Iterable[Mapping[str, Any]]) -> dict[Group, Accuracies]:
    """The accuracies of the last epoch.

    Args:
        rows: of a runs.csv, or of :func:`da.reports.runs.tidy`.
    """
    rows = list(rows)
    swept = _swept(rows)
    groups: dict[Group, Accuracies] = {}
    for row in rows:
        point = point_text({key: row[key] for key in swept})
        group = groups.setdefault((row["lr_row"], row["method"], point), Accuracies())
        seed = int(row["seed"])
        group.seeds.add(seed)
        for key, value in row.items():
            selection, _, form = key.partition("@")
            if selection == SELECTION and value not in ("", None):
                column = Column(row["norm"], form)
                group.values.setdefault(column, {}).setdefault(row["task"], {})[seed] = float(value)
    return groups


def _swept(rows: list[Mapping[str, Any]]) -> list[str]:
    """The columns of swept settings: those between batch size and rate, and these if they vary."""
    if not rows:
        return []
    names = list(rows[0])
    between = names[names.index("batch_size") + 1 : names.index("lr")]
    place = ["lr_row", "task", "method", "norm", "seed", *between]
    # Batch sizes and rates may differ between methods or tasks: swept is what has several values
    # in one place. A rate that was tuned for each batch size is not.
    batch = ["batch_size"] if _varies(rows, place, "batch_size") else []
    return [*batch, *between, *(["lr"] if _varies(rows, [*place, *batch], "lr") else [])]


def _varies(rows: list[Mapping[str, Any]], place: list[str], name: str) -> bool:
    values: dict[tuple[Any, ...], set[Any]] = {}
    for row in rows:
        values.setdefault(tuple(row[key] for key in place), set()).add(row[name])
    return any(len(several) > 1 for several in values.values())


def read_runs(path: Path) -> dict[Group, Accuracies]:
    """The accuracies of a runs.csv, named itself or by its folder.

    Raises:
        UserError: there is no such file, or it is not one that ``report`` writes.
    """
    file = path / RUNS if path.is_dir() else path
    if not file.is_file():
        raise UserError(
            f"{path} holds no {RUNS}: expected an output folder of ablate, or such a file; "
            "python run.py report DIR writes it"
        )
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            return grouped(csv.DictReader(stream))
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise UserError(
            f"{file}: expected a table that report writes, with the columns lr_row, method, task, "
            f"norm, seed, batch_size, lr, {SELECTION}, got something else ({error})"
        ) from None


def arrays(differences: Mapping[str, Mapping[int, float]]) -> dict[str, list[float]]:
    """Differences by task, in the order of seeds."""
    return {task: list(by_seed.values()) for task, by_seed in differences.items()}
