"""Information maximisation on the target (Krause et al. 2010; SHOT-IM, Liang et al. 2020)."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from da.methods.base import Method
from da.ops.entropy import mutual_information
from da.types import Activations, Batch


class InformationMaximisation(Method):
    """Target predictions that tell most about the image: each is sure, and all classes are used.

    Minimises -I(X; Y) = H(Y|X) - H(Y) of the target's predictions (Krause, Perona, Gomes 2010,
    Discriminative Clustering by Regularized Information Maximization; the loss of Liang et al.
    2020, eq. 3 and 4). SHOT-IM trains by it without the source, behind a frozen classifier; here
    the source is trained on beside it. It is :class:`EntropyMinimisation` with ``diversity`` 1 at
    its published weight, which is 1 and not 0.1.

    Args:
        trade_off: weight of the information.
    """

    own_scores: ClassVar = ("InformationMaximisation",)

    def __init__(self, num_classes: int, trade_off: float = 1.0, **kwargs: Any):
        super().__init__(num_classes, **kwargs)

    def adaptation(
        self, source: Activations, target: Activations, batch: Batch
    ) -> dict[str, Tensor]:
        """The negative information between target images and their predicted classes."""
        return {"information": -self.hparams["trade_off"] * mutual_information(target.logits)}
