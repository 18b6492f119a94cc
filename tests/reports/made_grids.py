"""Small grids with made-up results in a folder, for tests of what a report says of them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fake_cells import made

from da.grids import plan as plans
from da.grids.grid import Grid
from da.grids.plan import Plan
from da.grids.store import Store
from da.reports import report
from da.reports.formats.markdown import Markdown, section_lines
from da.reports.model import Report, Section
from da.reports.runs import Run, load_runs
from da.reports.tables import Table

TASKS = ("a->b", "b->a", "a->c", "c->a")


def made_grid(**settings: Any) -> Grid:
    """Two tasks, bn and wa, three seeds, with some settings replaced."""
    base: dict[str, Any] = {
        "data": "x.Y",
        "tasks": TASKS[:2],
        "methods": {"M": {}},
        "norms": {"bn": {}, "wa": {}},
        "epochs": 3,
        "steps_per_epoch": 10,
        "lr": ("published",),
        "published_lr": 0.01,
    }
    return Grid(**{**base, **settings})


def fill(
    folder: Path,
    grid: Grid,
    accuracy: Callable[[Any], float | None],
    diverged: Callable[[Any], bool] = lambda cell: False,
    change: Callable[[Any, Any], None] = lambda cell, result: None,
) -> tuple[Plan, list[Run]]:
    """Results of all cells; of none where the accuracy is None.

    Args:
        folder: the output folder.
        grid: what was trained.
        accuracy: of a cell on the target's test images.
        diverged: whether a cell did.
        change: may change a cell's result before it is written.
    """
    store, plan = Store(folder), plans.plan(grid, list(grid.tasks), "ablate x", "tune")
    for cell in plan.cells:
        value = accuracy(cell)
        if value is None:
            continue
        store.begin(cell)
        if diverged(cell):
            store.fail(cell, "diverged", "loss is nan")
            continue
        forms = ("", "source-stats", "target-stats") if "bn" in cell.norm else ("",)
        result = made(cell, value, forms)
        change(cell, result)
        store.finish(cell, result, keep=False)
    return plan, load_runs(store, plan)


def noisy(cell: Any) -> float:
    """WA is ahead by ten points and more; differences vary over seeds and tasks."""
    number = TASKS.index(cell.task)
    ahead = 0.1 + 0.01 * ((cell.seed + number) % 3) if cell.norm == "wa" else 0.0
    return round(0.5 + 0.02 * cell.seed + 0.05 * number + ahead, 6)


def markdown(plan: Plan, runs: list[Run], shown: list[Table]) -> str:
    """The text of report.md."""
    return Markdown().render(Report(plan, runs, shown))


def written(folder: Path, plan: Plan) -> Report:
    """The report of a folder, which is written there."""
    built = report.build(folder, plan)
    report.write(built)
    return built


def lines_of(sections: Sequence[Section]) -> list[str]:
    """Sections as they stand in report.md."""
    return [line for section in sections for line in section_lines(section)]
