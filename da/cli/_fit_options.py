"""What `fit` makes of the trainer's options: each works, or is refused by name before anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from da.cli._fit_cli import FitCLI

#: Options that decide what is computed: a run's specification holds them.
OF_THE_SPEC = {
    "max_epochs": "length of the training; -1 with max_steps or max_time",
    "max_steps": "length in updates",
    "max_time": "DD:HH:MM:SS, ends the training where max_epochs has not",
    "min_epochs": "no early stopping before",
    "min_steps": "no early stopping before",
    "precision": "32-true, bf16-mixed, 16-mixed, 64-true",
    "accelerator": "cpu, gpu, mps, auto",
    "gradient_clip_val": "largest norm (or value) of the gradient",
    "gradient_clip_algorithm": "norm or value",
    "accumulate_grad_batches": "batches whose gradients are averaged for one update",
    "check_val_every_n_epoch": "epochs between evaluations; the end is always evaluated",
    "val_check_interval": "batches (or share of an epoch) between evaluations",
    "deterministic": "only deterministic algorithms",
    "benchmark": "let cuDNN choose its fastest algorithms",
    "detect_anomaly": "stop where a gradient is not a number",
}

#: Options that change nothing of what is computed.
OF_THE_TRAINER = {
    "callbacks": "of Lightning by class name: EarlyStopping, ModelCheckpoint, and others",
    "logger": "one of Lightning's loggers, with its own options; --logger is shorter",
    "enable_checkpointing": "false: no last.ckpt",
    "enable_progress_bar": "false: no bar, no line per epoch",
    "enable_model_summary": "true: print the parts of the network and their sizes",
    "enable_autolog_hparams": "false: loggers get no hyperparameters",
    "log_every_n_steps": "steps between logged losses",
    "num_sanity_val_steps": "batches of an evaluation before training, to see that it works",
    "profiler": "simple, advanced, pytorch: a file in the run's folder",
    "inference_mode": "false: evaluate under no_grad instead",
    "fast_dev_run": "one batch (or so many) through everything; nothing is written",
}

_ONE_DEVICE = "one run trains on one device; leave it out, and start one run per device"

#: Options that can't be heeded unless they have one of these values: why, and what to do.
REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "strategy": (("auto",), _ONE_DEVICE),
    "sync_batchnorm": ((False,), f"there is nothing to synchronise: {_ONE_DEVICE}"),
    "use_distributed_sampler": ((True,), f"there is no sampler for several: {_ONE_DEVICE}"),
    "plugins": (
        (None,),
        "the trainer has its own, for one process and for verified checkpoints; leave it out",
    ),
    "barebones": (
        (False,),
        "it leaves out evaluation and checkpoints, and a run is nothing else; to measure the "
        "speed of a step use bench step",
    ),
    "reload_dataloaders_every_n_epochs": (
        (0,),
        "the order of images follows from seed and step, and nothing is loaded again; leave it out",
    ),
    "default_root_dir": ((None,), "the folder of a run is named by --out"),
    "limit_test_batches": ((None, 1.0), "nothing is tested in fit; leave it out"),
    "limit_predict_batches": ((None, 1.0), "nothing is predicted in fit; leave it out"),
    "model_registry": ((None,), "checkpoints stay in the run's folder; leave it out"),
    # Their reasons are those of the settings, for grids as well.
    "limit_train_batches": ((None, 1.0), "give --data.steps_per_epoch, a number of batches"),
    "limit_val_batches": (
        (None, 1.0),
        "an accuracy is of all images of a split; evaluate less often instead "
        "(--trainer.check_val_every_n_epoch), or give --trainer.fast_dev_run true for a look",
    ),
    "overfit_batches": (
        (0, 0.0, None),
        "no batch is repeated here, each is drawn anew by seed and step; to see a network "
        "overfit, train on a folder or a list of few images",
    ),
}

#: Options of which some values are refused, each by a function of its own below.
COUNTED = {"devices", "num_nodes"}

_PASSED = (
    "log_every_n_steps",
    "num_sanity_val_steps",
    "inference_mode",
    "enable_autolog_hparams",
)


def checked_options(cli: FitCLI) -> dict[str, Any]:
    """The keyword arguments of :meth:`Training.trainer`: callbacks, logger, checkpoints, options.

    ``logger`` is a function of the run's folder, and ``profiler`` of the options is one as well.

    Raises:
        UserError: for an option that could not be heeded.
    """
    from da.engine.loggers import logger_names
    from da.engine.trainer_settings import refuse_callbacks, refuse_trainer_settings

    refuse_what_is_not_heeded(cli.config["trainer"])
    refuse_trainer_settings(cli.spec)
    names = logger_names(cli.config["logger"])
    trainer = cli.trainer_options()
    callbacks = trainer.get("callbacks") or []
    callbacks = list(callbacks) if isinstance(callbacks, list) else [callbacks]
    refuse_callbacks(callbacks)
    if trainer.get("enable_model_summary"):
        from pytorch_lightning.callbacks import RichModelSummary

        callbacks.append(RichModelSummary())
    return {
        "callbacks": callbacks,
        "logger": logger_of(names, trainer.get("logger")),
        "keep": trainer.get("enable_checkpointing") is not False,
        "options": {name: trainer[name] for name in _PASSED if trainer.get(name) is not None},
        "profiler": trainer.get("profiler"),
        "bar": trainer.get("enable_progress_bar") is not False,
        "batches": int(trainer.get("fast_dev_run") or 0),
    }


def refuse_all_but_the_spec(cli: FitCLI, reason: str) -> None:
    """Refuses options of the trainer that are not of the specification, for who heeds no other.

    Args:
        cli: what was parsed.
        reason: why they are not heeded.

    Raises:
        UserError: for the first that has another value than its default.
    """
    from da.engine.trainer import DEFAULTS
    from da.engine.trainer_settings import refuse_trainer_settings
    from da.errors import UserError

    refuse_what_is_not_heeded(cli.config["trainer"])
    refuse_trainer_settings(cli.spec)
    for name in OF_THE_TRAINER:
        if name in DEFAULTS and cli.config["trainer"][name] != DEFAULTS[name]:
            raise UserError(f"trainer.{name}: {reason}; leave it out")


def logger_of(names: list[str], given: Any) -> Callable[[Path], list[Any]]:
    """Makes the loggers of a run's folder: those of ``--logger`` and of ``--trainer.logger``."""
    from da.engine.loggers import loggers

    def make_loggers(out: Path) -> list[Any]:
        if given is False:
            return []
        others = [] if given in (None, True) else given if isinstance(given, list) else [given]
        return [*loggers(names, out), *others]

    return make_loggers


