"""Two runs of one grid, on two processors say: do they agree, and is what they show settled?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from da.errors import UserError
from da.reports.differences import compare
from da.reports.runs import Column
from da.reports.runs_file import Accuracies, Group, arrays
from da.reports.statistics import Paired
from da.reports.texts import paired_text

AVERAGE = "average"
HEADER = ["method", "difference", "task", "here", "there", "here - there", "agree", "settled"]

Differences = Mapping[str, Mapping[int, float]]
"""By task and seed."""


@dataclass(frozen=True)
class Agreement:
    """One line: a difference on these tasks in both grids, and how far the grids are apart."""

    group: Group
    name: str
    """``wa - bn``."""
    task: str
    """Or ``average``."""
    here: Paired
    there: Paired
    apart: Paired
    """Here minus there, paired over the seeds that both have."""

    @property
    def agrees(self) -> bool | None:
        """The interval of the difference holds 0, or all are equal; None where there is none."""
        if self.apart.low is None:
            return True if self.equal else None
        return self.apart.sign == 0

    @property
    def equal(self) -> bool:
        """Nothing differs."""
        return self.apart.low is None and self.apart.difference == 0

    @property
    def settled(self) -> bool:
        """The marks are the same."""
        return self.here.sign == self.there.sign


def agreements(
    here: Mapping[Group, Accuracies],
    there: Mapping[Group, Accuracies],
    challenger: Column,
    baselines: Sequence[Column],
) -> list[Agreement]:
    """Every comparison that both grids hold, on average and per task.

    The difference of the two differences is paired over (task, seed), which is right whether or
    not runs with equal seeds resemble each other.

    Raises:
        UserError: they have nothing in common.
    """
    lines: list[Agreement] = []
    for group in (group for group in here if group in there):
        families = sum(other[:2] == group[:2] for other in here)
        for baseline in baselines:
            name = f"{challenger} - {baseline}"
            first, second = (
                side[group].differences(challenger, baseline) for side in (here, there)
            )
            lines += [Agreement(group, name, *line) for line in _compared(first, second, families)]
    if not lines:
        names = ", ".join(f"{challenger} - {baseline}" for baseline in baselines)
        raise UserError(
            f"nothing to compare: expected {names} with common methods, tasks and seeds in both; "
            f"here: {_contents(here)}; there: {_contents(there)}"
        )
    return lines


def _compared(
    here: Differences, there: Differences, families: int
) -> list[tuple[str, Paired, Paired, Paired]]:
    """Task, both differences and how far they are apart, the average first."""
    apart = {
        task: {seed: here[task][seed] - there[task][seed] for seed in seeds}
        for task in here
        if task in there and (seeds := [seed for seed in here[task] if seed in there[task]])
    }
    first = compare(arrays({task: here[task] for task in apart}), families)
    second = compare(arrays({task: there[task] for task in apart}), families)
    third = compare(arrays(apart), families)
    lines = [(task, first.tasks[task], second.tasks[task], third.tasks[task]) for task in apart]
    if len(apart) > 1 and first.average and second.average and third.average:
        lines.insert(0, (AVERAGE, first.average, second.average, third.average))
    return lines


def _contents(groups: Mapping[Group, Accuracies]) -> str:
    methods = dict.fromkeys(method for _, method, _ in groups)
    norms = dict.fromkeys(str(c) for group in groups.values() for c in group.values)
    seeds = sorted({seed for group in groups.values() for seed in group.seeds})
    return (
        f"{', '.join(methods) or 'no method'} with {', '.join(norms) or 'no result'}, seeds "
        f"{', '.join(map(str, seeds)) or 'none'}"
    )


def conclusions(lines: Sequence[Agreement]) -> list[str]:
    """What follows, in words."""
    differ = sum(line.agrees is False for line in lines)
    texts = [
        f"{len(lines) - differ} of {len(lines)} differences agree: 0 is in the interval of their "
        "difference"
    ]
    for line in lines:
        if not line.settled:
            where = ", ".join(text for text in (line.group[1], line.group[2], line.task) if text)
            texts.append(f"not settled: {line.name}, {where}: the marks differ")
    return texts


def rows(lines: Sequence[Agreement]) -> list[list[str]]:
    """The lines of a table with the columns :data:`HEADER`."""
    words = {True: "yes", False: "no", None: "–"}
    return [
        [
            ", ".join(text for text in (line.group[1], line.group[0], line.group[2]) if text),
            line.name,
            line.task,
            *map(paired_text, (line.here, line.there)),
            "equal" if line.equal else paired_text(line.apart),
            words[line.agrees],
            "yes" if line.settled else "not settled",
        ]
        for line in lines
    ]
