"""What the classes of the target are taken for, over seeds, from results."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from da.grids.plan import Plan
from da.reports.class_groups import ClassGroup, groups_of, last_scores
from da.reports.runs import Column, Run, columns


@dataclass(frozen=True)
class Confusion:
    """Of one network over the runs that say it.

    Attributes:
        runs: how many do.
        images: by true and by predicted class, of all of them together.
    """

    runs: int
    images: dict[str, Counter[str]]

    def share(self, true: str, predicted: str) -> float:
        """The share of the images of a class, over the runs, that are taken for another."""
        return self.images[true][predicted] / self.images[true].total()

    def most_frequent(self) -> list[tuple[str, str]]:
        """Pairs of true and another predicted class, the most frequent first."""
        pairs = [(a, b) for a, row in self.images.items() for b in row if a != b]
        return sorted(pairs, key=lambda pair: -self.share(*pair))


@dataclass(frozen=True)
class ClassConfusions(ClassGroup):
    """Those of one group.

    Attributes:
        classes: names in the order of the labels.
        by_column: by normaliser, of those that any result says it of.
    """

    classes: list[str]
    by_column: dict[Column, Confusion]


def class_confusions(plan: Plan, runs: list[Run]) -> list[ClassConfusions]:
    """One for each row of rates, method, task and swept point of which any result says it."""
    found = []
    for group, mine in groups_of(runs):
        by_column = {}
        for column in columns(mine, list(plan.grid.norms)):
            last = [scores for run in mine if (scores := last_scores(run, column)) is not None]
            counted = [scores.confusion for scores in last if scores.confusion]
            if counted:
                by_column[column] = Confusion(len(counted), _total(counted))
        if by_column:
            classes = next(run.result.classes for run in mine if run.result is not None)
            found.append(ClassConfusions(**vars(group), classes=classes, by_column=by_column))
    return found


def _total(counted: list[dict[str, dict[str, int]]]) -> dict[str, Counter[str]]:
    images: dict[str, Counter[str]] = {}
    for one in counted:
        for true, row in one.items():
            images.setdefault(true, Counter()).update(row)
    return images
