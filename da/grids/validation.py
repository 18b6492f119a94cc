"""Checks a grid's names against the classes on disk. Runs in a worker: it imports torch."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypedDict

from da.data_sets import find_data_set
from da.discovery import subclasses
from da.errors import UserError, unknown
from da.grids.grid import Grid, all_tasks, check_names, split_task

if TYPE_CHECKING:
    from da.types import DataSet

GIVEN = {"num_classes", "task", "seed", "norm", "norm_options", "lr", "self", "args", "kwargs"}
"""Arguments of a method that the grid sets by itself."""

GIVEN_DATA = {"source", "target", "batch_size", "steps_per_epoch", "seed", "self", "args", "kwargs"}


class Known(TypedDict):
    """What the driver must know of the data class."""

    tasks: list[str]
    development: str | None
    version: int
    images: dict[str, int]


def check(settings: dict[str, Any]) -> Known:
    """Refuses a grid that names what doesn't exist; resolves ``tasks: all``.

    Args:
        settings: of a :class:`~da.grids.grid.Grid`.
    """
    grid = Grid.model_validate(settings)
    data = _data_set(grid.data)
    _options("data_args", grid.data_args, data, GIVEN_DATA)
    _check_methods(grid)
    _check_overrides(grid, data)
    _check_norms(grid)
    _check_starts(grid)
    domains = data.domains
    if not domains and grid.tasks == "all":  # known only once its folder is read
        if not (root := grid.data_args.get("root")):
            raise UserError(
                f"tasks: the domains of {grid.data} are those of its folder; give data_args.root, "
                "or write the tasks out"
            )
        domains = data.available(root)
    if domains:
        check_names(grid, (*domains, *(data.development or ())))
    return Known(
        tasks=list(all_tasks(domains) if grid.tasks == "all" else grid.tasks),
        development="->".join(data.development) if data.development else None,
        version=data.version,
        images=_published(data),
    )


def _published(data: type[DataSet]) -> dict[str, int]:
    """How many images each domain is tested on as a target, where that is published."""
    return {
        key.removesuffix("/test"): count
        for key, count in data.counts.items()
        if not key.endswith("/train")
    }


def ready(settings: dict[str, Any], tasks: list[str]) -> None:
    """Refuses what no cell could begin with: a device that is not there, data that can't be found.

    Args:
        settings: of a :class:`~da.grids.grid.Grid`.
        tasks: those of the grid.
    """
    import torch

    grid = Grid.model_validate(settings)
    if grid.device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "device: cuda, but PyTorch finds no such device on this machine; give --device cpu, or "
            "device: cpu in the grid"
        )
    kind = _data_set(grid.data)
    checked: set[str] = set()
    for source, target in map(split_task, tasks):
        data = kind(source=source, target=target, **grid.data_args)
        for domain in {source, target} - checked:
            data.check_presence(domain)
            checked.add(domain)


def _data_set(name: str) -> type[DataSet]:
    try:
        return find_data_set(name)
    except UserError as error:
        raise UserError(f"data: {error}") from None


def _check_methods(grid: Grid) -> None:
    from da.methods.base import Method

    methods = subclasses("da.methods", Method)
    swept = {key[6:]: None for key in grid.sweep if key.startswith("model.")}
    _options("model", {**grid.model, **swept}, Method, GIVEN)
    for name, options in grid.methods.items():
        if name not in methods:
            raise unknown("method", name, methods)
        _options(f"methods.{name}", options, methods[name], GIVEN)


def _check_overrides(grid: Grid, data: type) -> None:
    """An override may be for a method that the command line has left out, but for none unknown."""
    from da.methods.base import Method

    methods = subclasses("da.methods", Method)
    for number, override in enumerate(grid.overrides):
        for name in override.methods or ():
            if name not in methods:
                raise unknown("method", name, methods)
        _options(f"overrides.{number}.data_args", override.data_args, data, GIVEN_DATA)
        _options(f"overrides.{number}.model", override.model, Method, GIVEN)


def _check_norms(grid: Grid) -> None:
    from da.norms import normaliser

    for name, options in grid.norms.items():
        normaliser(name, **options)


def _check_starts(grid: Grid) -> None:
    """Refuses pretrained weights under a normaliser that has no start from them."""
    from da.methods.base import Method
    from da.networks.pretrained import start

    parameters = inspect.signature(Method).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    for point in grid.points():
        swept = {key[6:]: value for key, value in point.items() if key.startswith("model.")}
        for norm, options in grid.norms.items():
            named = {"norm": norm, "norm_options": options}
            start({**defaults, **grid.model, **swept, **named})


def _options(where: str, options: dict[str, Any], owner: type, given: set[str]) -> None:
    allowed = arguments(owner) - given
    for option in options:
        if option not in allowed:
            raise unknown(f"option of {where}", option, allowed)


def arguments(owner: type) -> set[str]:
    """The names of a constructor's arguments, and of those that it hands on as ``**kwargs``."""
    return set(_parameters(owner))


def defaults(owner: type) -> dict[str, Any]:
    """The defaults of those arguments, as settings keep them: lists for tuples."""
    found = {name: p.default for name, p in _parameters(owner).items() if p.default is not p.empty}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in found.items()}


def _parameters(owner: type) -> dict[str, inspect.Parameter]:
    found: dict[str, inspect.Parameter] = {}
    for base in owner.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters
        found = {**parameters, **found}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            break
    return found
