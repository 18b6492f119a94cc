"""Settings of torch that hold for a whole process: changed for a block, and put back after it.

A process trains many cells of a grid, and whoever calls commands from Python goes on after them:
what one of them sets must not change what the next one computes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""What Lightning sets for deterministic trainings on a GPU."""


@contextmanager
def torch_settings(threads: int | None = None) -> Iterator[None]:
    """A block after which threads, determinism and cuDNN's search are what they were before it.

    Args:
        threads: in which torch computes within it; None for as many as it does.
    """
    number = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    only_warn = torch.is_deterministic_algorithms_warn_only_enabled()
    search, workspace = torch.backends.cudnn.benchmark, os.environ.get(WORKSPACE)
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        yield
    finally:
        torch.set_num_threads(number)
        torch.use_deterministic_algorithms(deterministic, warn_only=only_warn)
        torch.backends.cudnn.benchmark = search
        if workspace is None:
            os.environ.pop(WORKSPACE, None)
        else:
            os.environ[WORKSPACE] = workspace