def profiler_of(given: Any, out: Path) -> Any:
    """Lightning's profilers by name write into the run's folder; others are as they were made."""
    from pytorch_lightning.profilers import AdvancedProfiler, PyTorchProfiler, SimpleProfiler

    kinds: dict[str, Any] = {
        "simple": SimpleProfiler,
        "advanced": AdvancedProfiler,
        "pytorch": PyTorchProfiler,
    }
    if not isinstance(given, str):
        return given
    return kinds[given](dirpath=out, filename="profile")


def refuse_what_is_not_heeded(trainer: Any) -> None:
    """Refuses options of the trainer by name.

    Args:
        trainer: its options as the parser has them.
    """
    from da.errors import UserError, unknown

    refuse_several_devices(trainer)
    for name, (allowed, reason) in REFUSED.items():
        value = trainer.get(name)
        if not any(type(value) is type(one) and value == one for one in allowed):
            raise UserError(f"trainer.{name}: {reason}")
    profiler = trainer.get("profiler")
    if isinstance(profiler, str) and profiler not in ("simple", "advanced", "pytorch"):
        raise unknown("trainer.profiler", profiler, ["simple", "advanced", "pytorch"])
    batches = trainer.get("fast_dev_run")
    if not isinstance(batches, bool) and (batches or 0) < 0:
        raise UserError(
            f"trainer.fast_dev_run: expected true or a number of batches, got {batches}"
        )
    refuse_precision(trainer.get("precision"))


def refuse_several_devices(trainer: Any) -> None:
    """The streams of the data are those of one process, and a training is one process."""
    from da.errors import UserError

    devices, nodes = trainer.get("devices", "auto"), trainer.get("num_nodes") or 1
    number = len(devices) if isinstance(devices, list) else devices
    if nodes != 1 or number not in ("auto", 1, "1", -1, "-1"):
        count = f"{number} devices on {nodes} node{'s' * (nodes != 1)}"
        raise UserError(
            f"trainer.{'devices' if nodes == 1 else 'num_nodes'}: expected 1 device on 1 node, got "
            f"{count}; {_ONE_DEVICE}"
        )


def refuse_precision(given: Any) -> None:
    """Refuses weights of half precision."""
    from da.errors import UserError

    if str(given) in ("16-true", "bf16-true", "transformer-engine", "transformer-engine-float16"):
        mixed = "16-mixed" if str(given) == "16-true" else "bf16-mixed"
        raise UserError(
            f"trainer.precision: the data are float32, {given} is not for them; give {mixed}"
        )
