"""A table in one plain sentence: what wins on how many tasks, and what could not be compared."""

from __future__ import annotations

from collections import Counter

from da.reports.runs import Column
from da.reports.tables import Field, Line, Table

WITHOUT = ("diverged", "missing", "without a score")
"""Why a task has no difference, in the order in which it is said."""


def verdict(table: Table) -> str:
    """The table in one plain sentence."""
    if not table.has_labels:
        return f"{table.selection}: the target has no labels, so nothing is known of accuracies."
    lines = [line for line in table.lines if not line.is_average]
    what = "tasks" if all(not line.point for line in lines) else "settings"
    pairs = range(len(lines[0].differences)) if lines else ()
    parts = [_compared(table, lines, index, what) for index in pairs]
    if ranking := _ranking(lines, table.columns):
        parts.append(f"highest mean on {ranking} of {_count(lines, what)}")
    for line in table.lines:
        if line.is_average and line.best and what == "tasks":
            names = ", ".join(map(str, line.best))
            parts.append(f"highest average{_fewer(line, lines)}: {names}")
    return f"{table.selection}: " + "; ".join(parts or ["nothing to compare yet"]) + "."


def _compared(table: Table, lines: list[Line], index: int, what: str) -> str:
    """The challenger against one of its baselines."""
    difference = lines[0].differences[index]
    challenger, baseline = _title(difference.challenger), difference.baseline
    tested = [paired for line in lines if (paired := line.differences[index].these)]
    absent = Counter(
        _why(_sides(line, index)) for line in lines if line.differences[index].these is None
    )
    why = "".join(f" ({absent[word]} {word})" for word in WITHOUT if absent[word])
    if not tested:
        reason = f"on no {what[:-1]} did all seeds of both finish{why}"
        if set(absent) == {"without a score"}:
            runs = sum(side.unscored for line in lines for side in _sides(line, index))
            reason = f"{table.score} is not a number in {runs} run{'s' * (runs > 1)}"
        return f"{challenger} and {baseline} cannot be compared: {reason}"
    signs = [paired.sign for paired in tested]
    untested = sum(paired.low is None for paired in tested)
    return (
        f"{challenger} beats {baseline} beyond its interval on {signs.count(1)} of "
        f"{_count(lines, what)} and loses on {signs.count(-1)}"
        + (f" ({untested} not testable)" if untested else "")
        + why
        + _on_average(table, lines, index, what)
    )


def _count(lines: list[Line], what: str) -> str:
    """``6 tasks``, or ``1 task``."""
    return f"{len(lines)} {what if len(lines) > 1 else what[:-1]}"


def _sides(line: Line, index: int) -> tuple[Field, Field]:
    difference = line.differences[index]
    return line.fields[difference.challenger], line.fields[difference.baseline]


def _why(sides: tuple[Field, Field]) -> str:
    """Why a task has no difference, as one of :data:`WITHOUT`."""
    if any(side.diverged for side in sides):
        return "diverged"
    if any(side.done + side.unscored < side.planned or not side.planned for side in sides):
        return "missing"
    return "without a score"


def _on_average(table: Table, lines: list[Line], index: int, what: str) -> str:
    """How the one average of a table ends on these tasks."""
    averages = [line for line in table.lines if line.is_average]
    if what != "tasks" or len(averages) != 1:
        return ""
    average = averages[0].differences[index].these
    if average is None:
        return ""
    words = {1: ", and wins", -1: ", and loses", 0: ", and neither wins nor loses"}[average.sign]
    if average.low is None:
        words = ", and is not testable"
    return f"{words} on average{_fewer(averages[0], lines)}"


def _fewer(average: Line, lines: list[Line]) -> str:
    """Over how many tasks an average is, where these are not all."""
    if len(average.tasks) == len(lines):
        return ""
    return f" over {len(average.tasks)} of {len(lines)} tasks"


def _title(column: Column) -> str:
    """``WA`` for ``wa``: the abbreviation at the head of a sentence."""
    return "WA" if column == Column("wa") else str(column)


def _ranking(lines: list[Line], shown: list[Column]) -> str:
    """How often each column is best, ties counted for each: ``wa 3, bn@target-stats 3``."""
    counts = {column: sum(column in line.best for line in lines) for column in shown}
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{column} {count}" for column, count in ordered if count)
