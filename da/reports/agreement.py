"""Two runs of one grid, on two processors say: do they agree, and is what they show settled?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
    equal: bool
    """Nothing differs, in any task and seed."""
    seeds: tuple[tuple[int, ...], tuple[int, ...]]
    """Those of the group here, and there."""

    @property
    def agrees(self) -> bool | None:
        """The interval of the difference holds 0, or all are equal; None where there is none."""
        if self.equal:
            return True
        return None if self.apart.low is None else self.apart.sign == 0

    @property
    def settled(self) -> bool | None:
        """The marks are the same; None where one of the two has no interval to be marked for."""
        if self.here.low is None or self.there.low is None:
            return None
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
        seeds = tuple(sorted(here[group].seeds)), tuple(sorted(there[group].seeds))
        for baseline in baselines:
            name = f"{challenger} - {baseline}"
            first, second = (
                side[group].differences(challenger, baseline) for side in (here, there)
            )
            compared = _compared(first, second, families)
            lines += [Agreement(group, name, *line, seeds=seeds) for line in compared]
    if not lines:
        names = ", ".join(f"{challenger} - {baseline}" for baseline in baselines)
        sides = (_contents(side, challenger, baselines) for side in (here, there))
        raise UserError(
            f"nothing to compare: expected {names} with common methods, rows of learning rates, "
            "settings, tasks and seeds in both; here: {}; there: {}".format(*sides)
        )
    return lines


def _compared(
    here: Differences, there: Differences, families: int
) -> list[tuple[str, Paired, Paired, Paired, bool]]:
    """Task, both differences, how far they are apart, whether all is equal; the average first."""
    apart = {
        task: {seed: here[task][seed] - there[task][seed] for seed in seeds}
        for task in here
        if task in there and (seeds := [seed for seed in here[task] if seed in there[task]])
    }
    first = compare(arrays({task: here[task] for task in apart}), families)
    second = compare(arrays({task: there[task] for task in apart}), families)
    third = compare(arrays(apart), families)
    # Accuracies are ratios of counts: what is equal but for rounding is equal.
    equal = {
        task: all(round(value, 12) == 0 for value in by_seed.values())
        for task, by_seed in apart.items()
    }
    lines = [
        (task, first.tasks[task], second.tasks[task], third.tasks[task], equal[task])
        for task in apart
    ]
    if len(apart) > 1 and first.average and second.average and third.average:
        whole = all(equal.values())
        lines.insert(0, (AVERAGE, first.average, second.average, third.average, whole))
    return lines


def _contents(
    groups: Mapping[Group, Accuracies], challenger: Column, baselines: Sequence[Column]
) -> str:
    """What a grid has, so that two that have nothing in common can be told apart."""
    rows, methods, points = (dict.fromkeys(group[k] for group in groups) for k in range(3))
    norms = dict.fromkeys(str(c) for group in groups.values() for c in group.values)
    tasks = dict.fromkeys(
        task
        for group in groups.values()
        for baseline in baselines
        for task in group.differences(challenger, baseline)
    )
    seeds = sorted({seed for group in groups.values() for seed in group.seeds})
    settings = [point for point in points if point]
    return (
        f"{', '.join(methods) or 'no method'} with {', '.join(norms) or 'no result'}, "
        f"{', '.join(rows) or 'no'} learning rate, complete tasks: {', '.join(tasks) or 'none'}, "
        f"{_seeds(seeds)}" + (f", settings: {'; '.join(settings)}" if settings else "")
    )


def _seeds(numbers: Iterable[int]) -> str:
    return f"seeds {', '.join(map(str, numbers)) or 'none'}"


def conclusions(lines: Sequence[Agreement]) -> list[str]:
    """What follows, in words."""
    agree = sum(line.agrees is True for line in lines)
    untested = sum(line.agrees is None for line in lines)
    texts = [
        f"{agree} of {len(lines)} differences agree: 0 is in the interval of their difference"
        + (f"; {untested} not testable" if untested else "")
    ]
    for group, (here, there) in {line.group: line.seeds for line in lines}.items():
        if here != there:
            common = [seed for seed in here if seed in there]
            texts.append(
                f"seeds differ: {', '.join(filter(None, group[1:]))}: here {_seeds(here)}; there "
                f"{_seeds(there)}; here - there is of {_seeds(common)}"
            )
    for line in lines:
        if line.settled is False:
            where = ", ".join(text for text in (line.group[1], line.group[2], line.task) if text)
            texts.append(f"not settled: {line.name}, {where}: the marks differ")
    return texts


def rows(lines: Sequence[Agreement]) -> list[list[str]]:
    """The lines of a table with the columns :data:`HEADER`."""
    words = {True: "yes", False: "no", None: "–"}
    settled = {**words, False: "not settled"}
    return [
        [
            ", ".join(text for text in (line.group[1], line.group[0], line.group[2]) if text),
            line.name,
            line.task,
            *map(paired_text, (line.here, line.there)),
            "equal" if line.equal else paired_text(line.apart),
            words[line.agrees],
            settled[line.settled],
        ]
        for line in lines
    ]
