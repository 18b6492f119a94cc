"""What the commands that run grids share: their options. Nothing heavy before they are parsed."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from da.errors import UserError, unknown

if TYPE_CHECKING:
    from da.grids.grid import Grid, Row
    from da.grids.session import Session


class _Help(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keeps the lines of a description, and names a default where there is one to speak of."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False):
            return action.help
        return super()._get_help_string(action)


def plain_parser(command: str, description: str | None) -> Any:
    """A parser for a sub-command of run.py; its file's docstring is the description."""
    from jsonargparse import ArgumentParser

    formatter: Any = _Help
    return ArgumentParser(
        prog=f"python run.py {command}",
        description=(description or "").strip(),
        formatter_class=formatter,
        exit_on_error=False,
    )


def grid_parser(command: str, description: str | None, published: bool = False) -> Any:
    """A parser with the options of commands that train grids.

    Args:
        command: its name.
        description: its help.
        published: the grid is named like a benchmark, and has no default.
    """
    found = plain_parser(command, description)
    default = "configs/ablations/digits.yaml"
    if published:
        found.add_argument(
            "config", type=str, help="office31, visda or digits; or a file so called"
        )
    else:
        found.add_argument("config", nargs="?", default=default, help="the grid: a YAML file")
    found.add_argument("--root", type=str, help="folder of the data")
    found.add_argument("--device", type=str, help="cpu or cuda, in place of the grid's")
    found.add_argument("--out", type=str, help="output folder, by default under runs/")
    found.add_argument("--tasks", type=str, help='all, or "source->target,..." in quotes')
    both = ["--method", "--methods"] if published else ["--methods"]
    found.add_argument(*both, dest="methods", type=str, help="some of them: SourceOnly,DANN,...")
    found.add_argument("--norms", type=str, help="normalisers: bn,wa,wa+bn,...")
    found.add_argument("--workers", type=int, help="cells at a time, by default one per core")
    found.add_argument("--keep", action="store_true", help="keep checkpoints of finished cells")
    found.add_argument("--dry-run", action="store_true", help="print the cells and their cost only")
    return found


def parse(parser: Any, argv: list[str]) -> Any:
    """Parses a command line; what is wrong with it is one line.

    Raises:
        UserError: for options that do not exist and values of the wrong type.
    """
    options = [s for action in parser._actions for s in action.option_strings if s[:2] == "--"]
    for argument in argv:
        name = argument.partition("=")[0]
        if name.startswith("--") and name != "--" and name not in options:
            raise unknown("option", name, options)
    try:
        return parser.parse_args(argv)
    except argparse.ArgumentError as error:
        text = " ".join(str(error).split())
        key = re.match(r"Parser key \"(\w+)\": Expected a <class 'int'>. Got value: (.*)", text)
        if key is not None:
            text = f"--{key[1]}: expected a whole number, got '{key[2]}'"
        raise UserError(text) from None


def overrides(options: Any) -> dict[str, Any]:
    """What the command line replaces in the grid."""
    from da.grids.grid_file import names, numbers

    tasks = options.tasks
    return {
        "tasks": tasks if tasks == "all" else names(tasks),
        "methods": names(options.methods),
        "norms": names(options.norms),
        "seeds": numbers(getattr(options, "seeds", None)),
        "lr": rows(getattr(options, "lr", None)),
        "device": options.device,
        "root": options.root,
        "quick": True if getattr(options, "quick", False) else None,
    }


def rows(text: str | None) -> list[Row] | None:
    """``tuned``, ``published`` or both."""
    from da.grids.grid import ROWS
    from da.grids.grid_file import names

    found = names(text)
    for name in found or ():
        if name not in ROWS:
            raise UserError(f"--lr: expected {' or '.join(ROWS)}, or both, got '{name}'")
    return None if found is None else [row for row in ROWS if row in found]


def load(options: Any) -> tuple[Path, Grid]:
    """The configuration and the grid that it and the options describe."""
    from da.grids.grid_file import find, read_grid

    if options.workers is not None and options.workers < 1:
        raise UserError(f"--workers: expected at least 1, got {options.workers}")
    config = find(options.config)
    return config, read_grid(config, overrides(options))


def session(
    options: Any, name: str, grid: Grid | None, train: str | None, check: str | None
) -> Session:
    """How the cells run, in ``--out`` or ``runs/<name>``; one at a time on a GPU unless told."""
    from da.grids.session import CHECK, TRAIN, Session
    from da.grids.store import Store
    from da.reports.terminal import console

    out = Path(options.out) if options.out else Path("runs") / name
    return Session(
        store=Store(out),
        console=console(),
        workers=options.workers or (1 if grid and grid.device != "cpu" else None),
        threads=grid.threads if grid else 1,
        keep=options.keep,
        train=train or TRAIN,
        check=check or CHECK,
    )


def command_line(name: str, argv: list[str]) -> str:
    """The command as a user would type it again."""
    return shlex.join(["python", "run.py", name, *argv])
