"""Tuning of the learning rate with one budget for every normaliser, and of options of methods.

They are tried on a development task and on seeds that the table of results does not use, and
judged at the last epoch by the source's validation accuracy, or by a label-free score on the
target. Target labels are never looked at.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from da.engine.result import Result, validation_scores
from da.engine.spec import RunSpec
from da.errors import UserError
from da.grids.grid import Grid
from da.grids.rate_entries import CRITERION, LABEL_FREE, Key, Trial
from da.grids.rate_entries import Entry as Entry
from da.grids.rate_entries import Table as Table
from da.grids.rate_entries import key as key
from da.ops.files import write_atomically
from da.ops.yaml12 import read_yaml

Outcomes = list[tuple[RunSpec, "Result | str"]]
"""Cells with their results, or with the state of those that have none."""


def trials(grid: Grid, task: str, version: int = 1) -> list[RunSpec]:
    """The cells of a tuning: method x normaliser x swept settings x rate x options x seed.

    A rate is tuned once for each :data:`Key`. Of swept settings that are no part of it (the length
    of a training), it is tuned at the first values.

    Args:
        grid: what to tune.
        task: to tune on.
        version: of the data class.
    """
    cells: list[RunSpec] = []
    first: dict[Key, dict[str, Any]] = {}
    for method, norm, point in itertools.product(grid.methods, grid.norms, grid.points()):
        lr = grid.rate(task, method, point)
        tried = [
            grid.cell(task, method, norm, {**point, **own}, seed, _rounded(lr, factor), version)
            for factor, own, seed in itertools.product(
                grid.tune.factors, _own_points(grid, method), grid.tune.seeds
            )
        ]
        if first.setdefault(key(tried[0]), point) == point:
            cells += tried
    return [_measuring(cell, grid.tune.criterion_of(cell.method)) for cell in cells]


def _measuring(cell: RunSpec, score: str | None) -> RunSpec:
    """The cell with a score more, unless it has it."""
    if score is None or score in cell.scores:
        return cell
    return cell.model_copy(update={"scores": (*cell.scores, score)})


def _own_points(grid: Grid, method: str) -> list[dict[str, Any]]:
    """The combinations of a method's tuned options, as points of a sweep."""
    tried = grid.tune.combinations(method)
    return [{f"method.{name}": value for name, value in own.items()} for own in tried]


def _rounded(lr: float, factor: float) -> float:
    return float(f"{lr * factor:.6g}")


def choose(outcomes: Outcomes, criterion: str | None = None, tuned: Collection[str] = ()) -> Entry:
    """Picks the rate for one key from its trials; see :data:`CRITERION`, :data:`LABEL_FREE`.

    Args:
        outcomes: of one key.
        criterion: the name of a label-free score; the source's validation accuracy without.
        tuned: the names of the method's options that are tuned with the rate.
    """
    alike: list[tuple[float, dict[str, Any], Outcomes]] = []
    for cell, result in sorted(outcomes, key=lambda outcome: outcome[0].lr):
        options = {name: cell.method_args[name] for name in tuned}
        if not alike or alike[-1][:2] != (cell.lr, options):
            alike.append((cell.lr, options, []))
        alike[-1][2].append((cell, result))
    tried = [_trial(lr, options, group, criterion) for lr, options, group in alike]
    best = max(tried, key=_merit)
    rates = {trial.lr for trial in tried}
    method, norm, backbone, batch_size = key(outcomes[0][0])
    works = None not in best.judged and not _failed(tried)
    return Entry(
        method=method,
        norm=norm,
        backbone=backbone,
        batch_size=batch_size,
        lr=best.lr if works else None,
        options=best.options if works else {},
        edge=works and len(rates) > 1 and best.lr in (min(rates), max(rates)),
        trials=tried,
    )


def _failed(tried: list[Trial]) -> list[float]:
    """The rates of which some trial has neither ended nor diverged: they may be the best ones."""
    failed = (trial.lr for trial in tried if not {*trial.states} <= {"done", "diverged"})
    return list(dict.fromkeys(failed))


def _trial(lr: float, options: dict[str, Any], outcomes: Outcomes, criterion: str | None) -> Trial:
    states = [r if isinstance(r, str) else "done" for _, r in outcomes]
    trial = Trial(lr=lr, options=options, states=states)
    for _, result in outcomes:
        last = None if isinstance(result, str) else result.evaluations[-1].forms[""]
        if criterion is not None:
            free = None if last is None else validation_scores(last).label_free.get(criterion)
            trial.score.append(_rounded_or_none(free))
            continue
        source = last and last["source/validation"]
        trial.accuracy.append(_rounded_or_none(source.accuracy if source else None))
        trial.cross_entropy.append(_rounded_or_none(source.cross_entropy if source else None))
    return trial


