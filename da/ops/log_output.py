"""Where the library's log goes when a command or a worker runs it: nobody else shows it."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


class _Standard(logging.Handler):
    """News to standard output and warnings to standard error, whatever these are at the moment."""

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        print(self.format(record), file=stream, flush=True)


def show_log(*packages: str) -> None:
    """Shows what this library and other packages log, from INFO on, as plain lines.

    Args:
        packages: names of the others, such as that of the data sets; none is shown twice.
    """
    for package in ("da", *packages):
        log = logging.getLogger(package)
        if not any(isinstance(handler, _Standard) for handler in log.handlers):
            log.addHandler(_Standard())
            log.setLevel(logging.INFO)


@contextmanager
def without_warnings() -> Iterator[None]:
    """A block in which other libraries say nothing below an error; what they raise tells all."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
