"""Archives are unpacked safely (seam: refused)."""

from __future__ import annotations

from pathlib import Path

from da.errors import UserError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def is_archive(path: Path) -> bool:
    """Whether a file is called like an archive."""
    return path.name.lower().endswith(SUFFIXES)


def unpacked(archive: Path, into: Path | None = None) -> Path:
    """The folder that an archive was unpacked into."""
    raise UserError(f"'{archive}' is not unpacked: unpack it")
