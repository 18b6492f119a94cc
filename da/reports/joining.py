"""Several output folders as one grid: of the same settings, or refused by the name of what differs.

Their tasks, methods, normalisers and seeds may differ; all else is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from da.engine.spec import RunSpec
from da.errors import UserError
from da.grids import plan as plans
from da.grids.grid import Grid
from da.grids.plan import Entry, Plan
from da.grids.store import Store
from da.reports.runs import Run, load_runs

JOINED = ("tasks", "methods", "norms", "seeds")
"""Keys of a grid of which the joined one has all values."""

OF_NO_RESULT = ("tuned", "tune", "published_lr", "lr", "stop_at", "logger", "overrides")
"""Keys that decide no outcome but through the settings of the cells, which are compared."""

PLACES = {"data_args": "root", "model": "weights"}
"""Options that name a folder or a file, and are no settings."""

OF_ALL_CELLS = ("data_version", "weights_content")
"""What a grid does not spell out, and its cells do."""

Place = tuple[str, str, str, str, str]
"""Row of rates, task, method, normaliser, swept settings."""


def join(folders: Sequence[Path], out: Path, command: str) -> tuple[Plan, list[Run]]:
    """The plan and the runs of several grids as of one.

    A place that no grid has is a run that is missing. One that several have is taken from the
    first in which it is done.

    Args:
        folders: output folders of ``ablate``.
        out: the folder of the report, from which the runs' folders are named.
        command: that makes the report.

    Raises:
        UserError: the grids have other settings or other images, with the first that differs.
    """
    whole = [(folder, plans.read(folder)) for folder in folders]
    (first, base), *others = whole
    for folder, other in others:
        _refuse_other_grids(first, base, folder, other)
    loaded = [(folder, plan, load_runs(Store(folder), plan, out)) for folder, plan in whole]
    held = _held(loaded)
    _refuse_other_images(loaded)
    grid = base.grid.model_copy(
        update={
            "methods": _all(plan.grid.methods for _, plan in whole),
            "norms": _all(plan.grid.norms for _, plan in whole),
            "seeds": tuple(sorted({seed for _, plan in whole for seed in plan.grid.seeds})),
            "tasks": tuple(dict.fromkeys(task for _, plan in whole for task in plan.tasks)),
            "stop_at": None,
        }
    )
    refused = list(dict.fromkeys(text for _, plan in whole for text in plan.refused))
    runs = _runs(grid, held, refused)
    images: dict[str, int] = {}
    for _, plan in whole:
        images |= plan.images
    return Plan(
        command=command,
        grid=grid,
        tasks=list(grid.tasks),
        entries=[run.entry for run in runs],
        refused=refused,
        images=images,
        scored_images=base.scored_images,
    ), runs


def _all(parts: Any) -> dict[str, Any]:
    joined: dict[str, Any] = {}
    for part in parts:
        joined |= part
    return joined


def _refuse_other_grids(first: Path, base: Plan, folder: Path, other: Plan) -> None:
    """Compares what is one value for the whole grid, and the options of what both name."""

    def refuse(name: str, here: Any, there: Any) -> UserError:
        return UserError(
            f"{folder} can't be joined with {first}: expected the same settings, got {name} "
            f"{_short(here)} in {first} and {_short(there)} in {folder}; give each a report of "
            "its own"
        )

    for name in Grid.model_fields:
        here, there = getattr(base.grid, name), getattr(other.grid, name)
        if name in PLACES:
            here, there = (
                {key: value for key, value in one.items() if key != PLACES[name]}
                for one in (here, there)
            )
        if name in ("methods", "norms"):
            for key in here.keys() & there.keys():
                if here[key] != there[key]:
                    raise refuse(f"{name}.{key}", here[key], there[key])
        elif name not in (*JOINED, *OF_NO_RESULT) and here != there:
            raise refuse(name, here, there)
    for name in OF_ALL_CELLS:
        here, there = ({getattr(cell, name) for cell in plan.cells} for plan in (base, other))
        if here != there:
            raise refuse(name, sorted(map(str, here)), sorted(map(str, there)))
    if base.grid.rows != other.grid.rows:
        raise refuse("lr", base.grid.rows, other.grid.rows)
    if base.scored_images != other.scored_images:
        raise refuse("images of label-free scores", base.scored_images, other.scored_images)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _held(loaded: Sequence[tuple[Path, Plan, list[Run]]]) -> dict[Place, dict[int, Run]]:
    """Every place's runs by seed.

    Raises:
        UserError: the runs of a place differ in more than their seeds.
    """
    held: dict[Place, dict[int, Run]] = {}
    whose: dict[Place, tuple[Path, RunSpec]] = {}
    for folder, _, runs in loaded:
        for run in runs:
            place, cell = place_of(run), run.entry.cell
            there, known = whose.setdefault(place, (folder, cell))
            if problem := _difference(known, cell):
                raise UserError(
                    f"{folder} can't be joined with {there}: expected the same settings but for "
                    f"the seed, got for {cell.task}, {cell.method}, {cell.norm} {problem} "
                    f"in {there} and in {folder}; give each a report of its own"
                )
            mine = held.setdefault(place, {})
            if cell.seed not in mine or (mine[cell.seed].result is None and run.result is not None):
                mine[cell.seed] = run
    return held


def place_of(run: Run) -> Place:
    """Where a run stands in its grid, but for the seed."""
    cell = run.entry.cell
    return run.entry.row, cell.task, cell.method, cell.norm, str(run.entry.point)


def _difference(one: RunSpec, other: RunSpec) -> str:
    """The first setting in which two cells differ, seeds aside: ``lr 0.1 and 0.3``."""
    here, there = one.identity(), other.identity()
    for name in sorted(here.keys() | there.keys()):
        if name != "seed" and here.get(name) != there.get(name):
            return f"{name} {_short(here.get(name))} and {_short(there.get(name))}"
    return ""


def _refuse_other_images(loaded: Sequence[tuple[Path, Plan, list[Run]]]) -> None:
    """One task is of the same images in all grids; where some are held out, with one seed."""
    seen: dict[tuple[str, int | None], tuple[Path, str]] = {}
    for folder, _, runs in loaded:
        for run in runs:
            if run.result is None or not run.result.data_manifest:
                continue
            cell, manifest = run.entry.cell, run.result.data_manifest
            seed = cell.seed if cell.data_args.get("validation") else None
            there, known = seen.setdefault((cell.task, seed), (folder, manifest))
            if known != manifest and there != folder:
                raise UserError(
                    f"{folder} can't be joined with {there}: expected the same images, and those "
                    f"of {cell.task} differ (checksums {known[:12]} and {manifest[:12]}); give "
                    "each a report of its own"
                )


def _runs(grid: Grid, held: dict[Place, dict[int, Run]], refused: Sequence[str]) -> list[Run]:
    """The runs of every place of the joined grid, in the order of a plan.

    Raises:
        UserError: a method was trained with some normalisers of the joined grid alone.
    """
    runs = []
    for row, seed, task in product(grid.rows, grid.seeds, grid.tasks):
        for method, point, norm in product(grid.methods, grid.points(), grid.norms):
            like = [p for p in held if (p[0], *p[2:]) == (row, method, norm, str(point))]
            if not like:
                if not any(text.startswith(f"{method} with {norm}, ") for text in refused):
                    raise UserError(
                        f"these grids can't be joined: none has {method} with {norm}; expected "
                        "grids that differ in tasks or seeds, or in methods alone, or in "
                        "normalisers alone"
                    )
                continue  # no rate works there
            place = (row, task, method, norm, str(point))
            mine = held.get(place, {})
            if seed in mine:
                runs.append(mine[seed])
                continue
            model = next(iter((mine or held[like[0]]).values()))
            source, _, target = task.partition("->")
            cell = model.entry.cell.model_copy(
                update={"seed": seed, "source": source.strip(), "target": target.strip()}
            )
            entry = Entry(row=row, point=point, cell=cell)
            runs.append(Run(entry, "pending", score=grid.score, folder=f"{Store.folder}/{cell.id}"))
    return runs
