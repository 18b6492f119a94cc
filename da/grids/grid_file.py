"""Reads a grid from YAML and the command line; all that is wrong is said at once."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from da.errors import UserError
from da.grids.fields import plain_problems
from da.grids.grid import Grid, root
from da.grids.setting_keys import explain
from da.installation import INSTALLED, packaged_config
from da.ops.yaml12 import read_yaml

log = logging.getLogger(__name__)


def find_config(name: str) -> Path:
    """A grid by its path from here, or its name among those that come with the library.

    Args:
        name: such as ``"digits_small"`` for ``configs/ablations/digits_small.yaml``.

    Raises:
        UserError: there is neither; lists those at hand.

    >>> find_config("digits").parent.name
    'ablations'
    """
    path = Path(name)
    if path.is_file():
        return path
    for one in (f"ablations/{name}", name):
        if file := packaged_config(one):
            return file
    at_hand = sorted(p.relative_to(root()).as_posix() for p in root().glob("configs/[ap]*/*.yaml"))
    raise UserError(f"no such configuration: {name}; those at hand: {', '.join(at_hand)}")


class WrongSettings(UserError):
    """All that is wrong with a file of settings, one line each.

    Attributes:
        problems: the lines.
        settings: what was read, for further checks.
    """

    def __init__(self, where: str, problems: list[str], settings: dict[str, Any] | None = None):
        self.where, self.problems = where, list(dict.fromkeys(problems))
        self.settings = settings or {}
        super().__init__("\n".join(f"{where}: {problem}" for problem in self.problems))


WITHIN = {"root": "data_args", "weights": "model"}
"""Options of the command line that stand in a group of the file, and the group."""


def read_grid(path: Path, overrides: dict[str, Any]) -> Grid:
    """A grid from its file, with what the command line replaces.

    Args:
        path: the YAML file. ``tuned`` is taken from the folder in which it lies; of a grid that was
            installed with the library, first from this folder, where ``tune`` writes it.
        overrides: ``tasks``, ``methods``, ``norms``, ``seeds`` or ``lr`` to a list, ``device``,
            ``quick``, ``root`` (the data's) and ``weights`` (the backbone's); methods and
            normalisers that the file names keep the options that it gives them, and a number under
            ``lr`` is that of all.

    Raises:
        WrongSettings: with everything that is wrong.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected settings such as 'methods:', got {content!r:.60}")
    if problems := plain_problems(content):
        raise WrongSettings(str(path), problems)
    settings = dict(content)
    for key, value in overrides.items():
        if value is None:
            continue
        in_file = settings.get(key)
        if key in WITHIN:
            group = WITHIN[key]
            arguments = settings.get(group) or {}
            if f"{group}.{key}" in (settings.get("sweep") or {}):
                raise UserError(f"--{key}: the grid sweeps {group}.{key}; leave --{key} out")
            if isinstance(arguments, dict):
                settings[group] = {**arguments, key: value}
            continue
        if key == "norms":
            settings = _without_absent(settings, value)
        if key in ("methods", "norms") and isinstance(in_file, dict):
            value = {name: in_file.get(name) or {} for name in _once(key, value)}
        if key == "lr" and any(not isinstance(rate, str) for rate in value):
            settings["overrides"] = _without_rates(settings.get("overrides"))
        settings[key] = value
    grid = parse(Grid, settings, str(path))
    if grid.tuned is not None:
        table = (path.parent / grid.tuned).resolve()
        if (own := own_table(table)) != table and own.is_file():
            log.info("tuned rates: those of this folder, %s", own)
            table = own
        grid = grid.model_copy(update={"tuned": str(table)})
    return grid


def own_table(table: Path) -> Path:
    """Where ``tune`` writes a table of rates: in this folder, in place of an installed one."""
    library = root().resolve()
    if INSTALLED and table.is_relative_to(library):
        return Path(table.relative_to(library)).resolve()
    return table


def _without_absent(settings: dict[str, Any], norms: list[str]) -> dict[str, Any]:
    """A grid whose challenger and baselines are none of the normalisers that are left out."""

    in_file = settings.get("norms")
    absent = {*map(str, in_file)} - {*norms} if isinstance(in_file, (list, dict)) else set()

    def left_out(name: Any) -> bool:
        return str(name).partition("@")[0] in absent

    settings = dict(settings)
    if left_out(settings.get("challenger")):
        del settings["challenger"]
    if isinstance(settings.get("baselines"), list):
        rest = [name for name in settings["baselines"] if not left_out(name)]
        settings["baselines"] = rest or None
    return settings


def _without_rates(overrides: Any) -> Any:
    """Overrides without rates, since the command line gives one for all."""
    if not isinstance(overrides, list):
        return overrides or []
    rest = [
        {key: value for key, value in one.items() if key != "lr"} if isinstance(one, dict) else one
        for one in overrides
    ]
    return [one for one in rest if not isinstance(one, dict) or {*one} - {"methods", "tasks"}]


def _once(key: str, names: list[str]) -> list[str]:
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{key}: given twice: {', '.join(repeated)}")
    return names


def parse(model: type[Grid], settings: dict[str, Any], where: str) -> Grid:
    """Validates settings.

    Raises:
        WrongSettings: with everything that is wrong.
    """
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        by_key = explain(error, model)
    problems = [line for lines in by_key.values() for line in lines]
    if "" not in by_key:  # single settings are wrong: what of the rest contradicts itself?
        problems += _contradictions(settings, set(by_key))
    raise WrongSettings(where, problems, settings)


def _contradictions(settings: dict[str, Any], wrong: set[str]) -> list[str]:
    """Contradictions between those settings that are right by themselves."""
    stand_in = {"data": "x", "methods": ["x"], "norms": ["x"], "epochs": 1, "steps_per_epoch": 1}
    right = {key: value for key, value in settings.items() if key not in wrong}
    if "norms" not in right:  # then nothing can be said of which of them are compared
        right = {k: v for k, v in right.items() if k not in ("challenger", "baselines")}
    if "samples" in right:
        del stand_in["steps_per_epoch"]
    filled = {**{k: v for k, v in stand_in.items() if k not in right}, **right}
    try:
        Grid.model_validate({**filled, "published_lr": filled.get("published_lr", 1.0)})
    except ValidationError as error:
        lines = explain(error, Grid).get("", [])
    else:
        return []
    about = wrong | {key for key in stand_in if key not in settings}
    return [line for line in lines if not any(key in re.split(r"\W+", line) for key in about)]


def names(text: str | None) -> list[str] | None:
    """A comma-separated list.

    >>> names("bn, wa")
    ['bn', 'wa']
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise UserError(f"expected names separated by commas, got '{text}'")
    return parts


MOST_NUMBERS = 10_000
"""How many seeds a command line may name: more is a slip of the hand."""


def numbers(text: str | None) -> list[int] | None:
    """A comma-separated list of whole numbers and ranges of them.

    >>> numbers("0,1"), numbers("0-3,7")
    ([0, 1], [0, 1, 2, 3, 7])
    """
    parts = names(text)
    if parts is None:
        return None
    values: list[int] = []
    for part in parts:
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not (last.isdecimal() and int(first) <= int(last))):
            raise UserError(
                "expected whole numbers from 0, separated by commas, or ranges of them such as "
                f"0-9, got '{text}'"
            )
        start, end = int(first), int(last if dash else first)
        if len(values) + end - start >= MOST_NUMBERS:
            raise UserError(f"expected at most {MOST_NUMBERS:,} whole numbers, got '{text}'")
        values += range(start, end + 1)
    return values
