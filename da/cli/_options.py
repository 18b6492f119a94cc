"""What the commands that run grids share: their options. Nothing heavy before they are parsed."""

from __future__ import annotations

import argparse
import re
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from da.errors import UserError, unknown
from da.installation import as_called, program

if TYPE_CHECKING:
    from da.grids.grid import Grid
    from da.grids.plan import Plan
    from da.grids.session import Session
    from da.reports.runs import Run


class _Help(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keeps the lines of a description, and names a default where there is one to speak of."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False):
            return action.help
        return super()._get_help_string(action)


def plain_parser(command: str, description: str | None) -> Any:
    """A parser for a sub-command; its file's docstring is the description."""
    from jsonargparse import ArgumentParser

    formatter: Any = _Help
    return ArgumentParser(
        prog=f"{program()} {command}",
        description=as_called(description or "").strip(),
        formatter_class=formatter,
        exit_on_error=False,
    )


KEYS = """
  python run.py {command} --help keys                           the keys of a grid's file
"""


def grid_parser(command: str, description: str | None, published: bool = False) -> Any:
    """A parser with the options of commands that train grids.

    Args:
        command: its name.
        description: its help.
        published: the grid is named like a benchmark, and has no default.
    """
    parser = plain_parser(command, (description or "").rstrip() + KEYS.format(command=command))
    default = "configs/ablations/digits.yaml"
    if published:
        parser.add_argument(
            "config",
            type=str,
            help="office31, office_home, visda, domainnet, domainnet126, imageclef or digits; or a "
            "file so called",
        )
    else:
        parser.add_argument("config", nargs="?", default=default, help="the grid: a YAML file")
    parser.add_argument("--root", type=str, help="folder of the data")
    parser.add_argument("--weights", type=str, help="pretrained weights: a file, or imagenet")
    parser.add_argument("--device", type=str, help="cpu or cuda, in place of the grid's")
    parser.add_argument("--out", type=str, help="output folder, by default under runs/")
    parser.add_argument("--tasks", type=str, help='all, or "source->target,..." in quotes')
    names = ["--method", "--methods"] if published else ["--methods"]
    parser.add_argument(*names, dest="methods", type=str, help="some of them: SourceOnly,DANN,...")
    parser.add_argument("--norms", type=str, help="normalisers: bn,wa,wa+bn,...")
    parser.add_argument("--workers", type=int, help="cells at a time, by default one per core")
    parser.add_argument("--keep", action="store_true", help="keep checkpoints of finished cells")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the cells and their cost only"
    )
    return parser


def parse(parser: Any, argv: list[str]) -> Any:
    """Parses a command line; what is wrong with it is one line.

    Raises:
        UserError: for options that do not exist and values of the wrong type.
    """
    if argv[:2] in (["--help", "keys"], ["-h", "keys"]):
        print_keys()
        raise SystemExit(0)
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
        "stop_at": getattr(options, "stop_at", None),
        "lr": rates(getattr(options, "lr", None)),
        "device": options.device,
        "root": options.root,
        "weights": options.weights,
        "quick": True if getattr(options, "quick", False) else None,
    }


def print_keys() -> None:
    """Prints every key of a grid's file: what it takes, its default and what it means."""
    import textwrap

    from da.grids.grid import Grid
    from da.grids.setting_keys import documented_keys

    print("The keys of a grid, a YAML file such as configs/ablations/digits.yaml.\n")
    for key in documented_keys(Grid):
        default = f"default: {key.default}" if key.default else "must be given"
        print(f"{key.name}: {key.kind} ({default})")
        print(textwrap.indent(textwrap.fill(key.meaning, 92), "    "))


def rates(text: str | None) -> list[str | float] | None:
    """``tuned``, ``published``, a number, or several of these."""
    from da.grids.grid_file import names

    parts = names(text)
    if parts is None:
        return None
    values: list[str | float] = []
    for part in parts:
        if part in ("tuned", "published"):
            values.append(part)
            continue
        try:
            values.append(float(part))
        except ValueError:
            raise UserError(
                f"--lr: expected tuned, published or a number above 0, got '{part}'"
            ) from None
    return values


