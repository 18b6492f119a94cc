"""What a report says in words, in every format: numbers, intervals, legends."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from da.engine.result import ScoredImages
from da.grids.plan import Plan
from da.reports.differences import Difference, Spread
from da.reports.runs import Run
from da.reports.statistics import Paired
from da.reports.tables import Field, Line, Table, point_text

LEGEND = (
    "Accuracy in percent, mean ± standard deviation over {seeds} seeds; bold: the highest mean of "
    "a task or average, which is no claim that the difference is more than noise. Sampling error: "
    "the binomial standard error of an accuracy on that many test images, the largest of a task. "
    "bn@source-stats and bn@target-stats: the same weights with statistics re-estimated on "
    "unlabelled images of one domain.",
    "Differences in points, paired over seeds, with 95 % intervals that answer two questions. "
    "**On these tasks**: seeds vary, the tasks and their test images are fixed. The intervals of "
    "the {comparisons} lines of a column hold together, that of the average alone; ▲ and ▼: it "
    "excludes 0. **On tasks like these**: the tasks are taken for a sample, with one number for "
    "each; where they share domains they are not independent, and the interval is too narrow. "
    "Detectable: the true difference that would be found with a power of 80 %, two-sided at 5 %, "
    "if runs vary as they did.",
)
"""Two paragraphs: accuracies, differences."""

MOST_COLUMNS = 9
"""Columns of accuracies in a table; where there are more, normalisers are its rows."""

SCORED_IMAGES: dict[ScoredImages, str] = {
    "held out": "unlabelled target validation images",
    "trained on": "the target's training images, unlabelled",
    "tested": "the target's test images, unlabelled, which are trained on, too",
}
"""What a label-free score is of, in words."""


def percent(value: float) -> str:
    """One decimal.

    >>> percent(0.98765)
    '98.8'
    """
    return f"{100 * value:.1f}"


def count(number: int, what: str) -> str:
    """A number of things.

    >>> count(1, "task"), count(6, "task")
    ('1 task', '6 tasks')
    """
    return f"{number} {what}{'' if number == 1 else 's'}"


def option_text(value: Any) -> str:
    """A setting as it stands in YAML, in one line.

    >>> option_text(None), option_text(True), option_text(["a", 1]), option_text({"a": 0.1})
    ('none', 'true', 'a and 1', 'a 0.1')
    """
    if isinstance(value, Mapping):
        return " and ".join(f"{key} {option_text(one)}" for key, one in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return " and ".join(map(option_text, value)) or "none"
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def field_text(field: Field, average: bool = False) -> str:
    """``93.1 ± 0.4``, or a dash with what is missing."""
    if field.summary is not None:
        std = field.summary.std
        return percent(field.summary.mean) + (f" ± {percent(std)}" if std is not None else "")
    if average:
        return "–"
    if not field.planned:
        return "no rate"
    if field.diverged:
        return f"diverged ({field.diverged} of {field.planned})"
    if field.unlabelled:
        return "no labels"
    if field.unscored:
        return f"no score ({field.unscored} of {field.planned})"
    return f"– ({field.done} of {field.planned})" if field.done else "–"


class Strong(str):
    """A field in bold: the best of its row or column."""


def accuracy_texts(table: Table, line: Line) -> list[str]:
    """The accuracies of a line, the best of them strong."""
    texts = [field_text(line.fields[column], line.is_average) for column in table.columns]
    return [
        Strong(text) if column in line.best else text
        for column, text in zip(table.columns, texts, strict=True)
    ]


def paired_text(paired: Paired | None) -> str:
    """``+1.2 [+0.3, +2.1] ▲``, or why there is no interval."""
    if paired is None:
        return "–"
    text = f"{100 * paired.difference:+.1f}"
    if paired.low is None or paired.high is None:
        return f"{text} (not testable: {paired.reason})"
    mark = {1: " ▲", -1: " ▼", 0: ""}[paired.sign]
    return f"{text} [{100 * paired.low:+.1f}, {100 * paired.high:+.1f}]{mark}"


def difference_rows(table: Table) -> Iterator[tuple[str, list[str], bool]]:
    """Label, texts and whether it is an average, of every row of a table of differences.

    An average has two: ``average (6 of 6 tasks), on these tasks``, then on tasks like these.
    """
    for line in table.lines:
        these = [paired_text(difference.these) for difference in line.differences]
        if not line.is_average:
            yield line.label, these, False
            continue
        yield f"{line.label}, on these tasks", these, True
        like = [paired_text(difference.like) for difference in line.differences]
        yield f"{line.label}, on tasks like these", like, True


def average_name(plan: Plan, table: Table, line: Line) -> str:
    """The method, with what is swept, and of how many tasks an average is that is not of all."""
    parts = [table.method, *([table.row] if len(plan.grid.rows) > 1 else [])]
    parts += [point_text(line.point)] if line.point else []
    fewer = ""
    if line.is_average and len(line.tasks) < len(plan.tasks):
        fewer = f" ({len(line.tasks)} of {len(plan.tasks)})"
    return f"{', '.join(parts)}{fewer}"


def notes(table: Table) -> list[str]:
    """What the intervals of the averages, or of the only task, rest on."""
    averages = [line for line in table.lines if line.is_average]
    texts = []
    for line in averages or table.lines:
        for difference in line.differences:
            name = difference.name
            if line.point:
                name = f"{name}, {point_text(line.point)}"
            if difference.these and difference.spread:
                these = _these_note(difference.these, difference.spread)
                texts.append(f"{name}, on these tasks: {these}")
            if difference.like:
                texts.append(f"{name}, on tasks like these: {_like_note(difference)}")
    return texts


def _these_note(average: Paired, spread: Spread) -> str:
    tasks = len(spread.deviations)
    assert average.detectable is not None  # for mypy: a spread has an interval
    seen = f"detectable {percent(average.detectable)}"
    if tasks == 1:
        deviation = f"deviation over seeds {percent(spread.pooled)}"
        return f"{deviation}, {average.n - 1} degrees of freedom; {seen}"
    assert average.freedom is not None  # for mypy, too
    check = f"Bartlett p = {spread.check:.3f}"
    in_a_task = sorted({percent(value) for value in spread.in_a_task}, key=float)
    seen += f" on average, {' to '.join(dict.fromkeys((in_a_task[0], in_a_task[-1])))} in one task"
    if spread.fair:
        return (
            f"variance over seeds pooled over {tasks} tasks ({check}), deviation "
            f"{percent(spread.pooled)}, {average.freedom:.0f} degrees of freedom; {seen}"
        )
    least, most = min(spread.deviations), max(spread.deviations)
    return (
        f"variances over seeds differ between tasks ({check}; deviations {percent(least)} to "
        f"{percent(most)}), so each task has its own, and the average Welch's form "
        f"({average.freedom:.1f} degrees of freedom); {seen}"
    )


def _like_note(difference: Difference) -> str:
    like, rank = difference.like, difference.signed_rank
    assert like is not None  # for mypy: the caller asked
    assert rank is not None
    if like.p is None or like.detectable is None:
        return f"not testable ({like.reason})"
    wilcoxon = (
        f"exact Wilcoxon not testable ({rank.reason})"
        if rank.p is None
        else f"exact Wilcoxon p = {rank.p:.3f}"
    )
    return (
        f"one number for each of {like.n} tasks, t-test p = {like.p:.3f}, {wilcoxon}; detectable "
        f"{percent(like.detectable)}"
    )


def partial(runs: list[Run]) -> str:
    """What to say above tables of a grid that is not at its end; empty where it is."""
    coming = sum(run.state not in ("done", "diverged") for run in runs)
    if not coming:
        return ""
    done = sum(run.state == "done" for run in runs)
    return (
        f"partial: {done} of {len(runs)} runs finished, {coming} missing; means are of complete "
        "sets of seeds, averages of tasks that are complete with every normaliser"
    )


def title(table: Table) -> str:
    """What a table shows: the selection and how it chose."""
    counts = " or ".join(map(str, table.evaluations)) or "no"
    plural = "" if counts == "1" else "s"
    how = {
        "last": "the last epoch",
        "label-free": f"the epoch with the highest {table.score or 'score'} on "
        f"{SCORED_IMAGES[table.scored_images]}",
        "oracle": f"the maximum over {counts} evaluation{plural} on the target's test labels, "
        "which flatters the noisier normaliser",
    }[table.selection]
    domain = "source test accuracy, " if table.stream == "source/test" else ""
    return f"{domain}{table.selection}: {how}"


def left_out_texts(table: Table) -> list[str]:
    """Which normalisers are in no average, a line for each swept point."""
    texts = []
    for point, group in groupby(table.left_out, key=lambda item: item[1]):
        where = f" with {point_text(point)}" if point else ""
        which = "of that average" if point else "of the average"
        names = ", ".join(str(column) for column, _ in group)
        texts.append(f"complete in no task{where}, so left out {which}: {names}")
    return texts


def unlabelled_notes(shown: list[Table]) -> list[str]:
    """What to say in place of the tables of a target without labels."""
    if all(table.has_labels for table in shown):
        return []
    return [
        "The target has no labels: nothing is shown as an accuracy of it. Its label-free scores "
        "are in scores.csv."
    ]


def data_remarks(runs: Iterable[Run]) -> list[str]:
    """What the trainings say of their images, each once."""
    results = (run.result for run in runs)
    return list(dict.fromkeys(text for one in results if one is not None for text in one.remarks))


def missing(runs: Iterable[Run], out: str = "") -> list[str]:
    """One line per place of the grid without a result; logs are named from ``out``."""
    words = {"pending": "not run", "failed": "failed", "diverged": "diverged"}
    lines = []
    for run in runs:
        if run.state != "done":
            log = posixpath.normpath(f"{out}{run.folder}/log.txt")
            why = f" ({run.reason}; log: {log})" if run.reason else ""
            lines.append(f"{run.entry.cell} [{run.entry.row}]: {words[run.state]}{why}")
    return lines


def normalisers_go_down(columns: Sequence[Any], lines: Sequence[Any]) -> bool:
    """Whether they are the rows of a table: they are many, and more than what then goes across."""
    return len(columns) > max(MOST_COLUMNS, len(lines))


def transposed(
    header: Sequence[str], rows: Iterable[Sequence[Any]], first: str = "normaliser"
) -> tuple[list[str], list[list[Any]]]:
    """A table with its columns down and its rows across.

    >>> transposed(["task", "bn", "wa"], [["a->b", "50.1", "60.2"]])
    (['normaliser', 'a->b'], [['bn', '50.1'], ['wa', '60.2']])
    """
    labels, *columns = zip(*rows, strict=True)
    names = header[1:]
    return [first, *labels], [[n, *texts] for n, texts in zip(names, columns, strict=True)]


def grid_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[int] = (0,)
) -> list[str]:
    """A Markdown table.

    Args:
        header: the titles of its columns.
        rows: their cells.
        left: numbers of the columns that are aligned to the left; the others are to the right.
    """
    return [
        f"| {' | '.join(header)} |",
        f"|{'|'.join('---' if i in left else '--:' for i in range(len(header)))}|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
