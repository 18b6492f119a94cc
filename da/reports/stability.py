"""Whether trainings went well, whatever the target says: none diverged, the source is learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from da.grids.grid import Row
from da.reports.model import Section
from da.reports.runs import Run

TOLERANCE = 0.02
"""Accuracy on the source may be so much below source-only's with the same normaliser."""

REFERENCE = "SourceOnly"

HEADER = [
    *("rates", "method", "normaliser", "runs", "diverged", "source accuracy", "to source-only"),
    *("clipped", ""),
]


@dataclass(frozen=True)
class Stability:
    """The trainings of one method with one normaliser, over tasks and seeds.

    Attributes:
        row: where the learning rates come from.
        method, norm: their names.
        planned, done, diverged: runs.
        source: mean accuracy on the source's test images at the last epoch, of the runs that are
            done; None where none is.
        behind: how far that is below source-only's with the same normaliser, over the tasks and
            seeds that are done with both; None where there is no such run.
        clipped: mean share of the steps whose gradient was clipped; None where none is.
    """

    row: Row
    method: str
    norm: str
    planned: int
    done: int
    diverged: int
    source: float | None
    behind: float | None
    clipped: float | None

    @property
    def is_well(self) -> bool:
        """None diverged, and the source is learnt as well as by source-only."""
        return not self.diverged and (self.behind is None or self.behind <= TOLERANCE + 1e-9)


def stabilities(runs: Sequence[Run]) -> list[Stability]:
    """One for each row of rates, method and normaliser, in the order of the grid."""
    groups: dict[tuple[Row, str, str], list[Run]] = {}
    for run in runs:
        cell = run.entry.cell
        groups.setdefault((run.entry.row, cell.method, cell.norm), []).append(run)
    return [
        _stability(key, mine, groups.get((key[0], REFERENCE, key[2]), []))
        for key, mine in groups.items()
    ]


def _stability(key: tuple[Row, str, str], mine: list[Run], reference: list[Run]) -> Stability:
    accuracies, others = _source_accuracies(mine), _source_accuracies(reference)
    shared = [place for place in accuracies if place in others]
    clipped = [
        share for run in mine if run.result and (share := run.result.clipped_fraction) is not None
    ]
    return Stability(
        *key,
        planned=len(mine),
        done=sum(run.result is not None for run in mine),
        diverged=sum(run.state == "diverged" for run in mine),
        source=fmean(accuracies.values()) if accuracies else None,
        behind=fmean(others[p] - accuracies[p] for p in shared) if shared else None,
        clipped=fmean(clipped) if clipped else None,
    )


def _source_accuracies(runs: list[Run]) -> dict[tuple[str, int, str], float]:
    """By task, seed and swept settings."""
    found = {}
    for run in runs:
        accuracy = run.accuracy("", "last", "source/test") if run.result else None
        if accuracy is not None:
            cell = run.entry.cell
            found[cell.task, cell.seed, str(run.entry.point)] = accuracy
    return found


def sections(found: Sequence[Stability]) -> list[Section]:
    """The section of a report."""
    rows = [
        [
            *(one.row, one.method, one.norm),
            f"{one.done} of {one.planned}",
            str(one.diverged),
            "–" if one.source is None else f"{100 * one.source:.1f}",
            "–" if one.behind is None else f"{0 - 100 * one.behind:+.1f}",
            "–" if one.clipped is None else f"{100 * one.clipped:.0f} %",
            "" if one.is_well else "!",
        ]
        for one in found
    ]
    text = (
        "Over tasks, seeds and swept settings: accuracy on the source's test images at the last "
        "epoch, how it differs from source-only's with the same normaliser (in points), and in "
        "which share of the steps the gradient was clipped. ! marks what diverged or is more than "
        f"{100 * TOLERANCE:g} points behind source-only."
    )
    return [Section("Trainings", text, HEADER, rows, left=(0, 1, 2, 8))]


def warnings(found: Sequence[Stability]) -> list[str]:
    """What went badly, a line each, for the terminal."""
    said = []
    for one in found:
        if one.is_well:
            continue
        parts = [f"{one.diverged} of {one.planned} runs diverged"] if one.diverged else []
        if one.behind is not None and one.behind > TOLERANCE + 1e-9:
            parts.append(f"on the source it is {100 * one.behind:.1f} points behind source-only")
        said.append(f"{one.method} with {one.norm}, {one.row} rates: {'; '.join(parts)}")
    return said
