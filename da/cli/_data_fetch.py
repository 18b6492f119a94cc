"""``data fetch``: downloads a data set where that is allowed, or says what to do by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from da.errors import UserError


def fetched(cls: Any, name: str, root: str | None) -> int:
    """Fetches a set into a folder and says how to check it; returns 0."""
    if not hasattr(cls, "fetch"):
        raise UserError(
            f"{name} has nothing to download: it is made here, or consists of your own files"
        )
    folder = Path(root).expanduser() if root else Path("data") / name
    print(f"{cls.title} into '{folder}'; cite: {cls.reference}; licence: {cls.licence}", flush=True)
    cls.fetch(folder)
    print(f"next: python run.py data check {name} --root {folder}")
    return 0
