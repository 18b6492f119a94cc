"""Source-only: the baseline that every adaptation method is compared with."""

from __future__ import annotations

from torch import Tensor

from da.methods.base import AdaptationModule
from da.types import Activations


class SourceOnly(AdaptationModule):
    """Cross-entropy on the source. The target is never forwarded in training mode."""

    uses_target = False

    def adaptation(self, source: Activations, target: Activations) -> dict[str, Tensor]:
        """No term."""
        return {}
