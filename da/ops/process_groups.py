"""A process and all that it started, as one: a group on POSIX, a tree on Windows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress


def lead_group() -> None:
    """Makes this process the head of a group, so that :func:`end_group` ends its children, too.

    Ctrl-C in a terminal no longer reaches it. On Windows there is nothing to do for the former, and
    the latter is for the process to ignore.
    """
    if sys.platform != "win32":
        os.setsid()


def end_group(leader: int) -> None:
    """Ends a process that called :func:`lead_group`, and its children, at once.

    Args:
        leader: its number; whether it is still there does not matter.
    """
    if sys.platform == "win32":
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(leader)], capture_output=True)
    else:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)
