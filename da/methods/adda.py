"""ADDA: adversarial discriminative domain adaptation (Tzeng et al. 2017, CVPR, 1702.05464)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar, Literal, get_args

import torch.nn.functional as F
from torch import Tensor

from da.errors import UserError, unknown
from da.methods.base import Stage, Step
from da.methods.dann import DANN
from da.methods.updates import frozen_statistics
from da.networks.network import evaluating
from da.ops.acceleration import without_autocast
from da.ops.schedules import reversal_strength
from da.types import Activations, Batch

Objective = Literal["reversal", "inverted"]
MAPPING = ("network.backbone", "network.bottleneck")


def inverted_loss(target: Tensor) -> Tensor:
    """What the target's features lose where the critic recognises them: ½ · mean[-log σ(d_t)].

    The GAN's loss with inverted labels (Tzeng et al. 2017, section 3.2); ½ as in
    :func:`da.methods.critics.domain_loss`, whose gradient fades where the critic is sure, and this
    one's doesn't.

    Args:
        target: ``(B,)`` or ``(B, 1)`` float, the critic's logits on the target.
    """
    return 0.5 * F.softplus(-target).mean()


class ADDA(DANN):
    """A network of the source, and one of the target whose features pass for the source's.

    Stage ``source``: the network learns the labelled source, and never sees the target. Stage
    ``adapt``: a copy of it is frozen and gives the source's features (in evaluation mode, with the
    running statistics of batch norm); the network itself goes on, on the target alone, and learns
    to fool a critic of both. Its classifier stays that of the source. It is what is evaluated, on
    both domains.

    As each domain is forwarded by a network of its own, ``forward_mode`` is about the critic alone.
    Momentum starts anew with the stage, and so does the schedule of the reversal; the learning rate
    is annealed over the whole run, where the Transfer-Learning-Library anneals twice. The paper's
    own code has plain critics, and Adam.

    Args:
        source_share: the share of the epochs that the source stage takes. The
            Transfer-Learning-Library trains 3 epochs before 20, the paper as long as it adapts.
        objective: how the critic is fooled. ``reversal``: by its reversed gradient, in one update,
            as in the better of the Transfer-Learning-Library's versions; ``inverted``: by inverted
            labels, as in the paper, the critic and the network in turn; ``environment_smoothing``
            is then of the critic's labels alone.
        reversal_maximum: the strength of the reversal that the schedule tends to; with ``inverted``
            the weight of the network's loss.
    """

    small: ClassVar = {"critic_width": 32, "source_share": 0.5}

    def __init__(
        self,
        num_classes: int,
        source_share: float = 0.15,
        objective: Objective = "reversal",
        reversal_maximum: float = 2.0,
        **kwargs: Any,
    ):
        if not 0 < source_share < 1:
            raise UserError(
                f"source_share: expected a share of the epochs between 0 and 1, got {source_share}"
            )
        if objective not in get_args(Objective):
            raise unknown("objective", objective, get_args(Objective))
        super().__init__(num_classes, reversal_maximum=reversal_maximum, **kwargs)

    def build(self) -> None:
        """Builds the critic, and makes room for the network of the source."""
        super().build()
        self.source_network = self.frozen_copy()

    def stages(self) -> Sequence[Stage]:
        """The source, then the adaptation."""
        source = Stage("source", until=self.hparams["source_share"], target=False)
        return source, Stage("adapt")

    def start_stage(self, stage: Stage) -> None:
        """Freezes a copy of what the source taught, and starts the target's network from it."""
        if stage.name == "source" or self.stage_resumed:
            return
        self.source_network.load_state_dict(self.network.state_dict())
        self.leave_source()

    @property
    def makes_one_update(self) -> bool:
        """Whether critic and network are updated together."""
        return bool(self.hparams["objective"] == "reversal")

    @property
    def reversal(self) -> float:
        """Its schedule is over the adaptation: from 0 where that begins."""
        h = self.hparams
        return reversal_strength(self.stage_progress, h["reversal_gamma"], h["reversal_maximum"])

    def steps(self, batch: Batch) -> Iterator[Step]:
        """One update in the source stage; then of critic and features, together or in turn."""
        if self.stage.name == "source":
            yield Step(lambda: self.losses(batch))
        elif self.makes_one_update:
            yield Step(lambda: self.losses(batch), (*MAPPING, "critic"))
        else:
            yield Step(lambda: self.losses(batch), ("critic",))
            yield Step(lambda: self.mapping_losses(batch), MAPPING)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy in the source stage, then the domain loss alone."""
        if self.stage.name == "source":
            return super().losses(batch)
        # Where a second update follows, running statistics are moved by its pass alone.
        once = nullcontext() if self.makes_one_update else frozen_statistics(self.network)
        with once:
            source, target = self._of_both_networks(batch)
        with without_autocast(target.features):
            return self.adaptation(source, target, batch)

    def mapping_losses(self, batch: Batch) -> dict[str, Tensor]:
        """What the target's network learns from inverted labels."""
        source, target = self._of_both_networks(batch)
        with without_autocast(target.features):
            _, d_target = self.apply_part(
                self.critic, (source.features, "source"), (target.features, "target")
            )
            weight = self.hparams["trade_off"] * self.reversal
            return {"inverted": weight * inverted_loss(d_target)}

    def _of_both_networks(self, batch: Batch) -> tuple[Activations, Activations]:
        """Activations of the source by its frozen network, of the target by its own."""
        assert batch.source is not None
        with evaluating(self.source_network):
            source: Activations = self.source_network(batch.source.images, "source")
        (target,) = self.activations_of((batch.target.images, "target"))
        return source, target
