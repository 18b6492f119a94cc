"""A report as Markdown: the tables of every method and selection."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import ClassVar

from da.ops.shown_text import visible
from da.reports.model import Report, Section, rates
from da.reports.renderer import Renderer
from da.reports.tables import Table, averages
from da.reports.texts import (
    LEGEND,
    MOST_COLUMNS,
    Strong,
    accuracy_texts,
    average_name,
    difference_rows,
    grid_table,
    left_out_texts,
    missing,
    normalisers_go_down,
    notes,
    paired_text,
    partial,
    percent,
    title,
    transposed,
    unlabelled_notes,
)
from da.reports.verdicts import verdict


def escape(text: str) -> str:
    r"""A plain text so that nothing of it is taken for Markdown, in a table's field, too.

    >>> print(escape("a|b <i> *x* $1$"))
    a\|b &lt;i> \*x\* \$1\$
    """
    shown = re.sub(r"[\\`*|$]", r"\\\g<0>", visible(text))
    return re.sub(r"&(?=[#\w]+;)", "&amp;", shown).replace("](", r"]\(").replace("<", "&lt;")


def code(text: str) -> str:
    """A command as code, whatever it holds.

    >>> print(code("a `b`"))
    `` a `b` ``
    """
    shown = visible(text)
    return f"`{shown}`" if "`" not in shown else f"`` {shown} ``"


class Markdown(Renderer):
    """``report.md``."""

    file: ClassVar[str] = "report.md"

    def render(self, report: Report) -> str:
        """The whole report."""
        plan, runs, shown = report.plan, report.runs, report.tables
        comparisons = shown[0].comparisons if shown else 1
        lines = ["# BN or WA under shift", ""]
        if incomplete := partial(runs):
            lines += [f"**{incomplete[0].upper()}{incomplete[1:]}.**", ""]
        for fact in report.facts:
            text = code(fact.text) if fact.is_command else escape(fact.text)
            lines.append(f"- {fact.name}: {text}")
        lines.append("")
        for paragraph in LEGEND if any(table.has_labels for table in shown) else ():
            lines += [paragraph.format(seeds=len(plan.grid.seeds), comparisons=comparisons), ""]
        if report.has_labels:
            lines += ["![accuracy by task and normaliser](figure.png)", ""]
        lines += _averages(report)
        for row in plan.grid.rows:
            for method in plan.grid.methods:
                mine = [t for t in shown if t.row == row and t.method == method]
                lines += [f"## {escape(method)}, {row} learning rate", "", *_method(mine), ""]
        for section in report.sections:
            lines += section_lines(section)
        if absent := missing(runs):
            lines += [f"## Missing: {len(absent)} of {len(runs)} runs", "", *_list(absent), ""]
        if plan.refused:
            lines += ["## Refused", "", *_list(plan.refused), ""]
        lines += ["## Learning rates", "", *_grid(*rates(runs)), ""]
        return "\n".join(lines)


def _averages(report: Report) -> list[str]:
    """The averages of all methods and points of a sweep, where there are several of either."""
    if not report.has_overview or len(report.plan.tasks) < 2:
        return []
    lines = []
    of_target = [t for t in report.tables if t.is_of_target]
    for selection in dict.fromkeys(table.selection for table in of_target):
        mine = [table for table in of_target if table.selection == selection]
        rows = [
            [
                average_name(report.plan, table, line),
                *accuracy_texts(table, line),
                *(paired_text(difference.these) for difference in line.differences),
            ]
            for table in mine
            for line in averages(table)
        ]
        differences = mine[0].lines[0].differences if mine[0].lines else []
        header = ["method", *map(str, mine[0].columns), *(each.name for each in differences)]
        if len(mine[0].columns) > MOST_COLUMNS:
            header, rows = transposed(header, rows)
        lines += [f"### {title(mine[0])}", "", *_grid(header, rows), ""]
    number = len(report.plan.tasks)
    return (
        [f"## Averages over {number} tasks, and differences on these", "", *lines] if lines else []
    )


def _method(tables: list[Table]) -> list[str]:
    lines = []
    for table in tables:
        if not table.has_labels:
            continue
        lines += [f"### {title(table)}", "", *_accuracies(table), ""]
        if table.stream == "target/test":
            lines += [*_differences(table), "", *_list(notes(table))]
        lines += _list(left_out_texts(table))
        lines += [""] if lines[-1] else []
    lines += unlabelled_notes(tables)
    of_target = [t for t in tables if t.is_of_target]
    return lines + _list(verdict(table) for table in of_target)


def _accuracies(table: Table) -> list[str]:
    header = ["task", *map(str, table.columns), "sampling error (n)"]
    rows = []
    for line in table.lines:
        error = "–" if line.sampling_error is None else f"{percent(line.sampling_error)} ({line.n})"
        rows.append([line.label, *accuracy_texts(table, line), "" if line.is_average else error])
    if normalisers_go_down(table.columns, rows):
        header, rows = transposed(header, rows)
    return _grid(header, rows)


def _differences(table: Table) -> list[str]:
    if not table.lines or not table.lines[0].differences:
        return []
    header = ["task", *(difference.name for difference in table.lines[0].differences)]
    return _grid(header, [[label, *texts] for label, texts, _ in difference_rows(table)])


def section_lines(section: Section) -> list[str]:
    """The lines of a section, of which the last one is empty."""
    lines = [f"## {section.title}", "", section.text, ""]
    if section.rows:
        lines += [*_grid(section.header, section.rows, section.left), ""]
    return lines


def _grid(
    header: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[int] = (0,)
) -> list[str]:
    return grid_table([*map(escape, header)], [[*map(_field, row)] for row in rows], left)


def _field(text: str) -> str:
    return f"**{escape(text)}**" if isinstance(text, Strong) else escape(text)


def _list(texts: Iterable[str]) -> list[str]:
    return [f"- {escape(text)}" for text in texts]
