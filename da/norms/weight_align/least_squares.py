"""Filters that sum to zero and do on one input what others did on another: the closed form."""

from __future__ import annotations

import torch
from torch import Tensor

# Rows whose products are summed in their own precision before they are added in float64.
BLOCK = 4096


class SecondMoments:
    """Second moments of inputs and of the outputs that are wanted for them, block by block.

    Products are of deviations from the mean of the first block, which keeps the digits that a
    difference of large products would lose, and the blocks are summed in float64. Up to a block
    of rows is kept as it is: fewer rows than weights are solved for by their own products.

    Attributes:
        rows: how many were added.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._waiting: list[tuple[Tensor, Tensor]] = []
        self._xx: Tensor | None = None

    def add(self, x: Tensor, t: Tensor) -> None:
        """Adds rows.

        Args:
            x: ``(G, R, n)`` float, the inputs of the filters of each group.
            t: ``(G, R, O)`` float, what the filters of each group should put out.
        """
        if x.dtype.itemsize < 4:  # products of half precision overflow, or lose what matters
            x, t = x.float(), t.float()
        self.rows += x.shape[1]
        self._waiting.append((x, t))
        if sum(x.shape[1] for x, _ in self._waiting) > BLOCK:
            self._sum()

    def few(self) -> tuple[Tensor, Tensor] | None:
        """All rows, ``(G, R, n)`` and ``(G, R, O)``, where they are fewer than the weights."""
        if self._xx is not None or self.rows >= self._waiting[0][0].shape[2]:
            return None
        x, t = (torch.cat(parts, 1) for parts in zip(*self._waiting, strict=True))
        return x, t

    def centred(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Means and covariances, float64.

        Returns:
            ``(G, n)`` mean of x, ``(G, O)`` mean of t, ``(G, n, n)`` covariance of x, and
            ``(G, n, O)`` covariance of x with t. The object is used up.
        """
        if self._waiting:
            self._sum()
        assert self._xx is not None  # for the type checker: rows were added
        x, t = self._x / self.rows, self._t / self.rows
        xx = self._xx.div_(self.rows).sub_(x.mT @ x)
        xt = self._xt.div_(self.rows).sub_(x.mT @ t)
        origin_x, origin_t = self._origin
        return (x + origin_x).squeeze(1), (t + origin_t).squeeze(1), xx, xt

    def _sum(self) -> None:
        """Adds the rows that wait."""
        x, t = (torch.cat(parts, 1) for parts in zip(*self._waiting, strict=True))
        self._waiting = []
        if self._xx is None:
            self._origin = x.mean(1, keepdim=True), t.mean(1, keepdim=True)
            (groups, _, n), outputs = x.shape, t.shape[2]
            self._x, self._t = (
                x.new_zeros(groups, 1, k, dtype=torch.float64) for k in (n, outputs)
            )
            self._xx = x.new_zeros(groups, n, n, dtype=torch.float64)
            self._xt = x.new_zeros(groups, n, outputs, dtype=torch.float64)
        x, t = x - self._origin[0], t - self._origin[1]
        self._x += x.sum(1, keepdim=True, dtype=torch.float64)
        self._t += t.sum(1, keepdim=True, dtype=torch.float64)
        self._xx += x.mT @ x
        self._xt += x.mT @ t


