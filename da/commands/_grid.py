"""What the commands that run grids share: their options and how a command line is written back."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from da.errors import UserError
from da.experiments.config import DEFAULT, find, names, numbers, read_grid
from da.experiments.grid import ROWS, Grid, Row


def parser(description: str) -> Any:
    """A parser with the options of ``ablate`` and ``tune``."""
    from jsonargparse import ArgumentParser

    found = ArgumentParser(prog="run.py", description=description)
    found.add_argument(
        "config", nargs="?", default=DEFAULT, help=f"the grid, a YAML file (default: {DEFAULT})"
    )
    found.add_argument("--out", type=str, help="output folder (default: runs/<name of config>)")
    found.add_argument("--tasks", type=str, help="all, or source->target,... (quote the arrow)")
    found.add_argument("--methods", type=str, help="SourceOnly,DANN,...")
    found.add_argument("--norms", type=str, help="bn,wa,wa+bn,...")
    found.add_argument("--workers", type=int, help="cells at a time (default: one per core)")
    found.add_argument("--keep", action="store_true", help="keep the checkpoints of finished cells")
    found.add_argument(
        "--dry-run",
        action="store_true",
        help="print the cells and what they cost, and run nothing",
    )
    return found


def overrides(options: Any) -> dict[str, Any]:
    """What the command line replaces in the grid."""
    tasks = options.tasks
    return {
        "tasks": tasks if tasks == "all" else names(tasks),
        "methods": names(options.methods),
        "norms": names(options.norms),
        "seeds": numbers(getattr(options, "seeds", None)),
        "lr": rows(getattr(options, "lr", None)),
    }


def rows(text: str | None) -> list[Row] | None:
    """``tuned``, ``published`` or both."""
    found = names(text)
    for name in found or ():
        if name not in ROWS:
            raise UserError(f"--lr: expected {' or '.join(ROWS)}, or both, got '{name}'")
    return found  # type: ignore[return-value]


def load(options: Any) -> tuple[Path, Grid]:
    """The configuration and the grid that it and the options describe."""
    if options.workers is not None and options.workers < 1:
        raise UserError(f"--workers: expected at least 1, got {options.workers}")
    config = find(options.config)
    return config, read_grid(config, overrides(options))


def command_line(name: str, argv: list[str]) -> str:
    """The command as a user would type it again."""
    return shlex.join(["python", "run.py", name, *argv])
