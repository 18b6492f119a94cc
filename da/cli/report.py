"""Rebuild the tables and pictures of a grid from its results on disk, or compare two runs.

While a grid runs, too: what is missing is shown as missing, and the tables as partial. The terminal
shows the averages; report.html has all there is, and report.tex the tables for a paper.

examples:
  python run.py report runs/digits
  python run.py report runs/digits --full                           all tables on the terminal
  python run.py report runs/digits --pictures                       t-SNE, confusion, layers, too
  python run.py report runs/digits runs/digits-gn --out runs/all    two grids as one
  python run.py report runs/normalisers --costs runs/bench/table.csv  accuracy beside cost
  python run.py report docs/results/digits --against runs/digits    do two processors agree?
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from da.cli._options import command_line, output_file, output_folder, parse, plain_parser
from da.errors import UserError

OF_REPORTS = ("out", "full", "pictures", "costs")
"""Options of the report of a grid alone."""


def main(argv: list[str]) -> int:
    """Runs the command on the command line after ``report``; returns 0."""
    parser = plain_parser("report", __doc__)
    parser.add_argument(
        "folder",
        type=str,
        nargs="+",
        help="the output folder of an ablate command; several of the same settings are joined",
    )
    parser.add_argument(
        "--out",
        type=str,
        help="the folder of the report, by default that one; of several their names with a + "
        "between, beside the first",
    )
    parser.add_argument("--full", action="store_true", help="print every table, not averages alone")
    parser.add_argument(
        "--pictures",
        action="store_true",
        help="first draw what kept checkpoints make of both domains, for every task and method; "
        "see analyse and inspect",
    )
    parser.add_argument(
        "--costs",
        type=str,
        help="table.csv of bench norms: what each normaliser costs, beside its accuracy",
    )
    parser.add_argument(
        "--against",
        type=str,
        help="another run of the same grid, a folder or a runs.csv: prints both, the interval of "
        "their difference, and what is not settled; reads runs.csv alone and rebuilds nothing",
    )
    parser.add_argument("--save", type=str, help="with --against: a Markdown file for that table")
    options = parse(parser, argv)
    folders = [Path(name) for name in options.folder]
    if options.against is not None:
        for name in OF_REPORTS:
            if getattr(options, name):
                raise UserError(f"--{name}: not with --against, which writes no report")
        if len(folders) > 1:
            raise UserError(f"--against: expected one folder before it, got {len(folders)}")
        return _against(options, folders[0])
    if options.save is not None:
        raise UserError("--save: only with --against; the report itself is written to its folder")
    if twice := [str(folder) for folder in folders if folders.count(folder) > 1]:
        raise UserError(f"{twice[0]} is given twice")
    from da.grids import statistics_run

    studies = [folder for folder in folders if (folder / statistics_run.STUDY).is_file()]
    if studies:
        return _study(options, folders, studies[0])
    return _grid(options, folders, command_line("report", argv))


def _study(options: Any, folders: list[Path], study: Path) -> int:
    """Writes the report of a study of target statistics."""
    from da.grids import statistics_run
    from da.reports.target_statistics import write_report

    if len(folders) > 1:
        raise UserError(f"{study} holds a study; expected grids, to join them")
    for name in OF_REPORTS:
        if getattr(options, name):
            raise UserError(f"--{name}: {study} holds a study; it is for grids")
    _, files = write_report(study, statistics_run.read(study))
    print(f"written: {files}")
    return 0


def _grid(options: Any, folders: list[Path], command: str) -> int:
    """Writes and prints the report of a grid, or of several as of one."""
    from da.grids import plan
    from da.grids.store import PLAN
    from da.reports import report, terminal

    out = folders[0]
    if options.out is not None:
        out = output_folder(options.out)
    elif len(folders) > 1:
        out = out.with_name("+".join(folder.resolve().name for folder in folders))
    if out not in folders and (out / PLAN).is_file():
        raise UserError(f"--out: {out} holds another grid; name another folder")
    built = (
        report.build(folders[0], plan.read(folders[0]), out)
        if len(folders) == 1
        else report.build_joined(folders, out, command)
    )
    if options.costs is not None:
        from da.reports.costs import read_costs

        built = replace(built, costs=read_costs(Path(options.costs), built.plan))
    if options.pictures:
        from da.cli._report_pictures import draw_pictures

        draw_pictures(built)
    report.write(built)
    console = terminal.console()
    terminal.show(console, built, options.full)
    console.print(f"written: {report.files(out)}", markup=False, soft_wrap=True)
    return 0


def _against(options: Any, here: Path) -> int:
    from da.grids import plan
    from da.grids.grid import BASELINES, CHALLENGER
    from da.grids.store import PLAN
    from da.ops.files import write_atomically
    from da.reports import agreement, terminal
    from da.reports.runs import Column
    from da.reports.runs_file import read_runs
    from da.reports.texts import grid_table

    there = Path(options.against)
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