def load_grid(options: Any, check_names: bool = True) -> tuple[Path, Grid]:
    """The configuration and the grid that it and the options describe.

    Args:
        options: of the command line.
        check_names: whether to look for wrong names, too, where something else is wrong; those of
            a grid that is right are checked by the session.

    Raises:
        UserError: with all that is wrong with the file, one line each.
    """
    from da.grids.grid_file import WrongSettings, find_config, read_grid

    check_workers(options)
    config = find_config(options.config)
    say_where_from(options.config, config)
    try:
        return config, read_grid(config, overrides(options))
    except WrongSettings as error:
        if not (check_names and error.settings):
            raise
        from da.grids.validation import name_problems

        problems = [*error.problems, *name_problems(error.settings)]
        raise WrongSettings(error.where, problems) from None


def say_where_from(name: str, config: Path) -> None:
    """Says which file a configuration is where it is none of this folder's.

    Args:
        name: as it was given.
        config: the file.
    """
    if not Path(name).is_file():
        print(f"{name}: no such file here; it is the library's, {config}", flush=True)


def check_workers(options: Any) -> None:
    """Refuses a number of workers below 1."""
    if options.workers is not None and options.workers < 1:
        raise UserError(f"--workers: expected at least 1, got {options.workers}")


def session(
    options: Any, name: str, grid: Grid | None, train: str | None, check: str | None
) -> Session:
    """How the cells run, in ``--out`` or ``runs/<name>``; one at a time on a GPU unless told."""
    from da.cli._progress_display import ProgressDisplay
    from da.grids.session import CHECK, TRAIN, Session
    from da.grids.store import Store
    from da.reports.terminal import console

    out = Path(options.out) if options.out else Path("runs") / name
    screen = console()
    return Session(
        store=Store(out),
        say=lambda line: screen.print(line, markup=False, soft_wrap=True),
        watch=partial(ProgressDisplay, screen),
        workers=options.workers or (1 if grid and grid.device != "cpu" else None),
        threads=grid.threads if grid else 1,
        keep=options.keep,
        train=train or TRAIN,
        check=check or CHECK,
        loggers=grid.logger if grid else (),
    )


def show_report(session: Session, plan: Plan, full: bool = False) -> tuple[list[Run], str]:
    """Writes the report and prints it, averages or all of it; gives the runs, and the files."""
    from da.reports import report, terminal

    built = report.build(session.store.root, plan)
    report.write(built)
    terminal.show(terminal.console(), built, full)
    return built.runs, report.files(built.out)


def output_folder(name: str) -> Path:
    """Where the files go; a file in the way is refused before anything is measured.

    Raises:
        UserError: with what is in the way.
    """
    out = Path(name).expanduser()
    if not name:
        raise UserError("out: expected a folder, got ''")
    if blocked := _file_in_the_way(out):
        raise UserError(f"out: '{blocked}' is a file; name a folder")
    return out


def output_file(option: str, name: str) -> Path:
    """Where a file goes; what can't be written is refused before there is anything to write.

    Raises:
        UserError: with what is in the way.
    """
    file = Path(name).expanduser()
    if not name or file.is_dir():
        raise UserError(f"{option}: expected a file, got '{name}'{', a folder' if name else ''}")
    if blocked := _file_in_the_way(file.parent):
        raise UserError(f"{option}: '{blocked}' is a file, and was to be the folder of '{name}'")
    return file


def _file_in_the_way(folder: Path) -> Path | None:
    """The file that keeps a folder from being made, if one does."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return None if there.is_dir() else there


def command_line(name: str, argv: list[str]) -> str:
    """The command as a user would type it again.

    >>> command_line("bench norms", ["--out", "my runs"])
    "python run.py bench norms --out 'my runs'"
    """
    return " ".join([program(), name, *map(shlex.quote, argv)])
