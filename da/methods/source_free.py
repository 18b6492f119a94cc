"""What source-free methods share: a source stage, and adaptation that sees the target alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from da.errors import UserError
from da.methods.base import Method, Stage
from da.networks.network import build_bottleneck
from da.types import Activations, Batch


class WeightNormLinear(nn.Linear):
    """y = (g_k · v_k / ‖v_k‖) x + b (Salimans & Kingma 2016, Weight Normalization, eq. 2).

    A layer and no parametrisation, so that networks are copied and pickled as they are.

    Attributes:
        weight: v, ``(K, F)``.
        g: ``(K,)``; at the start ‖v_k‖, so that the layer begins as a plain one.
    """

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        self.g = nn.Parameter(self.weight.detach().norm(dim=1))

    def forward(self, input: Tensor) -> Tensor:
        """Features ``(B, F)`` to logits ``(B, K)``."""
        return F.linear(input, self._normalised(), self.bias)

    def _normalised(self) -> Tensor:
        return self.g[:, None] * F.normalize(self.weight, dim=1)

    def plain(self) -> nn.Linear:
        """The layer of PyTorch that computes the same."""
        layer = nn.Linear(self.in_features, self.out_features, device="meta")
        layer.weight, layer.bias = nn.Parameter(self._normalised().detach()), self.bias
        return layer


class SourceFree(Method):
    """A network trained on the source, then adapted to the target with no source image.

    In the network of SHOT (Liang et al. 2020, section 3.4): a bottleneck that ends in its
    normaliser, and a classifier with normalised weights. In the source stage the target is not
    forwarded, in the stage that adapts no batch has a source. Each stage is a training of its own,
    as two commands of the authors': schedules begin anew, and so does the optimiser's momentum.

    What adapts forwards the target alone in training mode. Batch norm's statistics are those of
    the target from the first step on: AdaBN in disguise, whatever the loss does. The fair baseline
    beside such a number is ``bn@target-stats`` of the network before it. Every result has it: an
    evaluation ends the source stage, in all forms. In the tables of a grid it is SourceOnly's, to
    be trained in the same grid; ``source_share: 1`` trains the source stage alone, with the very
    network. WeightAlign has no statistics that the target could change.

    Under ``dsbn`` the target's batch norms begin the second stage as the source's are; until then
    they are untrained.

    Args:
        label_smoothing: of the cross-entropy on the source.
        source_share: the share of the epochs that the source stage takes; 1 leaves adaptation
            out, and all options of it are without effect.
        adaptation_factor: factor on all learning rates of adaptation; SHOT publishes one rate for
            both stages, AaD for Office-31 a tenth of the source's.

    Attributes:
        memory: names of buffers that hold something of the target's images: empty at first, and
            part of a run's checkpoints, but not of a network's tensors, as their sizes are those
            of the data.
    """

    memory: ClassVar[Sequence[str]] = ()

    def __init__(
        self,
        num_classes: int,
        label_smoothing: float = 0.1,
        source_share: float = 0.5,
        adaptation_factor: float = 1.0,
        **kwargs: Any,
    ):
        if not 0 <= label_smoothing < 1:
            raise UserError(
                f"label_smoothing: expected a number from 0 up to but not 1, got {label_smoothing}"
            )
        if not 0 < source_share <= 1:
            raise UserError(
                f"source_share: expected a share of the epochs above 0 and up to 1, got "
                f"{source_share}"
            )
        if adaptation_factor <= 0:
            raise UserError(
                f"adaptation_factor: expected a factor above 0, got {adaptation_factor}"
            )
        super().__init__(num_classes, **kwargs)

    def build_bottleneck(self, features: int, width: int) -> nn.Module:
        """A linear layer and batch norm; no activation follows, as the authors' code has it."""
        return build_bottleneck(features, width)[:-1]

    def build_classifier(self, features: int, classes: int) -> nn.Module:
        """A linear layer with normalised weights."""
        return WeightNormLinear(features, classes)

    def build(self) -> None:
        """Makes the memory, which is empty until a stage or an epoch fills it."""
        for name in self.memory:
            self.register_buffer(name, torch.empty(0), persistent=False)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the memory: a run that is resumed within an epoch could not make it again."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["memory"] = {name: getattr(self, name) for name in self.memory}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores it."""
        super().on_load_checkpoint(checkpoint)
        self.remember(**checkpoint.get("memory", {}))

    def remember(self, **values: Tensor) -> None:
        """Puts values in the memory, by their names."""
        for name, value in values.items():
            setattr(self, name, value.to(self.device))

    def stages(self) -> Sequence[Stage]:
        """The source without the target, then the target without the source."""
        source = Stage("source", self.hparams["source_share"], target=False)
        return (source,) if source.until == 1 else (source, Stage("adapt", source=False))

    def start_stage(self, stage: Stage) -> None:
        """Begins adaptation at its own rate, with nothing remembered of the source's gradients."""
        if stage.source or self.stage_resumed:
            return
        self.leave_source()
        optimiser: Any = self.optimizers()
        schedule: Any = self.lr_schedulers()
        factor = self.hparams["adaptation_factor"]
        schedule.base_lrs = [rate * factor for rate in schedule.base_lrs]
        for group, rate in zip(optimiser.param_groups, schedule.base_lrs, strict=True):
            group["lr"] = rate

    @property
    def progress(self) -> float:
        """That of the stage at hand, see :attr:`Method.stage_progress`."""
        return self.stage_progress

    def task_loss(self, source: Activations, labels: Tensor) -> Tensor:
        """Cross-entropy with smoothed labels (Liang et al. 2020, section 3.1)."""
        smoothing = self.hparams["label_smoothing"]
        return F.cross_entropy(source.logits, labels, label_smoothing=smoothing)

    @abstractmethod
    def source_free(self, target: Activations, batch: Batch) -> dict[str, Tensor]:
        """The loss terms of adaptation."""
