"""Runs published settings, or takes a finished grid, and compares with the published numbers."""

from __future__ import annotations

from pathlib import Path

from da.errors import UserError
from da.grids import ablation
from da.grids import plan as plans
from da.grids.grid import Grid
from da.grids.plan import Plan
from da.grids.session import Session
from da.grids.store import Store
from da.installation import program
from da.ops.csv_text import csv_text
from da.ops.files import write_atomically
from da.reports import published_comparison as comparison
from da.reports import published_report, report
from da.reports.published_ranges import ranges
from da.reports.references import AVERAGE, Reference, methods_named, read, same_task
from da.reports.runs import Run, load_runs
from da.reports.texts import missing


def run(session: Session, grid: Grid, name: str, command: str) -> int:
    """Trains the cells that have no result, then compares.

    Args:
        session: where and how.
        grid: the published settings, or a part of them.
        name: of the benchmark.
        command: what the user typed, to go on after an interruption.

    Returns:
        As :func:`da.grids.ablation.run`; a number outside its band is a finding, not a
        failure.
    """
    references = read(name)

    def show(session: Session, plan: Plan) -> tuple[list[Run], str]:
        out = session.store.root
        built = report.build(out, plan)
        report.write(built)
        compared = _write_comparison(session, plan, built.runs, references)
        return built.runs, f"{compared}; {report.files(out)}"

    return ablation.run(session, grid, command, f"{program()} tune", show)


def compare(session: Session, name: str, methods: list[str] | None) -> int:
    """Compares a finished grid, whichever command made it; returns 0."""
    out = session.store.root
    plan, references = plans.read(out), read(name)
    chosen = methods_named(methods, plan.grid.methods)
    if not any(same_task(r.task, t) for r in references for t in plan.tasks):
        published = dict.fromkeys(r.task for r in references if r.task != AVERAGE)
        raise UserError(
            f"{out} has no task of {name}: expected some of {', '.join(published)}, got "
            f"{', '.join(plan.tasks)}"
        )
    runs = [r for r in load_runs(Store(out), plan) if not chosen or r.entry.cell.method in chosen]
    session.say(f"written: {_write_comparison(session, plan, runs, references)}")
    return 0


def _write_comparison(
    session: Session, plan: Plan, runs: list[Run], references: list[Reference]
) -> str:
    """Says the comparison and writes it; gives the names of the files."""
    out: Path = session.store.root
    lines = comparison.compare(plan, runs, references)
    by_class = comparison.classes(plan, runs, references)
    other = comparison.other_images(plan, runs)
    shown = ranges(plan, runs, references)
    text = published_report.markdown(plan, lines, by_class, other, shown)
    write_atomically(out / "reproduce.md", text)
    rows = published_report.csv_rows(lines, by_class)
    write_atomically(out / "reproduce.csv", csv_text(rows))
    range_rows = published_report.range_rows(shown)
    write_atomically(out / "reproduce_ranges.csv", csv_text(range_rows))
    for line in [
        *published_report.tables(lines, by_class),
        *published_report.range_tables(shown),
        *published_report.notes(plan.grid, lines, other),
        *(f"  {text}" for text in missing((r for r in runs if r.reason), f"{out}/")),
    ]:
        session.say(line)
    return f"{out}/reproduce.md, reproduce.csv, reproduce_ranges.csv"
