"""What the decoder of JPEG says of files that are damaged inside, and that it decodes all the same.

It fills what it can't make out with grey, or shifts what follows, and tells nobody but the standard
error of the process.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .decoding import Reading, read_image

_OF_DAMAGE = ("Corrupt JPEG data", "Premature end of JPEG", "Invalid", "Inconsistent progression")
"""How libjpeg's warnings begin; others are of no consequence."""


def read_with_complaints(path: Path, reading: Reading) -> tuple[NDArray[np.uint8], str]:
    """An image as :func:`read_image` gives it, and what the decoder complains about, in one line.

    As :func:`decoder_complaints`, it is for one thread that decodes.
    """
    with decoder_complaints() as said:
        pixels = read_image(path, reading)
    return pixels, "; ".join(said)


def describe_damage(path: Path, complaint: str) -> str:
    """One line on a file that is damaged inside and decoded all the same."""
    return (
        f"image '{path}' is damaged inside, and parts of it come out grey or shifted: {complaint}"
    )


@contextmanager
def decoder_complaints() -> Iterator[list[str]]:
    """Listens to the decoder within this block; what it complains about is in the list afterwards.

    Only for one thread that decodes: the standard error of all of them is held meanwhile. What is
    none of the decoder's is passed on.
    """
    said: list[str] = []
    try:
        sys.stderr.flush()
        kept = os.dup(2)
    except (OSError, ValueError, AttributeError):  # there is none
        yield said
        return
    with tempfile.TemporaryFile("w+b") as file:
        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        file.seek(0)
        lines = file.read().decode(errors="replace").splitlines(keepends=True)
    said += [line.strip() for line in lines if line.startswith(_OF_DAMAGE)]
    if rest := "".join(line for line in lines if not line.startswith(_OF_DAMAGE)):
        sys.stderr.write(rest)
