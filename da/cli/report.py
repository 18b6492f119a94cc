"""Rebuild the tables and pictures of a grid from its results on disk, or compare two runs.

While a grid runs, too: what is missing is shown as missing, and the tables as partial.

examples:
  python run.py report runs/digits
  python run.py report docs/results/digits --against runs/digits    do two processors agree?
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from da.cli._options import output_file, parse, plain_parser
from da.errors import UserError


def main(argv: list[str]) -> int:
    """Runs the command on the command line after ``report``; returns 0."""
    parser = plain_parser("report", __doc__)
    parser.add_argument("out", type=str, help="the output folder of an ablate command")
    parser.add_argument(
        "--against",
        type=str,
        help="another run of the same grid, a folder or a runs.csv: prints both, the interval of "
        "their difference, and what is not settled; reads runs.csv alone and rebuilds nothing",
    )
    parser.add_argument("--save", type=str, help="with --against: a Markdown file for that table")
    options = parse(parser, argv)
    if options.against is not None:
        return _against(options)
    if options.save is not None:
        raise UserError("--save: only with --against; the report itself is written to its folder")
    from da.grids import plan, statistics_run
    from da.reports import report, terminal
    from da.reports.target_statistics import write_report

    out = Path(options.out)
    if (out / statistics_run.STUDY).is_file():
        _, files = write_report(out, statistics_run.read(out))
        print(f"written: {files}")
        return 0
    read = plan.read(out)
    runs, tables = report.write(out, read)
    console = terminal.console()
    terminal.show(console, out, read, runs, tables)
    console.print(f"written: {report.files(out)}", markup=False, soft_wrap=True)
    return 0


def _against(options: Any) -> int:
    from da.grids import plan
    from da.grids.grid import BASELINES, CHALLENGER
    from da.grids.store import PLAN
    from da.ops.files import write_atomically
    from da.reports import agreement, terminal
    from da.reports.runs import Column
    from da.reports.runs_file import read_runs
    from da.reports.texts import grid_table

    here, there = Path(options.out), Path(options.against)
    saved = None if options.save is None else output_file("--save", options.save)
    has_plan = (here / PLAN).is_file()
    challenger, baselines = plan.read(here).grid.comparison if has_plan else (CHALLENGER, BASELINES)
    lines = agreement.agreements(
        read_runs(here), read_runs(there), Column.named(challenger), [*map(Column.named, baselines)]
    )
    title = (
        f"differences in points on these tasks (last epoch); here: {here}, there: {there}; "
        "here - there is paired over tasks and seeds"
    )
    rows, conclusions = agreement.rows(lines), agreement.conclusions(lines)
    console = terminal.console()
    terminal.show_rows(console, title, agreement.HEADER, rows)
    for text in conclusions:
        console.print(text, markup=False)
    if saved is not None:
        table = grid_table(agreement.HEADER, rows)
        lines_of_file = [title, "", *table, "", *(f"- {text}" for text in conclusions), ""]
        write_atomically(saved, "\n".join(lines_of_file))
        console.print(f"written: {options.save}", markup=False, soft_wrap=True)
    return 0
