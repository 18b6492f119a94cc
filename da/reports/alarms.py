"""What the trainings of a grid said of themselves: which cells raised which alarm, and when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from da.engine.alarms.record import Alarm, AlarmName
from da.grids.grid import Row
from da.reports.model import Section
from da.reports.runs import Run
from da.reports.tables import point_text

HEADER = ["alarm", "rates", "method", "normaliser", "runs", "first step", "which"]

MEANING: dict[AlarmName, str] = {
    "critic-at-chance": "a critic that never told the domains apart",
    "critic-perfect": "a critic that features could not fool for hundreds of steps",
    "loss-without-gradient": "a loss term that does not reach the backbone",
    "one-class": "nearly all of the target predicted as one class",
    "growing-features": "features that grow without bound",
    "falling-source": "accuracy on the source that falls while adaptation goes on",
}


@dataclass(frozen=True)
class Raised:
    """One kind of alarm in the trainings of one method with one normaliser.

    Attributes:
        name: of the alarm.
        row: where the learning rates come from.
        method, norm: their names.
        watched: finished runs of this method and normaliser that watched themselves; an alarm of
            critics, say, is only raised where there is one.
        alarms: the first one of each run that did, with the run.
    """

    name: AlarmName
    row: Row
    method: str
    norm: str
    watched: int
    alarms: list[tuple[Run, Alarm]]

    @property
    def first_step(self) -> int:
        """The earliest step at which one was raised."""
        return min(alarm.step for _, alarm in self.alarms)


def watched(runs: Sequence[Run]) -> list[Run]:
    """The finished runs that watched themselves; those of earlier versions did not, and of those
    that diverged nothing but the reason is kept."""
    return [run for run in runs if run.result is not None and run.result.alarms is not None]


def raised_alarms(runs: Sequence[Run]) -> list[Raised]:
    """One for each kind of alarm, row of rates, method and normaliser that has any."""
    groups: dict[tuple[Row, str, str], list[Run]] = {}
    for run in watched(runs):
        cell = run.entry.cell
        groups.setdefault((run.entry.row, cell.method, cell.norm), []).append(run)
    found = []
    for name in get_args(AlarmName):
        for key, mine in groups.items():
            firsts = [(run, alarm) for run in mine if (alarm := _first(run, name)) is not None]
            if firsts:
                found.append(Raised(name, *key, watched=len(mine), alarms=firsts))
    return found


def _first(run: Run, name: AlarmName) -> Alarm | None:
    alarms = (run.result.alarms if run.result else None) or []
    return next((alarm for alarm in alarms if alarm.name == name), None)


def sections(runs: Sequence[Run]) -> list[Section]:
    """The section of a report; none where no run watched itself."""
    number = len(watched(runs))
    if not number:
        return []
    found, lost = raised_alarms(runs), _diverged(runs)
    if not found:
        return [Section("Alarms", f"None, in {number} finished runs.{lost}")]
    meanings = {one.name: MEANING[one.name] for one in found}
    rows = [
        [
            *(one.name, one.row, one.method, one.norm),
            f"{len(one.alarms)} of {one.watched}",
            str(one.first_step),
            "; ".join(_place(run, alarm) for run, alarm in one.alarms),
        ]
        for one in found
    ]
    text = (
        f"What {number} finished runs said of themselves: "
        f"{'; '.join(f'{name}, {meaning}' for name, meaning in meanings.items())}. Each run that "
        f"raised one is named with the step; its numbers are in its log.txt and result.json.{lost}"
    )
    return [Section("Alarms", text, HEADER, rows, left=(0, 1, 2, 3, 6))]


def _diverged(runs: Sequence[Run]) -> str:
    """What the section leaves out, after a space; empty where no run diverged."""
    number = sum(run.state == "diverged" for run in runs)
    which = "1 run" if number == 1 else f"{number} runs"
    return f" {which} diverged: what was said there is in log.txt alone." if number else ""


def _place(run: Run, alarm: Alarm) -> str:
    """``a->b seed 0 at 120``, with what is swept."""
    cell = run.entry.cell
    swept = f", {point_text(run.entry.point)}" if run.entry.point else ""
    return f"{cell.task} seed {cell.seed}{swept} at {alarm.step}"


def summary(runs: Sequence[Run]) -> str:
    """One line for the terminal; empty where no alarm was raised."""
    alarmed = [run.result.alarms for run in watched(runs) if run.result and run.result.alarms]
    if not alarmed:
        return ""
    counts = Counter(name for alarms in alarmed for name in {alarm.name for alarm in alarms})
    kinds = ", ".join(f"{name} {counts[name]}" for name in get_args(AlarmName) if counts[name])
    return f"{len(alarmed)} of {len(watched(runs))} runs raised some ({kinds}), see report.md"
