"""WeightAlign: the normaliser, the aligned layers, their sharing, the conversion of networks."""

from __future__ import annotations

from da.norms.weight_align.normaliser import WeightAlign

__all__ = ["WeightAlign"]
