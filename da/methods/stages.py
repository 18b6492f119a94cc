"""The parts of a training: which one an epoch is in, what begins with it, how far it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from da.errors import UserError
from da.methods.network_module import NetworkModule
from da.norms.base import DomainLayer
from da.ops.seeding import derive_seed, set_random_state


@dataclass(frozen=True)
class Stage:
    """A part of a training with a source of its own, or without one.

    Attributes:
        name: ``"source"``, ``"adapt"``.
        until: the share of the run's epochs at which it ends, in (0, 1]; the last one's is 1.
        source: whether its batches hold source images.
        target: whether it forwards the target, where the method does at all.
    """

    name: str
    until: float = 1.0
    source: bool = True
    target: bool = True


def stage_of(stages: Sequence[Stage], epoch: int, epochs: int) -> Stage:
    """The stage that an epoch is in; of several epochs, the first is always of the first stage.

    A run that is cut short, where that stage's share is less than an epoch, still begins with it.

    Args:
        stages: of the training.
        epoch: from 0.
        epochs: of the run.
    """
    if epoch == 0 and epochs > 1:
        return stages[0]
    share = (epoch + 1) / max(1, epochs)
    return next((stage for stage in stages if share <= stage.until + 1e-9), stages[-1])


class StagedModule(NetworkModule):
    """A training in stages, of which most have one; a run that is resumed goes on in its own.

    Attributes:
        stage: the part of the training at hand.
        stage_resumed: whether it had begun where the run goes on from.
        begun: the name of the stage that began last, and so of :attr:`stage` once training runs.
        stage_began: the batch that it began with, counted as ``batches_done``.
    """

    stage: Stage = Stage("train")
    stage_resumed: bool = False
    begun: str | None = None
    stage_began: int = 0

    def stages(self) -> Sequence[Stage]:
        """The parts of a training, in order."""
        return (Stage("train"),)

    def start_stage(self, stage: Stage) -> None:
        """Called before the first batch of a stage, and where a run is resumed within it.

        What holds for all of a stage (which parameters are frozen) is set in either case. What is
        done once (a copy of the source's network) is left out where :attr:`stage_resumed`: it is
        in the checkpoint.
        """

    def leave_source(self) -> None:
        """Goes on to the target from what the source taught, with nothing left of its momentum."""
        for layer in self.network.modules():
            if isinstance(layer, DomainLayer):
                layer.start_target_from_source()
        optimiser: Any = self.optimizers()
        optimiser.optimizer.state.clear()

    def start_epoch(self) -> None:
        """Called before each epoch, in the stage that it is in; see :meth:`Method.collect`.

        Also where a run is resumed within an epoch: with the network as it is by then.
        """

    def on_train_start(self) -> None:
        """Goes on within an epoch where the checkpoint lies in one: no epoch starts then."""
        super().on_train_start()
        trainer: Any = self.trainer
        if not trainer.fit_loop.restarted_mid_epoch:
            return
        self._enter_stage()
        self.start_epoch()
        if self.noise:
            set_random_state(self.noise, self.device)

    def on_train_epoch_start(self) -> None:
        """Reseeds dropout and its like, so that a run that is resumed goes on as it would have."""
        torch.manual_seed(
            derive_seed(self.hparams["seed"], self.hparams["task"], "noise", self.current_epoch)
        )
        self._enter_stage()
        self.start_epoch()

    def _enter_stage(self) -> None:
        stages = self.stages()
        epochs = (self.trainer.max_epochs or 1) if len(stages) > 1 else 1
        stage = stage_of(stages, self.current_epoch, epochs)
        names = [one.name for one in stages]
        if self.begun in names[names.index(stage.name) + 1 :]:
            raise UserError(
                f"trainer.max_epochs: the checkpoint lies in the stage '{self.begun}', and of "
                f"{epochs} epochs this one would be in '{stage.name}' again; stages are shares of "
                "the epochs, give as many as it was trained with"
            )
        entered = stage != self.stage or self.current_epoch == 0 or not self._entered
        self.stage, self._entered = stage, True
        if entered:
            self.stage_resumed = stage.name == self.begun
            if not self.stage_resumed:
                self.begun, self.stage_began = stage.name, self.batches_done
            self.start_stage(stage)

    _entered = False

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps which stage began last, and where: with more epochs its share would lie elsewhere.

        A subclass that keeps more calls this first.
        """
        super().on_save_checkpoint(checkpoint)
        checkpoint["run"] |= {"begun": self.begun, "stage_began": self.stage_began}

    @property
    def stage_progress(self) -> float:
        """Progress of the stage at hand, from 0; or its batches / horizon where one is set.

        Of a training of one stage it is :attr:`progress`. A run that is resumed for longer goes on
        in the stage that it was in, which then ends later.
        """
        length = self.hparams["horizon"] or max(1, self._stage_end() - self.stage_began)
        return (self.batches_done - self.stage_began) / length

    def _stage_end(self) -> int:
        """The batch that the stage at hand ends before."""
        steps, stages = self._steps or self._all_steps(), self.stages()
        if self.stage.until == 1:
            return steps
        trainer: Any = self.trainer
        epochs = trainer.max_epochs or 1
        last = max(e for e in range(epochs) if stage_of(stages, e, epochs) == self.stage)
        updates = -(-int(trainer.num_training_batches) // self.updates.accumulate_grad_batches)
        return min(steps, (last + 1) * updates)
