"""What `da` and `run.py` do: runs one command, which is imported only when it is called."""

from __future__ import annotations

import ast
import errno
import importlib
import io
import os
import sys
from pathlib import Path

from da.installation import DATA_SETS, INSTALLED, as_called

#: What is wrong with a path that a user gave for an output, and with the disk that it is on.
OUTPUT = {
    *(errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EEXIST),
    *(errno.ENOTEMPTY, errno.ENOSPC, errno.EROFS),
}

COMMANDS = Path(__file__).parent

SET_UP = (
    "install this library again, with what it depends on"
    if INSTALLED
    else "set up with python3 -m venv .venv && .venv/bin/pip install -e . and use .venv/bin/python"
)

USAGE = """usage: python run.py COMMAND [options]

Unsupervised domain adaptation of image classifiers: does WeightAlign beat batch norm under shift?

commands:
{commands}

examples:
  python run.py ablate                                  BN against WA on the embedded digits
  python run.py fit --data.source rendered --data.target optical --model.norm wa
  python run.py COMMAND --help                          all options of a command
"""


def commands() -> dict[str, str]:
    """Every command and its summary: the first line of its file, read without importing it."""
    found = {}
    for file in sorted(COMMANDS.glob("[a-z]*.py")):
        summary = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        found[file.stem] = summary.partition("\n")[0].rstrip(".")
    return found


def make_streams_usable() -> None:
    """Gives closed streams an end, and has text that an encoding lacks replaced.

    The numbers 0, 1 and 2 would go to the first files that are opened, and what is printed into
    them.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
        elif name != "stdin" and isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def main(argv: list[str]) -> int:
    """Runs one command; its exit code: 0 done, 2 bad input, 3 diverged, 130 or 143 stopped."""
    from da.errors import UserError, unknown
    from da.ops.log_output import show_log

    show_log(DATA_SETS)
    known = commands()
    try:
        if not argv or argv[0] in ("-h", "--help", "help"):
            lines = "\n".join(f"  {name:<10} {summary}" for name, summary in known.items())
            print(as_called(USAGE).format(commands=lines), flush=True)
            return 0 if argv else 2
        if argv[0] not in known:
            raise unknown("command", argv[0], known)
        return importlib.import_module(f"da.cli.{argv[0]}").main(argv[1:]) or 0
    except UserError as error:
        print(f"error: {as_called(str(error))}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] in ("da", DATA_SETS):
            raise
        print(
            f"error: the package '{error.name}' is not installed in this Python; {SET_UP}",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe, such as head, has gone
        sys.stderr.close()
        return 141
    except OSError as error:
        path = error.filename2 or error.filename  # of a rename, where to
        if path is None or error.errno not in OUTPUT:
            raise
        print(f"error: {path}: {error.strerror}", file=sys.stderr)
        return 2


def entry() -> None:
    """Runs the command that this process was started for, and ends the process."""
    make_streams_usable()
    sys.exit(main(sys.argv[1:]))
