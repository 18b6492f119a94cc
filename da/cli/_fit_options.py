"""What `fit` makes of the trainer's options: each works, or is refused by name before anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from da.cli._lightning import FitCLI

#: Options of the trainer that the specification holds.
OF_THE_SPEC = {"max_epochs", "precision", "accelerator"}

#: Options that change nothing of what is computed, and go to the trainer as they are.
PASSED = (
    "log_every_n_steps",
    "enable_model_summary",
    "num_sanity_val_steps",
    "profiler",
    "inference_mode",
)


def checked_options(cli: FitCLI) -> dict[str, Any]:
    """The keyword arguments of :meth:`Training.run`: callbacks, logger, checkpoints, and others.

    ``logger`` is a function of the run's folder.

    Raises:
        UserError: for an option that could not be heeded.
    """
    trainer = cli.trainer_options()
    refuse_several_devices(trainer)
    refuse_nothing_to_train(trainer)
    callbacks = trainer.get("callbacks") or []
    return {
        "callbacks": callbacks if isinstance(callbacks, list) else [callbacks],
        "logger": logger_of(trainer.get("logger")),
        "keep": bool(trainer.get("enable_checkpointing", True)),
        "options": {name: trainer[name] for name in PASSED if trainer.get(name) is not None},
    }


def logger_of(given: Any) -> Callable[[Path], Any]:
    """Gives the loggers of a run's folder: a CSV file of metrics, and those that were asked for."""
    from pytorch_lightning.loggers import CSVLogger

    def made(out: Path) -> Any:
        if given is False:
            return False
        # A logger empties its folder, so a resumed run logs into another one.
        parts = len(list(out.glob("metrics*")))
        own = CSVLogger(out, name="", version=f"metrics-{parts + 1}" if parts else "metrics")
        others = [] if given in (None, True) else given if isinstance(given, list) else [given]
        return [own, *others]

    return made


def refuse_several_devices(trainer: dict[str, Any]) -> None:
    """The streams of the data are those of one process, and a training is one process."""
    from da.errors import UserError

    devices, nodes = trainer.get("devices", "auto"), trainer.get("num_nodes") or 1
    number = len(devices) if isinstance(devices, list) else devices
    if nodes != 1 or number not in ("auto", 1, "1", -1):
        count = f"{number} devices on {nodes} node{'s' * (nodes != 1)}"
        raise UserError(
            f"trainer.devices: expected 1 device on 1 node, got {count}; one run trains on one "
            "device"
        )


def refuse_nothing_to_train(trainer: dict[str, Any]) -> None:
    """Refuses what would end without a trained epoch."""
    from da.errors import UserError

    for name in ("max_epochs", "max_steps", "limit_train_batches", "limit_val_batches"):
        if trainer.get(name) == 0 and not isinstance(trainer.get(name), bool):
            raise UserError(f"trainer.{name}: expected more than 0, or no epoch is trained")
    if str(trainer.get("precision")) in ("16-true", "bf16-true"):
        precision = str(trainer["precision"])
        raise UserError(
            f"trainer.precision: the data are float32, {precision} is not for them; give "
            f"{precision.replace('true', 'mixed')}"
        )
