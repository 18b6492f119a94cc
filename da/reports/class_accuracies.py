"""The accuracy of every class of the target over seeds, from results."""

from __future__ import annotations

from dataclasses import dataclass

from da.grids.plan import Plan
from da.reports.class_groups import ClassGroup, groups_of, last_scores
from da.reports.runs import Column, Run, columns
from da.reports.statistics import Summary, summary


@dataclass(frozen=True)
class ClassAccuracies(ClassGroup):
    """Those of one group.

    Attributes:
        classes: by class and normaliser the mean over the runs that are done and have images of
            the class; a normaliser without any is left out.
    """

    classes: dict[str, dict[Column, Summary]]


def class_accuracies(plan: Plan, runs: list[Run]) -> list[ClassAccuracies]:
    """One for each row of rates, method, task and swept point of which any result says it.

    A target without labels has none.
    """
    found = []
    for group, mine in groups_of(runs):
        classes = _of_group(mine, columns(mine, list(plan.grid.norms)))
        if classes:
            found.append(ClassAccuracies(**vars(group), classes=classes))
    return found


def _of_group(runs: list[Run], shown: list[Column]) -> dict[str, dict[Column, Summary]]:
    classes: dict[str, dict[Column, Summary]] = {}
    for column in shown:
        values: dict[str, list[float]] = {}
        for run in runs:
            last = last_scores(run, column)
            for name, value in ((last and last.per_class) or {}).items():
                values.setdefault(name, [])
                if value is not None:
                    values[name].append(value)
        for name, of_class in values.items():
            classes.setdefault(name, {})
            if of_class:
                classes[name][column] = summary(of_class)
    return classes
