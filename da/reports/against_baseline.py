"""Each normaliser of a grid against batch norm, where there are several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from da.reports.differences import Comparison, compare
from da.reports.fixed_tasks import CONFIDENCE
from da.reports.model import Section
from da.reports.runs import Column
from da.reports.tables import Table, headline
from da.reports.texts import Strong, paired_text

BASELINE = Column("bn")

FEWEST = 3
"""Normalisers beside batch norm from which on a report has this table."""


def against_baseline(table: Table) -> dict[str, Comparison]:
    """Each normaliser as it was trained minus ``bn``, by its name, over their common tasks."""
    lines = [line for line in table.lines if not line.is_average]
    found = {}
    for column in table.columns:
        if column.form or column == BASELINE or BASELINE not in table.columns:
            continue
        pairs = {
            str(line.task): (line.fields[column].values, line.fields[BASELINE].values)
            for line in lines
        }
        differences = {
            task: [a - b for a, b in zip(one, other, strict=True)]
            for task, (one, other) in pairs.items()
            if one and other
        }
        if differences:
            found[column.norm] = compare(differences)
    return found


def holm(p_values: Mapping[str, float], level: float = 1 - CONFIDENCE) -> set[str]:
    """The hypotheses that Holm's procedure rejects: the chance of a false one is ``level`` at most.

    The smallest of m is held against level / m, the next against level / (m - 1), until one isn't
    below (Holm 1979, A simple sequentially rejective multiple test procedure).

    Args:
        p_values: of each hypothesis, by its name.
        level: of all of them together.

    >>> sorted(holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}))
    ['a', 'd']
    """
    rejected: set[str] = set()
    for done, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        if p_values[name] > level / (len(p_values) - done):
            break
        rejected.add(name)
    return rejected


def sections(shown: Sequence[Table]) -> list[Section]:
    """A row for each normaliser, a column for each method and point of a sweep.

    Nothing where there are few normalisers.
    """
    tables = headline(shown)
    found = {f"{table.name}, {table.row}": against_baseline(table) for table in tables}
    norms = list(dict.fromkeys(norm for compared in found.values() for norm in compared))
    if len(norms) < FEWEST:
        return []
    held = {name: _together(compared) for name, compared in found.items()}
    rows = [
        # The tasks of all tables are the same.
        [norm, *(_text(found[name].get(norm), norm in held[name], tables[0]) for name in found)]
        for norm in norms
    ]
    text = (
        "Target accuracy at the last epoch, as trained, minus that of bn, in points, on average"
        " over the tasks, on these tasks. Intervals are of 95 % each by itself; ▲ and ▼: it"
        " excludes 0, as one in twenty does where nothing differs. **Bold**: it does with all"
        " normalisers of its column together, too (Holm's procedure, 5 %)."
    )
    return [Section("Each normaliser against bn", text, ["normaliser", *found], rows)]


def _together(compared: Mapping[str, Comparison]) -> set[str]:
    averages = {norm: one.average for norm, one in compared.items()}
    return holm({n: a.p for n, a in averages.items() if a is not None and a.p is not None})


def of_tasks(one: Comparison, table: Table) -> str:
    """Of how many tasks a comparison is, where these are not all; else nothing."""
    every, here = sum(not line.is_average for line in table.lines), len(one.tasks)
    return "" if here == every else f" ({here} of {every} tasks)"


def _text(one: Comparison | None, held: bool, table: Table) -> str:
    if one is None:
        return "–"
    text = paired_text(one.average) + of_tasks(one, table)
    return Strong(text) if held else text