def _rounded_or_none(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _merit(trial: Trial) -> tuple[float, float]:
    known = [value for value in trial.judged if value is not None]
    if len(known) < len(trial.judged):
        return (-math.inf, 0.0)
    entropies = [value for value in trial.cross_entropy if value is not None]
    entropy = sum(entropies) / len(entropies) if entropies else 0.0
    # Rounded, so that sums of equal numbers in another order are equal, too.
    return (round(sum(known) / len(known), 9), -entropy)


def build(
    grid: Grid,
    task: str,
    command: str,
    outcomes: Outcomes,
    before: Table | None = None,
    images: str | None = None,
) -> Table:
    """The table of a finished tuning, with the entries of the one before that it did not try.

    Args:
        grid: that was tuned.
        task: that it was tuned on.
        command: that wrote it.
        outcomes: of the trials.
        before: the table that this one adds to.
        images: which ones the criterion is on, in words.
    """
    groups: dict[Key, Outcomes] = {}
    for cell, result in outcomes:
        groups.setdefault(key(cell), []).append((cell, result))
    entries = {key(entry): entry for entry in before.entries} if before else {}
    if before and not entries.keys() <= groups.keys() and not before.command.endswith(command):
        command = f"{before.command} && {command}"
    entries |= {
        name: choose(group, grid.tune.criterion_of(name[0]), grid.tune.options.get(name[0], ()))
        for name, group in groups.items()
    }
    filled = {"entries": list(entries.values()), "images": images}
    return _empty(grid, task, command).model_copy(update=filled)


def _empty(grid: Grid, task: str, command: str) -> Table:
    if grid.published_lr is None:
        raise UserError("published_lr: missing: the tried learning rates are multiples of it")
    score = grid.tune.criterion
    return Table(
        command=command,
        criterion=CRITERION if score is None else LABEL_FREE.format(score=score),
        criteria=grid.tune.criteria or None,
        data=grid.data,
        task=task,
        seeds=list(grid.tune.seeds),
        epochs=grid.epochs,
        published_lr=grid.published_lr,
        factors=list(grid.tune.factors),
        combinations=_budget(grid) if grid.tune.options else None,
    )


def _budget(grid: Grid) -> int:
    """How many combinations of options the methods that have any are tuned with."""
    return max((len(grid.tune.combinations(method)) for method in grid.tune.options), default=1)


def _has_the_budget(entry: Entry, grid: Grid) -> bool:
    """Whether an entry was tuned with as many combinations as it would be beside those of a grid.

    A method of the grid has those of the grid, and another one none or as many as the rest.
    """
    if entry.method in {*grid.methods, *grid.tune.options}:
        return entry.combinations == len(grid.tune.combinations(entry.method))
    return entry.combinations in (1, _budget(grid))


def previous(path: Path, grid: Grid, task: str, data_path: str = "") -> Table | None:
    """The table that a tuning adds to, if there is one that can be read.

    Args:
        path: of the table.
        grid: what is tuned, by short names.
        task: that it is tuned on.
        data_path: the dotted path of the data class, by which older tables name it.

    Raises:
        UserError: if it holds entries that would stay beside those of another budget.
    """
    try:
        before = read(path, "")
    except UserError:  # absent or broken: written anew
        return None
    if before.data == data_path:
        before = before.model_copy(update={"data": grid.data})
    tried = {key(cell) for cell in trials(grid, task)}
    budget = _empty(grid, task, "").budget()
    differ = [name for name, value in before.budget().items() if value != budget[name]]
    untried = [e for e in before.entries if key(e) not in tried]
    if not differ and (others := [e for e in untried if not _has_the_budget(e, grid)]):
        differ, untried = ["combinations of options"], others
    if differ and untried:
        raise UserError(
            f"{path} was tuned with other {', '.join(differ)}, and {len(untried)} of its entries "
            f"(such as {untried[0].method} with {untried[0].norm}) would stay; tune all of them, "
            "or name another file with --table"
        )
    return None if differ else before


def warning(entry: Entry) -> str:
    """What to know of a choice, nothing where it is an ordinary one."""
    if failed := _failed(entry.trials):
        which = ", ".join(f"{lr:g}" for lr in failed)
        return f"WARNING: no rate until the trials that failed end (of {which}); tune again"
    if entry.lr is None:
        rates = [trial.lr for trial in entry.trials]
        return f"WARNING: no rate from {min(rates):g} to {max(rates):g} works; set tune.factors"
    edges = ["rates"] if entry.edge else []
    edges += [f"values of {name}" for name in entry.options if _on_edge(entry, name)]
    if edges:
        return (
            f"WARNING: on the edge of the tried {' and '.join(edges)}, a better one may lie beyond"
        )
    return ""


def _on_edge(entry: Entry, option: str) -> bool:
    """Whether a number that was chosen for an option is the least or the most that was tried."""
    tried = [trial.options[option] for trial in entry.trials]
    if not all(isinstance(value, (int, float)) for value in tried):
        return False
    return len({*tried}) > 2 and entry.options[option] in (min(tried), max(tried))


def write(path: Path, table: Table) -> None:
    """Writes the table, atomically, with a comment at each choice that needs one."""
    body = yaml.safe_dump(
        table.model_dump(exclude={"entries"}, exclude_none=True),
        sort_keys=False,
        width=98,
        default_flow_style=None,
    )
    lines = [f"# Written by: {table.command}", body.rstrip(), "entries:"]
    for entry in table.entries:
        if remark := warning(entry):
            lines.append(f"# {remark}")
        text = yaml.safe_dump(
            [entry.model_dump(exclude_defaults=True)],
            sort_keys=False,
            width=98,
            default_flow_style=None,
        )
        lines.append(text.rstrip())
    write_atomically(path, "\n".join(lines) + "\n")


def read(path: Path, command: str) -> Table:
    """Reads a table of tuned rates.

    Args:
        path: of the table.
        command: what writes it, for the error message.
    """
    if not path.is_file():
        raise UserError(f"no tuned learning rates in {path}; make them: {command}")
    try:
        return Table.model_validate(read_yaml(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: {where}: {first['msg']}; make it anew: {command}") from None
