"""Downloads that resume and are verified (seam: by hand)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from da.errors import UserError


class Download(NamedTuple):
    """One file to download."""

    address: str
    file: str
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None
    unpack: bool = True


def fetch(name: str, downloads: Sequence[Download], root: Path, by_hand: str) -> None:
    """Downloads files, or says what to do by hand."""
    raise UserError(f"{name} can't be downloaded by a program: {by_hand}")
