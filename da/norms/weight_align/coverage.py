"""Which of a network's convolutions are aligned, and what share of the whole they are."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from da.norms.tracing import CONVOLUTIONS
from da.norms.weight_align.layers import Aligned


@dataclass(frozen=True)
class Coverage:
    """How much of a network's convolutions WeightAlign holds.

    Attributes:
        layers: convolutions that are aligned.
        of_layers: all convolutions.
        weights: of the filters that are aligned; g, bias and everything else are not counted.
        of_weights: of all filters.
        left: names of the convolutions that are plain.
    """

    layers: int
    of_layers: int
    weights: int
    of_weights: int
    left: tuple[str, ...]

    def __str__(self) -> str:
        text = (
            f"aligned are {self.layers} of {self.of_layers} convolutions"
            f" ({_percent(self.layers, self.of_layers)}) with"
            f" {_percent(self.weights, self.of_weights)} of their weights"
        )
        if self.left:
            more = f" and {len(self.left) - 3} more" if len(self.left) > 3 else ""
            text += f" (plain: {', '.join(self.left[:3])}{more})"
        return text

    def as_dict(self) -> dict[str, Any]:
        """As a result holds it."""
        return {**asdict(self), "left": list(self.left)}


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def measure_coverage(model: nn.Module) -> Coverage | None:
    """Counts the convolutions of a network; None where nothing in it is aligned.

    >>> from da.norms import WeightAlign
    >>> network = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 9, 1))
    >>> print(measure_coverage(WeightAlign(min_channels=2).apply(network)))
    aligned are 1 of 2 convolutions (50.0 %) with 50.0 % of their weights (plain: 0)
    """
    if not any(isinstance(module, Aligned) for module in model.modules()):
        return None
    all_of_them = [(n, m) for n, m in model.named_modules() if isinstance(m, CONVOLUTIONS)]
    aligned = [(n, m) for n, m in all_of_them if isinstance(m, Aligned)]
    return Coverage(
        layers=len(aligned),
        of_layers=len(all_of_them),
        weights=sum(m.weight.numel() for _, m in aligned),
        of_weights=sum(m.weight.numel() for _, m in all_of_them),
        left=tuple(n for n, m in all_of_them if not isinstance(m, Aligned)),
    )
