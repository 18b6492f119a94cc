"""Settings of the trainer that could not be heeded, refused before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pytorch_lightning import callbacks as of_lightning
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, Timer
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from da.engine.spec import RunSpec
from da.errors import UserError, unknown
from da.methods.stages import Stage, stage_of

_CHANGES = "it changes the training behind the back of its recorded settings"

#: Callbacks of Lightning's that can't be heeded, and why.
REFUSED_CALLBACKS = {
    "BackboneFinetuning": f"{_CHANGES}; see --model.pretrained_factor for the backbone's rate",
    "BaseFinetuning": f"{_CHANGES}; see --model.pretrained_factor for the backbone's rate",
    "BasePredictionWriter": "nothing is predicted in a training; see predict",
    "BatchSizeFinder": f"{_CHANGES}; give --data.batch_size",
    "EMAWeightAveraging": "averaged weights would not be evaluated; take a method that averages",
    "GradientAccumulationScheduler": f"{_CHANGES}; give --trainer.accumulate_grad_batches",
    "LearningRateFinder": f"{_CHANGES}; rates are tuned by tune",
    "ModelPruning": _CHANGES,
    "OnExceptionCheckpoint": "last.ckpt of the run is always whole; go on with --ckpt_path",
    "StochasticWeightAveraging": "averaged weights would not be evaluated; take a method that "
    "averages",
    "WeightAveraging": "averaged weights would not be evaluated; take a method that averages",
}


def refuse_trainer_settings(spec: RunSpec) -> None:
    """Refuses settings that no training could heed.

    Raises:
        UserError: naming the option, and what to give instead.
    """
    settings = spec.trainer
    for name in ("limit_train_batches", "limit_val_batches"):
        value = getattr(settings, name)
        if value is not None and not (isinstance(value, float) and value == 1):
            raise UserError(f"trainer.{name}: {_LIMITS[name]}")
    if settings.overfit_batches:
        raise UserError(
            "trainer.overfit_batches: no batch is repeated here, each is drawn anew by seed and "
            "step; to see a network overfit, train on a folder or a list of few images"
        )
    for name in ("max_steps", "min_epochs", "min_steps"):
        value = getattr(settings, name)
        if value is not None and value < 1 and not (name == "max_steps" and value == -1):
            raise UserError(f"trainer.{name}: expected a whole number from 1, got {value}")
    every = settings.check_val_every_n_epoch
    if every is not None and every < 1:
        raise UserError(
            f"trainer.check_val_every_n_epoch: expected a whole number from 1 or null, got {every}"
        )
    if every is None and not isinstance(settings.val_check_interval, int):
        raise UserError(
            "trainer.check_val_every_n_epoch: null is for evaluations that count batches across "
            "epochs; give --trainer.val_check_interval a whole number of batches with it"
        )
    refuse_no_end(spec)


_LIMITS = {
    "limit_train_batches": "give --data.steps_per_epoch, a number of batches; the order of the "
    "images follows it",
    "limit_val_batches": "an accuracy is of all images of a split; evaluate less often instead "
    "(--trainer.check_val_every_n_epoch), or give --trainer.fast_dev_run true for a look",
}


def refuse_no_end(spec: RunSpec) -> None:
    """Refuses trainings without an end, and those whose schedules would not know theirs."""
    settings = spec.trainer
    if settings.max_time is not None:
        try:
            Timer(settings.max_time)
        except MisconfigurationException:
            raise UserError(
                "trainer.max_time: expected days, hours, minutes and seconds such as 00:01:30:00, "
                f"got '{settings.max_time}'"
            ) from None
    if spec.epochs == 0:
        raise UserError("trainer.max_epochs: expected more than 0, or no epoch is trained")
    if spec.epochs > 0 or settings.max_steps > 0:
        return
    if settings.max_time is None:
        raise UserError(
            "trainer.max_epochs: -1 is a training without an end; give --trainer.max_steps or "
            "--trainer.max_time with it"
        )
    if not spec.model_args.get("horizon"):
        raise UserError(
            "trainer.max_time: learning rate and trade-offs follow the share of the training that "
            "is done, which time alone doesn't tell; give --trainer.max_epochs or max_steps with "
            "it (the training ends at what comes first), or --model.horizon, the batch at which "
            "they end"
        )


def refuse_stages_cut_off(spec: RunSpec, stages: Sequence[Stage], batches: int) -> None:
    """Refuses lengths under which a stage of a method would never come, or never end.

    Args:
        spec: what is trained.
        stages: of its method; they are shares of the epochs.
        batches: of an epoch.
    """
    if len(stages) == 1:
        return
    if spec.epochs == -1:
        raise UserError(
            f"trainer.max_epochs: {spec.method} trains in {len(stages)} stages, which are shares "
            "of the epochs; give --trainer.max_epochs"
        )
    trained = spec.epochs
    if spec.trainer.max_steps > 0:
        updates = -(-batches // spec.trainer.accumulate_grad_batches)
        trained = min(trained, -(-spec.trainer.max_steps // updates))
    seen = [stage_of(stages, epoch, spec.epochs) for epoch in range(trained)]
    if left_out := [stage.name for stage in stages if stage not in seen]:
        raise UserError(
            f"trainer.max_epochs: {spec.method} trains in {len(stages)} stages, which are shares "
            f"of the epochs, and '{left_out[0]}' would get none of these {spec.epochs}"
            + (f" within max_steps {spec.trainer.max_steps}" if trained < spec.epochs else "")
            + "; give more"
        )


def refuse_interval(spec: RunSpec, batches: int) -> None:
    """Refuses evaluations that would never come.

    Args:
        spec: what is trained.
        batches: of an epoch.
    """
    interval = spec.trainer.val_check_interval
    if interval is None or spec.trainer.check_val_every_n_epoch is None:
        if interval is not None and interval < 1:
            raise UserError(f"trainer.val_check_interval: expected 1 or more, got {interval}")
        return
    if isinstance(interval, int) and not 1 <= interval <= batches:
        raise UserError(
            f"trainer.val_check_interval: expected a number of batches from 1 to {batches}, of "
            f"which an epoch has so many, got {interval}; to count across epochs add "
            "--trainer.check_val_every_n_epoch null"
        )
    if isinstance(interval, float) and not 1 / batches <= interval <= 1:
        raise UserError(
            f"trainer.val_check_interval: expected a share of the {batches} batches of an epoch, "
            f"from {1 / batches:.3g} to 1.0, got {interval}"
        )


def refuse_callbacks(callbacks: Iterable[Any]) -> None:
    """Refuses callbacks of Lightning's that can't be heeded; a user's own are let be."""
    for callback in callbacks:
        for name, reason in REFUSED_CALLBACKS.items():
            if isinstance(callback, getattr(of_lightning, name, ())):
                raise UserError(f"trainer.callbacks: {type(callback).__name__}: {reason}")


def monitored(callback: Any) -> str | None:
    """The name of the value that a callback decides by, if any."""
    known = isinstance(callback, (EarlyStopping, ModelCheckpoint))
    return callback.monitor if known else None


def refuse_monitors(callbacks: Iterable[Any], allowed: Iterable[str], terms: bool = False) -> None:
    """Refuses callbacks that wait for a value which is never logged.

    Args:
        callbacks: of the training.
        allowed: names of what is logged.
        terms: whether ``allowed`` holds all terms of the loss. A method names them with its first
            batch; until then any ``loss/…`` passes.
    """
    names = set(allowed)
    for callback in callbacks:
        name = monitored(callback)
        if name is None or name in names or (not terms and name.startswith("loss/")):
            continue
        error = unknown("value to monitor", name, names if terms else {*names, "loss/TERM"})
        raise UserError(f"trainer.callbacks: {type(callback).__name__}: {error}")
