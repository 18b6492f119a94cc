"""Decoded images on disk, shared by all workers and all runs (seam: images as they are)."""

from __future__ import annotations

from pathlib import Path

from datasets.images import FileImages, ImageSet


def cached(files: FileImages, folder: Path | None = None, limit_gb: float = 8.0) -> ImageSet:
    """The images of the files."""
    return files
