"""Decompositions of matrices in a loss, which may have diverged."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def of_finite(function: Callable[[Tensor], Tensor], matrix: Tensor) -> Tensor:
    """What a decomposition makes of a matrix, a scalar; NaN where the matrix isn't finite.

    LAPACK refuses such a matrix with an error of its own, where any other loss would go on to be
    infinite, for whoever checks the losses to say that the training diverged.

    Args:
        function: gives the scalar, a sum of singular values or the like.
        matrix: what it is given.
    """
    try:
        return function(matrix)
    except torch.linalg.LinAlgError:
        if matrix.isfinite().all():
            raise
        return (matrix * torch.nan).sum()
