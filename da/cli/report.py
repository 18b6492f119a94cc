"""Rebuild the tables and pictures of a grid from its results on disk.

example:
  python run.py report runs/digits
"""

from __future__ import annotations

from pathlib import Path

from da.cli._options import parse, plain_parser


def main(argv: list[str]) -> int:
    """Runs the command on the command line after ``report``; returns 0."""
    parser = plain_parser("report", __doc__)
    parser.add_argument("out", type=str, help="the output folder of an ablate command")
    options = parse(parser, argv)
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
