"""Every image is decoded in parallel and each bad one named (seam: one by one)."""

from __future__ import annotations

import numpy as np

from datasets.decoding import UnreadableImage
from datasets.images import FileImages


def unreadable(files: FileImages, workers: int | None = None, show: bool = True) -> dict[int, str]:
    """The images that can't be decoded: their index and why."""
    bad = {}
    for i in range(len(files)):
        try:
            files.images(np.array([i]))
        except UnreadableImage as error:
            bad[i] = str(error)
    return bad
