"""Names of the options of fit, test and predict: wrong ones are refused with the right ones."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable

from da.errors import UserError, unknown

#: Options of model and data that nobody gives: what sets them instead.
LINKED = {"num_classes": "the data", "task": "the data", "seed": "--seed_everything"}

#: What options are called elsewhere.
ELSEWHERE = {
    "arch": "model.backbone",
    "batch": "data.batch_size",
    "bs": "data.batch_size",
    "checkpoint": "ckpt_path",
    "dataset": "data",
    "device": "trainer.accelerator",
    "epoch": "trainer.max_epochs",
    "epochs": "trainer.max_epochs",
    "gpus": "trainer.accelerator",
    "iters": "trainer.max_steps",
    "learning_rate": "model.lr",
    "method": "model",
    "normaliser": "model.norm",
    "normalizer": "model.norm",
    "output": "out",
    "output_dir": "out",
    "resume": "ckpt_path",
    "seed": "seed_everything",
    "steps": "trainer.max_steps",
    "wd": "model.weight_decay",
    "workers": "data.num_workers",
}

#: Options that decide a training alone, or where a network starts from.
OF_TRAINING = {
    "model": {
        *("weights", "conversion", "conversion_images", "lr", "pretrained_factor", "optimizer"),
        *("momentum", "weight_decay", "decay", "anneal_alpha", "anneal_beta", "warmup", "horizon"),
    },
    "data": {"steps_per_epoch", "balanced"},
}

#: Options of the trainer that matter where nothing is trained.
WITHOUT_TRAINING = {
    *("accelerator", "devices", "num_nodes", "precision", "deterministic", "benchmark"),
    *("enable_progress_bar", "enable_model_summary", "enable_checkpointing", "logger"),
}

#: Words of the parser's own behind the name of a part.
_OF_THE_PARSER = {"class_path", "init_args", "dict_kwargs", "help"}


def options(chosen: type) -> list[str]:
    """The options that a class and its parents take, but for those that are linked."""
    names = {
        name
        for parent in chosen.__mro__
        if parent.__module__.partition(".")[0] not in ("torch", "pytorch_lightning", "builtins")
        and "__init__" in vars(parent)
        for name, parameter in inspect.signature(vars(parent)["__init__"]).parameters.items()
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }
    return sorted(names - {"self", *LINKED})


def trainer_options(trainer: type) -> list[str]:
    """The options of a trainer, and of Lightning's that it extends."""
    names = {
        name
        for parent in trainer.__mro__
        if "__init__" in vars(parent) and parent is not object
        for name in inspect.signature(vars(parent)["__init__"]).parameters
    }
    return sorted(names - {"self", "args", "kwargs"})


def refuse_training_options(names: Iterable[str], command: str) -> None:
    """Refuses options that a command which trains nothing could not heed.

    Args:
        names: of options as given on the command line, ``"model.lr"``; those of a file pass, since
            it may be that of a training.
        command: ``"test"``.
    """
    for name in names:
        part, *rest = [word for word in name.rstrip("+").split(".") if word not in _OF_THE_PARSER]
        option = rest[0] if rest else ""
        trains = option and (
            option not in WITHOUT_TRAINING
            if part == "trainer"
            else option in OF_TRAINING.get(part, ())
        )
        if trains:
            raise UserError(
                f"{part}.{option}: {command} starts from a checkpoint and trains nothing; leave "
                "it out"
            )


def refuse_unknown_options(
    names: Iterable[str], parts: dict[str, Collection[str]], top: Collection[str]
) -> None:
    """Refuses options that don't exist.

    Args:
        names: of options as given, ``"model.init_args.lr"``.
        parts: the options of ``model``, ``data`` and ``trainer``; a part whose class is not known
            is left out, and what is given for it passes.
        top: the options of the command itself.
    """
    for name in names:
        first, *rest = name.rstrip("+").split(".")
        if first not in {*top, "model", "data", "trainer", "help", "print_config", "h", "c"}:
            raise unknown_option(name, parts, top)
        if first not in parts or not rest:
            continue
        inner = rest[1:] if rest[0] in ("init_args", "dict_kwargs") else rest
        if not inner or inner[0].rstrip("+") in {*parts[first], *_OF_THE_PARSER, *LINKED}:
            continue
        option = f"{first}.{inner[0]}"
        raise unknown("option", option, [f"{first}.{known}" for known in parts[first]])


def unknown_option(name: str, parts: dict[str, Collection[str]], top: Collection[str]) -> UserError:
    """The error for an option that is none, which may be one of a part without the part's name."""
    bare = name.replace("-", "_")
    right = [f"{part}.{bare}" for part in parts if bare in parts[part]]
    if bare in ELSEWHERE:
        right = [ELSEWHERE[bare]]
    if right:
        return UserError(f"unknown option '{name}'; did you mean '--{right[0]}'?")
    first = name.partition(".")[0]
    return unknown("option", name if first in top else first, {*top, "model", "data", "trainer"})
