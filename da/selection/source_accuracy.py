"""How well the source's own validation images are classified."""

from __future__ import annotations

from typing import ClassVar

from da.selection.base import Evidence, Score
from da.types import Split


class SourceAccuracy(Score):
    """Accuracy on the source's validation images, which are not trained on.

    The baseline that few scores beat over many tasks and methods (Musgrave, Belongie, Lim 2022,
    Three New Validators and a Large-Scale Benchmark Ranking for Unsupervised Domain Adaptation).
    It looks at no image of the target.
    """

    needs: ClassVar[tuple[Split, ...]] = ("validation",)
    sees_target: ClassVar[bool] = False

    def __call__(self, evidence: Evidence) -> float:
        """The score, in [0, 1]."""
        validation = evidence.source["validation"]
        assert validation.labels is not None  # the source has labels
        return float((validation.logits.argmax(dim=1) == validation.labels).double().mean())
