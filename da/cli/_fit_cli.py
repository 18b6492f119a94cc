"""The command line of `fit`, parsed into a specification; the engine builds what it says."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
from jsonargparse import Namespace
from pydantic import ValidationError
from pytorch_lightning.cli import LightningArgumentParser
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from da.cli._lightning import CLI, as_seed, root_cause, short, value_of
from da.engine.checkpoints import spec_of
from da.engine.spec import RunSpec
from da.engine.trainer import MethodTrainer
from da.errors import UserError
from da.selection.base import find_score


def kind_of_device(accelerator: str) -> str:
    """``cpu``, ``cuda`` or ``mps`` for what Lightning would take on this machine.

    >>> kind_of_device("cpu")
    'cpu'
    """
    if accelerator not in ("auto", "gpu"):
        return accelerator
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    return "cpu" if accelerator == "auto" else accelerator


class FitCLI(CLI):
    """Parses as :class:`CLI` and builds neither model nor data: the engine does.

    Attributes:
        spec: what is to be trained.
    """

    spec: RunSpec

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses; a logger that is given by its class alone logs into the run's folder."""
        name = SHORT_LOGGERS.get(short(value_of("--trainer.logger", args) or ""))
        alone = not any(word.startswith(("--trainer.logger.", "--logger")) for word in args)
        if name and alone:
            args = [*without_option("--trainer.logger", args), "--logger", f"csv,{name}"]
        super().parse_arguments(parser, args)

    def instantiate_classes(self) -> None:
        """Makes the specification of the settings."""
        as_seed(self.config["seed_everything"])
        trainer = self.config["trainer"]
        if isinstance(trainer["val_check_interval"], (str, dict, timedelta)):
            raise UserError(
                "trainer.val_check_interval: expected a number of batches or a share of an epoch, "
                f"got '{trainer['val_check_interval']}': evaluations at times of the clock differ "
                "from run to run"
            )
        trainer["max_time"] = as_days(trainer["max_time"])
        try:
            spec = spec_of(self.settings())
        except ValidationError as error:
            raise refused_setting(error) from None
        scores = spec.scores
        if named := self.config.get("scores"):
            scores = tuple(name.strip() for name in named.split(","))
        for name in scores:
            find_score(name)
        # The kind of device is part of what a run is; "auto" and "gpu" are none.
        self.spec = spec.model_copy(
            update={"device": kind_of_device(spec.device), "scores": scores}
        )

    def options_given(self) -> dict[str, Any]:
        """The options of the run but for its folder, as a file that ``--config`` takes."""
        left_out = ("optimizer", "lr_scheduler", "config", "out", "ckpt_path")
        return {k: v for k, v in self.settings().items() if k not in left_out}

    def trainer_options(self) -> dict[str, Any]:
        """The trainer's options by name, with callbacks and loggers as objects."""
        parser = LightningArgumentParser(exit_on_error=False)
        parser.add_class_arguments(MethodTrainer, "trainer", instantiate=False)
        given = Namespace(trainer=self.config["trainer"].clone())
        try:
            return vars(parser.instantiate_classes(given)["trainer"])
        except (ValueError, TypeError, ModuleNotFoundError, MisconfigurationException) as error:
            cause = root_cause(error)
            if isinstance(cause, UserError):
                raise cause from error
            raise UserError(f"trainer: {' '.join(str(cause).split())}") from error


#: Loggers of Lightning's that have a name of their own here.
SHORT_LOGGERS = {
    "CSVLogger": "csv",
    "TensorBoardLogger": "tensorboard",
    "WandbLogger": "wandb",
    "MLFlowLogger": "mlflow",
}


def without_option(option: str, args: list[str]) -> list[str]:
    """A command line without an option and its value.

    >>> without_option("--a", ["--a", "1", "--b", "2", "--a=3"])
    ['--b', '2']
    """
    kept, skip = [], False
    for word in args:
        if not skip and word != option and not word.startswith(f"{option}="):
            kept.append(word)
        skip = word == option and not skip
    return kept


def as_days(value: Any) -> str | None:
    """A time as Lightning takes it, ``DD:HH:MM:SS``.

    >>> as_days(timedelta(days=1, minutes=2)), as_days({"hours": 3}), as_days("00:00:00:09")
    ('01:00:02:00', '00:03:00:00', '00:00:00:09')
    """
    if value is None or isinstance(value, str):
        return value
    try:
        span = value if isinstance(value, timedelta) else timedelta(**value)
    except TypeError:
        return str(value)  # which is refused as what it is
    hours, seconds = divmod(span.seconds, 3600)
    return f"{span.days:02}:{hours:02}:{seconds // 60:02}:{seconds % 60:02}"


#: Where the settings of a specification are options, in place of ``data.``.
_PART = {"norm": "model", "norm_options": "model", "lr": "model", "trainer": "", "epochs": ""}
_NAME = {"epochs": "trainer.max_epochs", "seed": "seed_everything", "device": "trainer.accelerator"}


def refused_setting(error: ValidationError) -> UserError:
    """The first value that no specification can have, by the name of its option."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"] if isinstance(part, str)]
    if error.title == "TrainerSettings":
        path = ["trainer", *path]
    name = path[0] if path else ""
    if name in _NAME:
        option = _NAME[name]
    elif name == "trainer":
        option = ".".join(path[:2])
    else:
        option = f"{_PART.get(name, 'data')}.{name}"
    limits = first.get("ctx", {})
    expected = {
        "greater_than": "a number above {gt}",
        "greater_than_equal": "a number from {ge}",
        "literal_error": "one of {expected}",
        "finite_number": "a finite number",
    }.get(first["type"])
    said = expected.format(**limits) if expected else first["msg"][:1].lower() + first["msg"][1:]
    return UserError(f"{option}: expected {said}, got {first['input']!r}")