def zero_sum_fit(
    moments: SecondMoments, weight: Tensor, ridge: float, constant: int | None = None
) -> tuple[Tensor, Tensor]:
    r"""The filters of zero sum, with free intercepts, that put out nearest to what is wanted.

    Of the filters v with :math:`1^\top v = 0` it is the one that minimises

    .. math:: \mathrm E (v^\top x + b - t)^2 + \lambda \lVert v - w \rVert^2 ,

    so that what the rows don't tell is left as it is in w, the filter that was trained. With the
    covariance C of x, K = C + λI and c the covariance of x with t − wᵀx,

    .. math:: v = w + K^{-1} c - K^{-1} 1 \,
              \frac{1^\top w + 1^\top K^{-1} c}{1^\top K^{-1} 1} .

    Where x is what w itself saw (c = 0) this is w − K⁻¹1 (1ᵀw) / (1ᵀK⁻¹1).

    Args:
        moments: of the rows. They are used up.
        weight: ``(G, O, n)`` float, w.
        ridge: λ over the mean of C's diagonal, above 0.
        constant: the input that is the same in all rows and whose weight is free, with no λ: it
            takes what the others sum to, which therefore lose nothing.

    Returns:
        v ``(G, O, n)`` and b ``(G, O)``, float64.
    """
    w = weight.double().mT  # (G, n, O)
    few = moments.few()
    x, t, change, ones = _by_rows(*few, w, ridge) if few else _by_weights(moments, w, ridge)
    if constant is not None:  # the limit of K⁻¹1 for λ of this input to 0, up to its scale
        ones = torch.zeros_like(ones)
        ones[:, constant] = 1.0
    excess = (w.sum(1, keepdim=True) + change.sum(1, keepdim=True)) / ones.sum(1, keepdim=True)
    v = w + change - ones * excess
    v -= v.mean(1, keepdim=True)  # what rounding leaves of the sum
    return v.mT, t - (v * x[:, :, None]).sum(1)


Solution = tuple[Tensor, Tensor, Tensor, Tensor]


def _by_weights(moments: SecondMoments, w: Tensor, ridge: float) -> Solution:
    """Means of x and t, and K⁻¹c and K⁻¹1 from K itself."""
    x, t, covariance, cross = moments.centred()
    diagonal = covariance.diagonal(dim1=1, dim2=2)
    added = _ridge(diagonal.mean(1), ridge)[:, :, 0]
    cross -= covariance @ w
    diagonal += added
    solved = _solve_symmetric(covariance, torch.cat([cross, torch.ones_like(cross[:, :, :1])], 2))
    return x, t, solved[:, :, :-1], solved[:, :, -1:]


def _by_rows(x: Tensor, t: Tensor, w: Tensor, ridge: float) -> Solution:
    """The same from the products of R centred rows X with each other, which are fewer:

    K⁻¹Xᵀ = R Xᵀ(XXᵀ + RλI)⁻¹ and K⁻¹1 = (1 − Xᵀ(XXᵀ + RλI)⁻¹ X1) / λ.
    """
    x, t = x.double(), t.double()
    mean_x, mean_t = x.mean(1, keepdim=True), t.mean(1, keepdim=True)
    x, t = x - mean_x, t - mean_t
    added = _ridge(x.square().mean((1, 2)), ridge)
    products = x @ x.mT
    products.diagonal(dim1=1, dim2=2).add_(x.shape[1] * added[:, :, 0])
    solved = x.mT @ _solve_symmetric(products, torch.cat([t - x @ w, x.sum(2, keepdim=True)], 2))
    ones = (1 - solved[:, :, -1:]) / added
    return mean_x.squeeze(1), mean_t.squeeze(1), solved[:, :, :-1], ones


def _ridge(size: Tensor, ridge: float) -> Tensor:
    """λ of each group, ``(G, 1, 1)``; any where its inputs are constant."""
    return torch.where(size > 0, ridge * size, torch.ones_like(size))[:, None, None]


def _solve_symmetric(matrix: Tensor, wanted: Tensor) -> Tensor:
    """``matrix⁻¹ wanted`` for symmetric ``(G, n, n)`` that are positive but for rounding."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if not failed.any():
        return torch.cholesky_solve(wanted, factor)
    values, vectors = torch.linalg.eigh(matrix)
    # Below this, float64 can't tell an eigenvalue from 0.
    least = values.amax(1, keepdim=True) * matrix.shape[1] * torch.finfo(matrix.dtype).eps
    return vectors @ ((vectors.mT @ wanted) / values.maximum(least)[:, :, None])
