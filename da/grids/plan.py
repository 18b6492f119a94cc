"""From a grid to its list of cells, with learning rates; what a report reads back."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from da.engine.result import ScoredImages
from da.engine.spec import RunSpec
from da.errors import UserError
from da.grids import rate_table
from da.grids.grid import Grid, Row
from da.grids.store import PLAN, refuse_earlier_version
from da.ops.sealed_json import read_sealed, write_sealed


class Entry(BaseModel):
    """A cell's place in the grid. Two rows share the cell where their rates are equal."""

    model_config = ConfigDict(extra="forbid")

    row: Row
    point: dict[str, Any]
    cell: RunSpec


class Plan(BaseModel):
    """A grid that was checked and resolved: ``OUT/grid.json``."""

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[2] = 2
    command: str
    grid: Grid
    tasks: list[str]
    entries: list[Entry]
    refused: list[str] = []
    """Places of the grid that no tuned rate works for, in words; they have no entries."""
    images: dict[str, int] = {}
    """Published number of images that a domain is tested on as a target, where there is one."""
    scored_images: ScoredImages = "held out"
    """What label-free scores are of; earlier plans don't say."""

    @property
    def cells(self) -> list[RunSpec]:
        """The cells, each once."""
        return list({entry.cell.id: entry.cell for entry in self.entries}.values())


def plan(
    grid: Grid,
    tasks: list[str],
    command: str,
    tune_command: str,
    version: int = 1,
    images: dict[str, int] | None = None,
    data_path: str = "",
    scored_images: ScoredImages = "held out",
) -> Plan:
    """The cells of a grid, seed by seed, so that an interrupted grid has whole seeds first.

    Args:
        grid: what to train, by short names.
        tasks: the grid's, resolved.
        command: what the user typed.
        tune_command: what makes missing learning rates.
        version: of the data class.
        images: see :class:`Plan`.
        data_path: the dotted path of the data class, by which a table of rates may name it.
        scored_images: see :class:`Plan`.
    """
    table = None
    if "tuned" in grid.rows:
        table = _rates(grid, tune_command, data_path)
    entries: list[Entry] = []
    refused: dict[str, None] = {}
    for row, seed, task in itertools.product(grid.rows, grid.seeds, tasks):
        for method, point, norm in itertools.product(grid.methods, grid.points(), grid.norms):
            # A tuned rate takes the place of the published one.
            rate = grid.rate(task, method, point, row)
            cell = grid.cell(task, method, norm, point, seed, rate, version)
            if row == "tuned" and table is not None:
                entry = _tuned(cell, table, grid.tuned, tune_command)
                if entry.lr is None:
                    refused[_refusal(entry, grid.tuned)] = None
                    continue
                if common := sorted({*entry.options} & {*cell.method_args, *cell.model_args}):
                    raise UserError(
                        f"{method}: {', '.join(common)} is tuned in {grid.tuned}, and the grid "
                        "sets it, too; leave it to the table, or use --lr published, which takes "
                        "nothing from there"
                    )
                method_args = {**cell.method_args, **entry.options}
                cell = cell.model_copy(update={"lr": entry.lr, "method_args": method_args})
            entries.append(Entry(row=row, point=point, cell=cell))
    if not entries:
        raise UserError(
            f"nothing to train: {'; '.join(refused)}; set other tune.factors and tune again: "
            f"{tune_command} (or use --lr published)"
        )
    return Plan(
        command=command, grid=grid, tasks=tasks, entries=entries, refused=list(refused),
        images=images or {}, scored_images=scored_images,
    )  # fmt: skip


def _rates(grid: Grid, tune_command: str, data_path: str) -> rate_table.Table:
    """The table of tuned rates, if it is of the grid's data in either spelling."""
    if grid.tuned is None:
        raise UserError("lr: 'tuned' needs a table, and the grid names none under 'tuned:'")
    table = rate_table.read(Path(grid.tuned), tune_command)
    if table.data not in (grid.data, data_path):
        raise UserError(
            f"{grid.tuned} was tuned on {table.data}, the grid is of {grid.data}; name another "
            f"table under 'tuned:' and make it: {tune_command} (or use --lr published)"
        )
    return table


def _refusal(entry: rate_table.Entry, path: str | None) -> str:
    rates = [trial.lr for trial in entry.trials]
    return (
        f"{entry.method} with {entry.norm}, backbone {entry.backbone}, batch size "
        f"{entry.batch_size}: no learning rate from {min(rates):g} to {max(rates):g} works ({path})"
    )


def _tuned(
    cell: RunSpec, table: rate_table.Table, path: str | None, tune_command: str
) -> rate_table.Entry:
    entry = table.find(rate_table.key(cell))
    if entry is None:
        raise UserError(
            f"{path} holds no learning rate for {cell.method} with {cell.norm}, backbone "
            f"{cell.backbone}, batch size {cell.batch_size}; tune it: {tune_command} "
            "(or use --lr published)"
        )
    return entry


def write(out: Path, plan: Plan) -> None:
    """Records what the results in a folder belong to."""
    write_sealed(out / PLAN, plan.model_dump(mode="json"))


def read(out: Path) -> Plan:
    """The plan of an output folder.

    Raises:
        UserError: there is none, it is damaged, or an earlier version wrote it.
    """
    path = out / PLAN
    if not path.is_file():
        raise UserError(f"{out} holds no grid (no {PLAN}); name the --out of an ablate command")
    advice = "run the ablate command again"
    content = read_sealed(path, "grid", advice).content
    refuse_earlier_version(out)
    try:
        return Plan.model_validate(content)
    except ValidationError as error:
        reason = first_problem(error)
        raise UserError(f"grid: '{path}' is not valid ({reason}); {advice}") from None


def first_problem(error: ValidationError) -> str:
    """The first of what a file's content is refused for, with its place."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
