"""Writes a report from nothing but the results on disk: every format, and the figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from da.grids.plan import Plan
from da.grids.store import Store
from da.ops.files import write_atomically
from da.reports.joining import join
from da.reports.model import Report
from da.reports.renderer import renderers
from da.reports.runs import load_runs
from da.reports.tables import tables


def build(folder: Path, plan: Plan, out: Path | None = None) -> Report:
    """The report of one output folder.

    Args:
        folder: of the results.
        plan: what was to be trained.
        out: the folder of the report, by default the same.
    """
    runs = load_runs(Store(folder), plan, out)
    return Report(plan, runs, tables(plan, runs), out or folder, (folder,))


def build_joined(folders: Sequence[Path], out: Path, command: str) -> Report:
    """The report of several output folders as of one grid, in a folder of its own.

    Raises:
        UserError: they have other settings or images.
    """
    plan, runs = join(folders, out, command)
    return Report(plan, runs, tables(plan, runs), out, tuple(folders))


def write(report: Report) -> None:
    """Writes all files of a report into its folder, each absent, old or whole at any moment."""
    from da.reports.figures import save
    from da.reports.normaliser_figures import save_pictures

    texts = {renderer.file: renderer.render(report) for renderer in renderers()}
    save(report.out, report.plan, report.tables)
    save_pictures(report)
    for name, text in texts.items():
        write_atomically(report.out / name, text)


def files(out: Path) -> str:
    """What a report consists of."""
    names = [renderer.file for renderer in renderers()]
    names.sort(key=lambda name: name != "report.html")  # what to open first
    pictures = ("figure", "forest", "cost")
    names += [path.name for name in pictures for path in sorted(out.glob(f"{name}.*"))]
    return f"{out}/{', '.join(names)}"
