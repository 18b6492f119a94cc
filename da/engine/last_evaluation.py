"""Every training, and each of its stages, ends with an evaluation, wherever its end falls."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as L
from pytorch_lightning.callbacks import Timer

from da.methods.base import Method
from da.methods.stages import stage_of


class LastEvaluation(L.Callback):
    """Has the last batch of a training, and of each of its stages, followed by an evaluation.

    Lightning evaluates every so many epochs or batches, and leaves the rest without one; the
    accuracy that is called last would be of an earlier network, and nobody would know what a later
    stage began with.
    """

    def __init__(self) -> None:
        self._before: dict[str, Any] | None = None

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Asks for an evaluation now."""
        if 0 < trainer.max_steps <= trainer.global_step:
            trainer.should_stop = True
        if (trainer.should_stop and may_stop(trainer)) or self._is_last(trainer, pl_module):
            self._before = {
                "check_val_every_n_epoch": trainer.check_val_every_n_epoch,
                "val_check_batch": trainer.val_check_batch,
            }
            trainer.check_val_every_n_epoch = 1
            trainer.val_check_batch = batch_idx + 1

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Goes back to what was set where the training went on (``min_epochs``, ``min_steps``)."""
        if self._before is not None:
            vars(trainer).update(self._before)
            self._before = None

    def _is_last(self, trainer: L.Trainer, module: L.LightningModule) -> bool:
        if trainer.is_last_batch and ends_stage(trainer, module):
            return True
        left = [c.time_remaining() for c in trainer.callbacks if isinstance(c, Timer)]  # type: ignore[attr-defined]
        return any(seconds is not None and seconds <= 0 for seconds in left)


def ends_stage(trainer: L.Trainer, module: L.LightningModule) -> bool:
    """Whether the epoch at hand is the last one, or the last of a stage."""
    epoch, epochs = trainer.current_epoch, trainer.max_epochs
    if epoch + 1 == epochs:
        return True
    if epochs is None or not isinstance(module, Method):
        return False
    stages = module.stages()
    return stage_of(stages, epoch, epochs) != stage_of(stages, epoch + 1, epochs)


def may_stop(trainer: L.Trainer) -> bool:
    """Whether the shortest length that was asked for is reached, and a stop is heeded."""
    epochs, steps = trainer.min_epochs or 0, trainer.min_steps or 0
    return trainer.current_epoch >= epochs and trainer.global_step >= steps
