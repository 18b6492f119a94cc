"""Checks a grid's names against the classes on disk. Runs in a worker: it imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from da.discovery import short_name
from da.engine.components import (
    find_data,
    find_method,
    name_of_data,
    name_of_method,
    parameters_of,
)
from da.errors import UserError, unknown
from da.grids.grid import Grid, all_tasks, domain_problems, split_task, swept
from da.grids.norm_validation import check_norms
from da.grids.raw_settings import list_of, mapping_of, names_of, text_of
from da.grids.tuning_validation import Problems, tuning_problems
from da.installation import stored_name

if TYPE_CHECKING:
    from da.engine.result import ScoredImages
    from da.types import DataSet

SET_BY_THE_GRID = {"num_classes", "task", "seed", "norm", "norm_options", "lr"}
"""Arguments of a method that the grid sets by itself."""

SET_BY_THE_GRID_OF_DATA = {"source", "target", "batch_size", "steps_per_epoch", "seed"}


class Known(TypedDict):
    """What the driver must know of the classes that a grid names.

    ``names`` maps each name as written to the short one; ``paths`` of data, too.
    """

    tasks: list[str]
    development: str | None
    version: int
    images: dict[str, int]
    names: dict[str, str]
    data_path: str
    scored_images: ScoredImages


def check(settings: dict[str, Any]) -> Known:
    """Refuses a grid that names what doesn't exist; resolves ``tasks: all``.

    Args:
        settings: of a :class:`~da.grids.grid.Grid`.

    Raises:
        UserError: with everything that is wrong, a line each.
    """
    if problems := name_problems(settings):
        raise UserError("\n".join(problems))
    grid = Grid.model_validate(settings)
    data = find_data(grid.data)
    domains = _domains(grid.tasks, data, grid.data_args)
    tasks = all_tasks(domains or ()) if grid.tasks == "all" else grid.tasks
    names = _short_names(grid)
    if problems := tuning_problems(grid.renamed(names), tasks[0]):
        raise UserError("\n".join(problems))
    return Known(
        tasks=list(tasks),
        development="->".join(data.development) if data.development else None,
        version=data.version,
        images=_published(data),
        names=names,
        data_path=stored_name(f"{data.__module__}.{data.__qualname__}"),
        scored_images=_scored_images(data, grid.data_args),
    )


def name_problems(settings: dict[str, Any]) -> list[str]:
    """Names and options that don't exist, a line each.

    Args:
        settings: of a grid, or what a file holds in their place: what has not the form of settings
            is passed over.
    """
    problems = Problems()
    data = problems.of("data", lambda: find_data(text_of(settings.get("data"))))
    if settings.get("data") is None:
        problems.clear()  # that it is missing has been said
    if data is not None:
        options = mapping_of(settings, "data_args")
        problems += _unknown_options("data_args", options, data, SET_BY_THE_GRID_OF_DATA)
    known_domains = data is not None and not problems
    _check_methods(settings, problems)
    for number, override in enumerate(list_of(settings.get("overrides"))):
        if isinstance(override, dict):
            _check_override(f"overrides.{number}", override, data, problems)
    check_norms(settings, problems)
    _check_scores(settings, problems)
    if data is not None and known_domains:
        problems.of("tasks", lambda: _check_tasks(settings, data, problems))
    return list(dict.fromkeys(problems))


def _check_tasks(settings: dict[str, Any], data: type[DataSet], problems: Problems) -> None:
    """Domains that the data doesn't have, where it says which it has."""
    tasks = settings.get("tasks", "all")
    domains = _domains(tasks, data, mapping_of(settings, "data_args"))
    if domains is None and tasks == "all":
        raise UserError(
            f"the domains of {settings['data']} are those of its folder; give data_args.root, or "
            "write the tasks out"
        )
    if domains is not None:
        named = [task for task in list_of(tasks) if isinstance(task, str)]
        for override in list_of(settings.get("overrides")):
            named += list_of(override.get("tasks")) if isinstance(override, dict) else []
        problems += domain_problems(named, (*domains, *(data.development or ())))


def _domains(tasks: Any, data: type[DataSet], data_args: dict[str, Any]) -> tuple[str, ...] | None:
    """The domains of the data; None where only reading a folder tells."""
    if data.domains:
        return tuple(data.domains)
    if tasks == "all" and (root := data_args.get("root")):
        return tuple(data.available(root))
    return None


def _short_names(grid: Grid) -> dict[str, str]:
    """The short name of every name in the grid."""
    from da.norms import short_name as short_norm
    from da.selection.base import PACKAGE, LabelFreeScore, find_score

    methods = [*grid.methods, *grid.tune.options, *grid.tune.criteria]
    methods += [m for one in grid.overrides for m in one.methods or ()]
    names = {grid.data: name_of_data(find_data(grid.data))}
    names |= {name: name_of_method(find_method(name)) for name in methods}
    names |= {name: short_norm(name) for name in grid.norms}
    names |= {
        name: short_name(type(find_score(name)), PACKAGE, LabelFreeScore)
        for name in (*grid.scores, grid.score, grid.tune.criterion, *grid.tune.criteria.values())
        if name is not None
    }
    return names


