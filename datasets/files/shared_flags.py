"""One flag for each image, which the processes of a run set and see between them."""

from __future__ import annotations

import mmap

import numpy as np


class SharedFlags:
    """Zeros to be set to 1. Processes that are forked share them; one that is spawned begins anew.

    Args:
        count: of flags.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.flags = np.frombuffer(mmap.mmap(-1, max(count, 1)), np.uint8)

    def __reduce__(self) -> tuple[type[SharedFlags], tuple[int]]:
        return SharedFlags, (self.count,)

    def set_first(self, i: int) -> bool:
        """Sets a flag; whether it was not set before."""
        before, self.flags[i] = int(self.flags[i]), 1
        return not before
