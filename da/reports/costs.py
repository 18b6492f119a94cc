"""What each normaliser costs, beside its accuracy: figures of ``bench norms`` joined to a grid.

Seconds of a grid's trainings are none: several share the processor. A benchmark's are ratios of
paired rounds.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from da.errors import UserError
from da.grids.plan import Plan
from da.reports.model import Section
from da.reports.runs import Column
from da.reports.tables import Table, averages, headline

MARK = " training / bn"
"""Ends the title of a column of ``bench norms`` that tells what it is of."""

PRECISIONS = {"32-true": "float32", "bf16-mixed": "bfloat16"}

HEADER = ["rates", "method", "normaliser", "accuracy", "step / bn", "kept / bn", ""]


@dataclass(frozen=True)
class Cost:
    """Of one normaliser, over that of batch norm.

    Attributes:
        step: seconds of a training step; None where it can't train on that batch.
        kept: bytes that a forward pass keeps for the backward; likewise.
    """

    step: float | None
    kept: float | None


@dataclass(frozen=True)
class Costs:
    """One case of a benchmark.

    Attributes:
        case: in words: network, size, precision and images in a step.
        of: by normaliser.
    """

    case: str
    of: dict[str, Cost]


def read_costs(file: Path, plan: Plan) -> Costs:
    """The case of a table of ``bench norms`` that is nearest to the trainings of a grid.

    It is of the grid's network and precision, and of the batch nearest to both domains' together.

    Raises:
        UserError: where the file is none of ``bench norms``, or has no such case.
    """
    wanted = str(plan.grid.model.get("backbone", "digits_resnet"))
    precision = PRECISIONS.get(plan.grid.precision, plan.grid.precision)
    rows = _rows_of(file)
    fitting = [r for r in rows if (r["network"], r["precision"]) == (wanted, precision)]
    if not fitting:
        there = ", ".join(dict.fromkeys(f"{r['network']} in {r['precision']}" for r in rows))
        raise UserError(
            f"--costs: {file} has {there}, and the grid trains {wanted} in {precision}; measure it"
            f" with bench norms --norms all --networks {wanted}@SIZE --precisions {precision}"
        )
    together = 2 * plan.grid.batch_size
    row = min(fitting, key=lambda r: abs(int(r["batch"]) - together))
    names = [title.removesuffix(MARK) for title in row if title.endswith(MARK)]
    of_bn = _number(row.get("bn kept MB"))
    found = {}
    for name in names:
        kept = _number(row.get(f"{name} kept MB"))
        found[name] = Cost(_number(row[name + MARK]), kept / of_bn if kept and of_bn else None)
    size = f"{row['network']} at {row['size']} × {row['size']}, {row['precision']}"
    return Costs(f"{size}, {row['batch']} images in a step", found)


def _rows_of(file: Path) -> list[dict[str, str]]:
    """The lines of a table of ``bench norms``."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--costs: {file} can't be read ({error}); give table.csv") from error
    rows = list(csv.DictReader(io.StringIO(text)))
    needed = ("network", "size", "precision", "batch", "bn" + MARK)
    if not rows or any(not row.get(title) for row in rows for title in needed[:4]):
        raise UserError(f"--costs: {file} is no table.csv of bench norms; give one")
    if needed[4] not in rows[0] or not all(row["batch"].isdecimal() for row in rows):
        raise UserError(f"--costs: {file} is no table.csv of bench norms; give one")
    return rows


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


@dataclass(frozen=True)
class Point:
    """One normaliser under one method: accuracy of the average, as trained, and cost.

    Attributes:
        norm: its name.
        mean, std: accuracy over seeds, from 0 to 1.
        cost: of it; None where the benchmark lacks it.
        best: whether no other is both as cheap and as accurate, and better in one of the two.
    """

    norm: str
    mean: float
    std: float | None
    cost: Cost | None
    best: bool = False

    @property
    def step(self) -> float | None:
        """Seconds of a training step over batch norm's; None where the benchmark has none."""
        return None if self.cost is None else self.cost.step


def points_of(table: Table, costs: Costs) -> list[Point]:
    """The normalisers of a table as they were trained, in its order, where all runs are there."""
    (line, *_) = averages(table)
    fields = {c.norm: line.fields[c].summary for c in table.columns if c == Column(c.norm)}
    points = [
        Point(norm, s.mean, s.std, costs.of.get(norm))
        for norm, s in fields.items()
        if s is not None
    ]
    return [
        Point(p.norm, p.mean, p.std, p.cost, best=not any(_beats(q, p) for q in points))
        if p.step is not None
        else p
        for p in points
    ]


def _beats(one: Point, other: Point) -> bool:
    if one.step is None or other.step is None:
        return False
    no_worse = one.step <= other.step and one.mean >= other.mean
    return no_worse and (one.step < other.step or one.mean > other.mean)


def costed(shown: Sequence[Table]) -> list[Table]:
    """Those of the headline where nothing is swept: what is may change what a step costs."""
    return [t for t in headline(shown) if not any(line.point for line in t.lines)]


def sections(shown: Sequence[Table], costs: Costs) -> list[Section]:
    """A table of accuracy beside cost; nothing for a grid that sweeps something."""
    rows = [
        [
            *(table.row, table.method, point.norm),
            f"{100 * point.mean:.1f}" + (f" ± {100 * point.std:.1f}" if point.std else ""),
            *(_ratio(point.cost, name) for name in ("step", "kept")),
            "not beaten in both" if point.best else "",
        ]
        for table in costed(shown)
        for point in points_of(table, costs)
    ]
    if not rows:
        return []
    text = (
        "Target accuracy at the last epoch, as trained, on average, beside what a training step"
        " takes and keeps for its backward pass, over batch norm's: medians of paired rounds of"
        f" `bench norms` ({costs.case}), not of these trainings, which shared the processor."
    )
    return [Section("Accuracy and cost", text, HEADER, rows, left=(0, 1, 2, 6))]


def _ratio(cost: Any, name: str) -> str:
    value = None if cost is None else getattr(cost, name)
    return "–" if value is None else f"{value:.2f}"
