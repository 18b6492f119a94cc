"""How much of a run is done: its training steps and its evaluations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytorch_lightning as L

from da.engine.evaluation import FORMS, Recorder
from da.methods.base import Method

TRAINED = 3
"""What an image costs that is trained on, in images that are evaluated: the gradients take two."""


class ProgressTicks(L.Callback):
    """Reports the finished part of a run, from 0 to 1, after every batch of whatever it does.

    The unit is one image through the network. An image that is trained on counts ``TRAINED``; one
    that is evaluated, or that statistics are re-estimated on, counts 1 in every form.

    Args:
        report: told the finished part.
    """

    def __init__(self, report: Callable[[float], None]):
        self.report = report
        self._recorder = Recorder(forms=False)
        self._steps = 0
        self._step = self._evaluation = self._total = 0.0
        self._seen = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Counts the images of the run, all of them, however much of it is done already."""
        assert isinstance(pl_module, Method)  # for the type checker
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Recorder):
                self._recorder = callback
                callback.tick = lambda images: self._advance(trainer, images)
        if math.isfinite(trainer.estimated_stepping_batches):  # else nobody knows its end
            self._steps = pl_module.count_steps()
            accumulated = pl_module.updates.accumulate_grad_batches
            self._step = TRAINED * 2.0 * pl_module.data.batch_size * accumulated
            self._evaluation = count_evaluated_images(trainer, pl_module, self._recorder)
            every = trainer.check_val_every_n_epoch or 1
            interval = (trainer.val_check_batch or math.inf) * every
            evaluations = math.ceil(self._steps * accumulated / interval)
            self._total = self._steps * self._step + evaluations * self._evaluation

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Reports that a batch is trained on."""
        self._seen = 0
        self._advance(trainer, 0)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Reports that a batch is evaluated by the network as trained."""
        if not trainer.sanity_checking:
            self._advance(trainer, len(batch.images))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reports the whole, also of a run that was stopped early."""
        self.report(1.0)

    def _advance(self, trainer: L.Trainer, images: int) -> None:
        """Reports what is done with so many images more of the evaluation at hand."""
        self._seen += images
        if self._total:
            evaluated = len(self._recorder.history) * self._evaluation
            # A score may have more images evaluated than were counted.
            now = min(self._seen, self._evaluation)
            done = trainer.global_step * self._step + evaluated + now
            self.report(min(1.0, done / self._total))


def count_evaluated_images(trainer: L.Trainer, module: Method, recorder: Recorder) -> int:
    """Images of one evaluation, in all forms, with those that statistics are re-estimated on."""
    if not trainer.limit_val_batches:
        return 0
    data, forms = module.data, recorder.other_forms(module)
    shown = sum(len(data.set_of(role, split)) for role, split in data.evaluations)
    restated = sum(len(data.set_of(FORMS[form], "train")) for form in forms)
    return shown * (1 + len(forms)) + restated
