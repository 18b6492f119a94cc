"""Reads a grid from YAML and the command line; what is wrong is said in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from da.errors import UserError, unknown
from da.grids.grid import Grid, Tune, root
from da.grids.overrides import Override
from da.ops.yaml12 import read_yaml


def find(name: str) -> Path:
    """A configuration by its path, from here or from the repository."""
    for path in (Path(name), root() / name):
        if path.is_file():
            return path
    known = sorted(p.relative_to(root()).as_posix() for p in root().glob("configs/[ap]*/*.yaml"))
    raise UserError(f"no such configuration: {name}; those at hand: {', '.join(known)}")


def read_grid(path: Path, overrides: dict[str, Any]) -> Grid:
    """A grid from its file, with what the command line replaces.

    Args:
        path: the YAML file. ``tuned`` is taken from the folder in which it lies.
        overrides: ``tasks``, ``methods``, ``norms``, ``seeds`` or ``lr`` to a list, ``device``,
            ``quick``, and ``root``, the data's; methods and normalisers that the file names keep
            the options that it gives them.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected settings such as 'methods:', got {content!r}")
    settings = dict(content)
    for key, value in overrides.items():
        if value is None:
            continue
        if key == "root":
            settings["data_args"] = {**(settings.get("data_args") or {}), "root": value}
            continue
        given = settings.get(key)
        if key in ("methods", "norms") and isinstance(given, dict):
            value = {name: given.get(name) or {} for name in _once(key, value)}
        settings[key] = value
    grid = parse(Grid, settings, str(path))
    if grid.tuned is not None:
        grid = grid.model_copy(update={"tuned": str((path.parent / grid.tuned).resolve())})
    return grid


def _once(key: str, names: list[str]) -> list[str]:
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{key}: given twice: {', '.join(repeated)}")
    return names


def parse(model: type[Grid], settings: dict[str, Any], where: str) -> Grid:
    """Validates settings; the first thing that is wrong becomes one line."""
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        raise UserError(f"{where}: {_line(error)}") from None
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _line(error: ValidationError) -> str:
    # A misspelt key is also a missing one: the misspelling is the better news.
    first = min(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
    place = [str(part) for part in first["loc"]]
    key = ".".join(place)
    if first["type"] == "extra_forbidden":
        parts: dict[str, type[BaseModel]] = {"tune": Tune, "overrides": Override}
        owner = parts.get(place[0], Grid)
        return str(unknown("setting", key, _fields(owner, place[:-1])))
    value = first["input"]
    message = first["msg"].removeprefix("Value error, ")
    if isinstance(value, bool) and "string" in message:
        message += "; a name such as true must be put in quotes"
    if first["type"] == "missing":
        return f"{key}: missing"
    if first["type"] == "value_error" or isinstance(value, dict):
        return f"{key}: {message}" if key else message
    return f"{key}: {message}, got {value!r}"


def _fields(model: type[BaseModel], prefix: list[str]) -> list[str]:
    return [".".join([*prefix, name]) for name in model.model_fields]


def names(text: str | None) -> list[str] | None:
    """A comma-separated list.

    >>> names("bn, wa")
    ['bn', 'wa']
    """
    if text is None:
        return None
    found = [part.strip() for part in text.split(",")]
    if not all(found):
        raise UserError(f"expected names separated by commas, got '{text}'")
    return found


def numbers(text: str | None) -> list[int] | None:
    """A comma-separated list of whole numbers.

    >>> numbers("0,1")
    [0, 1]
    """
    found = names(text)
    if found is None:
        return None
    for part in found:
        if not part.isdecimal():
            raise UserError(f"expected whole numbers from 0, separated by commas, got '{text}'")
    return [int(part) for part in found]
