"""At which learning rates a normaliser trains, where a grid sweeps them: a result of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from da.grids.plan import Plan
from da.reports.model import Section
from da.reports.runs import Column
from da.reports.stability import REFERENCE, TOLERANCE
from da.reports.tables import Field, Line, Table

HEADER = ["task", "method", "normaliser", "from", "to", "factor", "but not at", "diverged"]


@dataclass(frozen=True)
class RateRange:
    """The swept rates at which one normaliser trains with one method on one task.

    Attributes:
        method: its name.
        norm: the normaliser's name.
        task: ``source->target``.
        tried: all rates, in order.
        works: those of which no run diverged and whose mean accuracy on the source's test images
            is within 2 points of the highest that source-only reached with the same
            normaliser at any rate.
        diverged: runs that diverged, by rate; only where some did.
        missing: rates of which not all runs have ended.
    """

    method: str
    norm: str
    task: str
    tried: tuple[float, ...]
    works: tuple[float, ...]
    diverged: dict[float, int]
    missing: tuple[float, ...]

    @property
    def factor(self) -> float | None:
        """The highest over the lowest rate that works; None where none does."""
        return max(self.works) / min(self.works) if self.works else None

    @property
    def gaps(self) -> tuple[float, ...]:
        """Rates between two that work at which it does not work."""
        if not self.works:
            return ()
        within = [rate for rate in self.tried if min(self.works) < rate < max(self.works)]
        return tuple(rate for rate in within if rate not in self.works)


def rate_ranges(plan: Plan, shown: Sequence[Table]) -> list[RateRange]:
    """A range for each method, task and normaliser of a grid that sweeps ``lr`` alone.

    Args:
        plan: of the grid.
        shown: its tables.
    """
    if set(plan.grid.sweep) != {"lr"}:
        return []
    on_source = {t.method: t for t in shown if t.stream == "source/test" and t.has_labels}
    return [
        _range(table, on_source.get(REFERENCE, table), task, norm)
        for table in on_source.values()
        for task in plan.tasks
        for norm in plan.grid.norms
    ]


def _range(table: Table, reference: Table, task: str, norm: str) -> RateRange:
    column = Column(norm)
    fields = {line.point["lr"]: line.fields[column] for line in _of(table, task)}
    known = [line.fields[column].summary for line in _of(reference, task)]
    best = max((whole.mean for whole in known if whole is not None), default=1.0)
    return RateRange(
        method=table.method,
        norm=norm,
        task=task,
        tried=tuple(sorted(fields)),
        works=tuple(sorted(rate for rate, one in fields.items() if _works(one, best))),
        diverged={rate: fields[rate].diverged for rate in sorted(fields) if fields[rate].diverged},
        missing=tuple(sorted(rate for rate, one in fields.items() if not one.settled)),
    )


def _of(table: Table, task: str) -> list[Line]:
    return [line for line in table.lines if line.task == task]


def _works(one: Field, best: float) -> bool:
    # Accuracies are ratios of counts: exactly 2 points below is within 2 points.
    return one.summary is not None and round(one.summary.mean - best + TOLERANCE, 9) >= 0


def sections(ranges: Sequence[RateRange]) -> list[Section]:
    """The section of a report; nothing where no rate was swept."""
    if not ranges:
        return []
    rows = []
    for one in ranges:
        texts = ["none", "none", "–"]
        if one.factor is not None:
            texts = [f"{min(one.works):g}", f"{max(one.works):g}", f"{one.factor:g}"]
        gaps = ", ".join(f"{rate:g}" for rate in one.gaps)
        failed = [f"{number} at {rate:g}" for rate, number in one.diverged.items()]
        diverged = ", ".join(failed)
        if one.missing:
            missing = f"missing at {', '.join(f'{rate:g}' for rate in one.missing)}"
            diverged = f"{diverged}; {missing}" if failed else missing
        rows.append([one.task, one.method, one.norm, *texts, gaps, diverged])
    text = (
        f"No run diverged, and the mean accuracy on the source's test images is within "
        f"{100 * TOLERANCE:g} points of the highest that source-only reached with the same "
        "normaliser (of the method itself where the grid has no source-only)."
    )
    return [Section("Rates that work", text, HEADER, rows, left=(0, 1, 2))]
