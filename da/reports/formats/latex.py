"""A report as LaTeX: a table for each selection, for papers, with booktabs."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import ClassVar

from da.engine.result import SELECTIONS, Selection
from da.ops.shown_text import visible
from da.reports.differences import Difference
from da.reports.model import Report
from da.reports.renderer import Renderer
from da.reports.runs import Column
from da.reports.tables import Line, Table, averages, point_text
from da.reports.texts import partial, percent, title

_ESCAPES = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"{\ttfamily\char34}"},
    **{"±": r"$\pm$", "–": "--", "→": r"$\rightarrow$", "@": "@"},
    **{"[": "{[}", "]": "{]}", "'": "'", "`": r"\textasciigrave{}"},
}

_LETTERS = "ßæøåÆØÅœŒłŁı"
_OGONEK = "\u0328"
"""The one accent that is not there in every font."""

MARKS = {1: r"\uparrow", -1: r"\downarrow"}

WIDE = 6
"""Tasks from which on a table spans both columns of a page."""

MOST_ROWS = 40
"""Rows of a table that a page holds with its caption; what is longer becomes several."""

Group = tuple[Table, list[Line]]
"""The lines of a method at one point of what is swept."""


def escape(text: str) -> str:
    r"""A plain text as LaTeX shows it, whatever it holds.

    >>> print(escape("a_b->c 50% \\x é😀"))
    a\_b$\rightarrow$c 50\% \textbackslash{}x é\texttt{U+1F600}
    """
    parts = visible(text).split("->")
    return r"$\rightarrow$".join("".join(map(_letter, part)) for part in parts)


def _letter(letter: str) -> str:
    if letter in _ESCAPES:
        return _ESCAPES[letter]
    # Letters with an accent are there in every font; what may not be is written by its number.
    parts = unicodedata.normalize("NFD", letter)
    if letter in _LETTERS or (parts[0].isascii() and _OGONEK not in parts):
        return letter
    return rf"\texttt{{U+{ord(letter):04X}}}"


class Latex(Renderer):
    r"""``report.tex``, for ``\input``; it needs the package booktabs."""

    file: ClassVar[str] = "report.tex"

    def render(self, report: Report) -> str:
        """One table for each row of learning rates and selection."""
        lines = [
            "% Made by: " + " ".join(visible(report.plan.command).split()),
            r"% In the preamble: \usepackage{booktabs,graphicx}",
            "",
        ]
        if not report.has_labels:
            lines.append("% The target has no labels: nothing is shown as an accuracy of it.")
        for row in report.plan.grid.rows:
            for selection in SELECTIONS:
                shown = [
                    table
                    for table in report.tables
                    if (table.row, table.selection) == (row, selection) and table.is_of_target
                ]
                parts = list(_parts(shown))
                for number, part in enumerate(parts, start=1):
                    which = f"{number} of {len(parts)}" if len(parts) > 1 else ""
                    lines += [*_table(report, part, selection, which), ""]
        return "\n".join(lines) + "\n"


def _parts(tables: Sequence[Table]) -> Iterator[list[Group]]:
    """Methods, and of a long sweep its points, in parts that fit on a page."""
    part: list[Group] = []
    rows = 0
    for table in tables:
        for _, lines in groupby(table.lines, key=lambda line: str(line.point)):
            if part and rows + len(table.columns) > MOST_ROWS:
                yield part
                part, rows = [], 0
            part.append((table, list(lines)))
            rows += len(table.columns)
    if part:
        yield part


def _table(
    report: Report, groups: Sequence[Group], selection: Selection, which: str
) -> Iterator[str]:
    """Methods and normalisers down, tasks across, and the average last; ``which`` of the parts."""
    tasks = report.plan.tasks
    kind = "table*" if len(tasks) >= WIDE else "table"
    swept = bool(report.plan.grid.sweep)
    names = ["method", *(["setting"] if swept else []), "normaliser", *tasks]
    names += ["average"] if len(tasks) > 1 else []
    words = 3 if swept else 2
    first = groups[0][0]
    part = f"-{which.partition(' ')[0]}" if which else ""
    yield rf"\begin{{{kind}}}"
    yield r"\centering\footnotesize"
    yield r"\setlength{\belowcaptionskip}{6pt}"
    yield rf"\caption{{{_caption(report, first, which)}}}"
    yield rf"\label{{tab:{first.row}-{selection}{part}}}"
    # Shrinks what is wider than the page, and leaves the rest as it is.
    yield r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
    yield rf"\begin{{tabular}}{{{'l' * words}{'c' * (len(names) - words)}}}"
    yield r"\toprule"
    yield _row([escape(name) for name in names])
    before = None
    for table, lines in groups:
        yield r"\addlinespace" if table is before else r"\midrule"
        where = [escape(point_text(lines[0].point))] if swept else []
        for number, column in enumerate(table.columns):
            method = "" if table is before or number else escape(table.method)
            point = where if number == 0 else [" " for _ in where]
            fields = [_field(table, line, column) for line in lines]
            yield _row([method, *point, escape(str(column)), *fields])
        before = table
    yield r"\bottomrule"
    yield r"\end{tabular}}"
    yield rf"\end{{{kind}}}"


def _row(fields: Sequence[str]) -> str:
    return " & ".join(fields) + r" \\"


def _field(table: Table, line: Line, column: Column) -> str:
    """Mean and deviation, the best in bold, and how the challenger stands to its baselines."""
    one = line.fields[column]
    if one.summary is None:
        gone = f"diverged ({one.diverged} of {one.planned})" if one.diverged else ""
        return escape(gone) or "--"
    spread = "" if one.summary.std is None else rf" $\pm$ {percent(one.summary.std)}"
    text = f"{percent(one.summary.mean)}{spread}"
    if column in line.best:
        text = rf"\textbf{{{text}}}"
    marks = "".join(
        f"{MARKS[difference.these.sign]}_{{{_letter_of(number)}}}"
        for number, difference in enumerate(line.differences)
        if difference.challenger == column and difference.these and difference.these.sign
    )
    return f"{text}$^{{{marks}}}$" if marks else text


def _letter_of(number: int) -> str:
    return "abcdefghijklmnopqrstuvwxyz"[number % 26]


def _caption(report: Report, table: Table, which: str) -> str:
    """Selection, seeds, scope of the normaliser, test, what is missing, which part it is."""
    grid = report.plan.grid
    seeds = len(grid.seeds)
    differences = averages(table)[0].differences if table.lines else []
    said = [
        f"Target accuracy in percent, {table.row} learning rate, {title(table)}",
        f"Mean ± standard deviation over {seeds} seed{'s' * (seeds != 1)}; bold: the highest mean "
        "of a column within a method" + (" and setting" if grid.sweep else ""),
        f"The normaliser covers {_scope(report)}",
    ]
    texts = [f"{text}." for text in said]
    marks = _marks_text(differences, table)
    if not report.plan.grid.sweep and any(column.form for column in table.columns):
        texts.append("After @: the same weights with statistics re-estimated on that domain.")
    if said_of_partial := partial(report.runs):
        texts.append(f"{said_of_partial[0].upper()}{said_of_partial[1:]}.")
    if which:
        texts.append(f"Part {which}.")
    text = " ".join(filter(None, [*map(escape, texts[:3]), marks, *map(escape, texts[3:])]))
    return text.replace(r" \%", r"~\%")  # a number keeps its sign beside it


def _marks_text(differences: Sequence[Difference], table: Table) -> str:
    if not differences:
        return ""
    against = ", ".join(
        f"{_letter_of(number)}: {difference.baseline}"
        for number, difference in enumerate(differences)
    )
    return (
        r"$\uparrow$, $\downarrow$: "
        + escape(f"{differences[0].challenger} is above or below the baseline ({against}) ")
        + escape(
            "beyond the 95 % interval of the difference paired over seeds, on these tasks "
            f"(Student's t{_together(table)})."
        )
    )


def _together(table: Table) -> str:
    """Of how many lines the intervals hold at once."""
    alone = ", alone for the average" if any(line.is_average for line in table.lines) else ""
    many = table.comparisons > 1
    return f", simultaneous over {table.comparisons} lines{alone}" if many else alone


def _scope(report: Report) -> str:
    """The parts of the networks that have the normaliser that names the column."""
    covered: dict[str, None] = {}
    for run in report.runs:
        if run.result is not None:
            norm = run.entry.cell.norm
            parts = run.result.part_norms.items()
            covered |= dict.fromkeys(part for part, name in parts if name == norm)
    if not covered:
        given = report.plan.grid.model.get("scope", ("backbone", "bottleneck", "critic"))
        covered = dict.fromkeys([given] if isinstance(given, str) else map(str, given))
    *most, last = covered
    return f"{', '.join(most)} and {last}" if most else last
