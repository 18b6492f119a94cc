"""``data fetch``: downloads a data set where that is allowed, or says what to do by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from da.errors import UserError
from da.installation import program

if TYPE_CHECKING:
    from da.types import DataSet


def fetch_data(kind: type[DataSet], root: str | None) -> int:
    """Fetches a set into a folder and says how to check it; returns 0."""
    name = kind.__name__
    if kind.origin() in ("made here", "the user's"):
        raise UserError(
            f"{name} has nothing to download: it is made here, or consists of your own files"
        )
    folder = Path(root).expanduser() if root else Path("data") / name
    cite = f"cite: {kind.reference}; licence: {kind.licence}"
    print(f"{kind.title} into '{folder}'; {cite}", flush=True)
    kind.fetch(folder)
    print(f"next: {program()} data check {name} --root {folder}")
    return 0