def _published(data: type[DataSet]) -> dict[str, int]:
    """How many images each domain is tested on as a target, where that is published."""
    return {
        key.removesuffix("/test"): count
        for key, count in data.counts.items()
        if not key.endswith("/train")
    }


def _scored_images(data: type[DataSet], data_args: dict[str, Any]) -> ScoredImages:
    """Which images of the target a label-free score is of."""
    if data.holds_out("target", data_args):
        return "held out"
    return "trained on" if data.published_splits else "tested"


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
    if grid.logger:
        from da.engine.loggers import logger_names

        logger_names(grid.logger)  # their packages may be missing
    refuse_absent_data(settings, tasks)


def refuse_absent_data(settings: dict[str, Any], tasks: list[str]) -> None:
    """Refuses data that can't be found, or that are another set; reads as little as tells.

    Args:
        settings: of a :class:`~da.grids.grid.Grid`.
        tasks: those of the grid.
    """
    grid = Grid.model_validate(settings)
    kind = find_data(grid.data)
    checked: set[str] = set()
    for source, target in map(split_task, tasks):
        data = kind(source=source, target=target, **grid.data_args)
        for domain in (*data.sources, data.target):
            if domain not in checked:
                data.check_presence(domain)
                checked.add(domain)


def _check_methods(settings: dict[str, Any], problems: Problems) -> None:
    from da.methods.base import Method

    points = {str(key): None for key in mapping_of(settings, "sweep")}
    arguments = {**mapping_of(settings, "model"), **swept(points, "model.")}
    problems += _unknown_options("model", arguments, Method, SET_BY_THE_GRID)
    methods = settings.get("methods")
    short: dict[str, str] = {}
    for name, options in mapping_of(mapping_of(settings, "tune"), "options").items():
        # As of overrides: the command line may leave its method out.
        if method := problems.of("tune.options", lambda: find_method(name)):  # noqa: B023
            where = f"tune.options.{name}"
            problems += _unknown_options(where, options, method, SET_BY_THE_GRID)
    for name in names_of(methods):
        if method := problems.of("methods", lambda: find_method(name)):  # noqa: B023
            options = methods.get(name) if isinstance(methods, dict) else None
            key = f"methods.{name}"
            problems += _unknown_options(key, options or {}, method, SET_BY_THE_GRID)
            own = swept(points, "method.")
            problems += _unknown_options(f"{key} (swept)", own, method, SET_BY_THE_GRID)
            same = short.setdefault(name_of_method(method), name)
            if same != name:
                problems.append(f"methods: given twice: {same} and {name}")


def _check_override(
    where: str, override: dict[str, Any], data: type[DataSet] | None, problems: Problems
) -> None:
    """An override may be for a method that the command line has left out, but for none unknown."""
    from da.methods.base import Method

    for name in names_of(override.get("methods")):
        problems.of(f"{where}.methods", lambda: find_method(name))  # noqa: B023
    if data is not None:
        arguments = mapping_of(override, "data_args")
        key = f"{where}.data_args"
        problems += _unknown_options(key, arguments, data, SET_BY_THE_GRID_OF_DATA)
    arguments = mapping_of(override, "model")
    problems += _unknown_options(f"{where}.model", arguments, Method, SET_BY_THE_GRID)


def _check_scores(settings: dict[str, Any], problems: Problems) -> None:
    from da.selection.base import find_score, refuse_set_score

    tune = mapping_of(settings, "tune")
    named = {"scores": names_of(settings.get("scores")), "score": names_of(settings.get("score"))}
    for key, names in named.items():
        for name in names:
            problems.of(key, lambda: find_score(name))  # noqa: B023
    others = mapping_of(tune, "criteria")
    named = {"criterion": names_of(tune.get("criterion")), "criteria": [*others.values()]}
    for key, names in named.items():
        for name in names:
            problems.of(f"tune.{key}", lambda: refuse_set_score(name))  # noqa: B023
    if others and not problems:
        of_source = [n for n in (tune.get("criterion"), *others.values()) if not _sees_target(n)]
        if of_source:
            problems.append(
                "tune.criteria: expected scores on the target, and tune.criterion to be one, got "
                f"{of_source[0] or 'no tune.criterion'}"
            )


def _sees_target(score: str | None) -> bool:
    from da.selection.base import find_score

    return score is not None and find_score(score).sees_target


def _unknown_options(where: str, options: Any, owner: type, set_by_the_grid: set[str]) -> list[str]:
    allowed = set(parameters_of(owner)) - set_by_the_grid
    written = options if isinstance(options, dict) else {}
    return [
        str(unknown(f"option of {where}", option, allowed))
        for option in written
        if option not in allowed
    ]
