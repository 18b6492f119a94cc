"""``run.py report``: rebuilds tables and pictures from the results on disk."""

from __future__ import annotations

from pathlib import Path


def main(argv: list[str]) -> int:
    """Runs the command on the command line after ``report``; returns 0."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(
        prog="run.py report", description="Rebuild the tables and pictures of a grid's results."
    )
    parser.add_argument("out", type=str, help="the output folder of an ablate command")
    options = parser.parse_args(argv)
    from da.experiments import plan, report, terminal

    out = Path(options.out)
    found = plan.read(out)
    runs, tables = report.write(out, found)
    console = terminal.console()
    terminal.show(console, found, runs, tables)
    console.print(f"written: {out}/report.md, table.csv, runs.csv, figure.png, figure.svg")
    return 0
