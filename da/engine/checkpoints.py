"""Checkpoints of our own: what is in them, and how older ones are read."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as L
from pydantic import ValidationError
from torch import Tensor, nn

from da.engine.components import (
    defaults_of,
    find_data,
    find_method,
    name_of_data,
    name_of_method,
    parameters_of,
)
from da.engine.spec import RunSpec, TrainerSettings, canonical_json
from da.errors import UserError
from da.methods.base import Method
from da.methods.network_module import NetworkModule
from da.ops.tensor_files import read_tensors

#: Options of models that older checkpoints still name; without them a model computes the same.
REMOVED = {"allow_bn_weights"}

PARTS = ("backbone.", "bottleneck.", "classifier.")
"""Of the network, by which older checkpoints name its tensors."""

OPTIONS_OF_THE_RUN = {"num_classes", "task", "seed", "norm", "norm_options", "lr"}
"""Arguments of a method that a specification holds by themselves."""


class KeepRun(L.Callback):
    """Writes specification, classes and what the images were into every checkpoint.

    Args:
        content: what is added to a checkpoint.
    """

    def __init__(self, content: Mapping[str, Any]):
        self.content = dict(content)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Called by Lightning with what is about to be written; see :class:`KeepRun`."""
        checkpoint.update(self.content)


def is_own_checkpoint(content: Any) -> bool:
    """Whether a file holds a training or a network of this library, and not one from elsewhere."""
    return (
        isinstance(content, dict)
        and "state_dict" in content
        and ("spec" in content or ("settings" in content and "classes" in content))
    )


def read_run(path: str) -> dict[str, Any]:
    """Reads a checkpoint to train on, without running any code in it.

    Raises:
        UserError: where it is damaged, from elsewhere, or holds no training to resume.
    """
    content = read_tensors("checkpoint", path, "give the .ckpt that a training wrote")
    if not is_own_checkpoint(content):
        raise UserError(f"checkpoint: '{path}' holds no settings; it was not written by fit")
    if "optimizer_states" not in content:
        raise UserError(
            f"checkpoint: '{path}' holds a network and no training to resume; test and predict "
            "take it"
        )
    if "spec" not in content:
        raise UserError(
            f"checkpoint: '{path}' was written by an earlier version, whose trainings can't be "
            "resumed; test, predict and --model.weights take it"
        )
    return upgrade_checkpoint(content, path)


def upgrade_checkpoint(content: dict[str, Any], path: str) -> dict[str, Any]:
    """Brings a checkpoint of ours into the form that this version writes.

    Args:
        content: of the file.
        path: of it, for messages.

    Returns:
        ``spec`` is a :class:`RunSpec`; tensors of the network are named ``network.…``.
    """
    if "spec" in content:
        try:
            return {**content, "spec": RunSpec.model_validate(content["spec"])}
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise UserError(
                f"checkpoint: '{path}' holds settings that this version does not know ({place}: "
                f"{first['msg']}); use the version that wrote it"
            ) from None
    state = {
        f"network.{name}" if name.startswith(PARTS) else name: value
        for name, value in content["state_dict"].items()
    }
    settings = content["settings"]
    model = settings["model"]
    model_args = {k: v for k, v in model.get("init_args", {}).items() if k not in REMOVED}
    settings = {**settings, "model": {**model, "init_args": model_args}}
    return {**content, "spec": spec_of(settings), "state_dict": state}


def spec_of(settings: Mapping[str, Any]) -> RunSpec:
    """The specification of settings as the command line has them.

    Args:
        settings: ``model`` and ``data`` with ``class_path`` and ``init_args``,
            ``seed_everything``, and ``trainer``.
    """
    method = find_method(settings["model"]["class_path"])
    data_kind = find_data(settings["data"]["class_path"])
    args = without_defaults(settings["model"].get("init_args") or {}, method)
    shared = parameters_of(NetworkModule).keys() - OPTIONS_OF_THE_RUN
    trainer = settings.get("trainer") or {}
    trainer_settings = {
        k: trainer[k] for k in TrainerSettings.model_fields if trainer.get(k) is not None
    }
    # Null says something of these: batches are counted across epochs, gradients not clipped.
    for name in ("check_val_every_n_epoch", "gradient_clip_val"):
        if name in trainer:
            trainer_settings[name] = trainer[name]
    lr = args.get("lr")
    if lr is None:
        lr = 0.01 if args.get("weights") else 0.1
    data_args = without_defaults(settings["data"].get("init_args") or {}, data_kind)
    sizes = {**defaults_of(data_kind), **data_args}
    for name in ("source", "target", "batch_size", "steps_per_epoch", "seed"):
        data_args.pop(name, None)
    return RunSpec(
        data=name_of_data(data_kind),
        data_args=data_args,
        data_version=data_kind.version,
        source=sizes["source"],
        target=sizes["target"],
        method=name_of_method(method),
        method_args={k: v for k, v in args.items() if k not in shared | OPTIONS_OF_THE_RUN},
        norm=args.get("norm", "bn"),
        norm_options=args.get("norm_options") or {},
        model_args={k: v for k, v in args.items() if k in shared},
        lr=lr,
        batch_size=sizes["batch_size"],
        epochs=-1 if trainer.get("max_epochs") is None else trainer["max_epochs"],
        steps_per_epoch=sizes["steps_per_epoch"],
        seed=settings.get("seed_everything") or 0,
        threads=None,
        precision=full_precision(trainer.get("precision")),
        device=str(trainer.get("accelerator") or "auto"),
        trainer=TrainerSettings(**trainer_settings),
    )


def settings_of(spec: RunSpec) -> dict[str, Any]:
    """The settings of a specification as the command line has them, see :func:`spec_of`."""
    method, data = find_method(spec.method), find_data(spec.data)
    model = {
        **spec.model_args,
        **spec.method_args,
        "norm": spec.norm,
        "norm_options": spec.norm_options or None,
        "lr": spec.lr,
    }
    sizes = ("source", "target", "batch_size", "steps_per_epoch")
    return {
        "seed_everything": spec.seed,
        "model": {"class_path": f"{method.__module__}.{method.__qualname__}", "init_args": model},
        "data": {
            "class_path": f"{data.__module__}.{data.__qualname__}",
            "init_args": {**spec.data_args, **{name: getattr(spec, name) for name in sizes}},
        },
    }


#: Short spellings of Lightning's precisions.
PRECISIONS = {"16": "16-mixed", "bf16": "bf16-mixed", "32": "32-true", "64": "64-true"}


def full_precision(value: Any) -> str:
    """Lightning's precision in its full spelling.

    >>> full_precision(32), full_precision(None), full_precision("bf16-mixed")
    ('32-true', '32-true', 'bf16-mixed')
    """
    text = str(value or "32-true")
    return PRECISIONS.get(text, text)


def without_defaults(args: Mapping[str, Any], owner: type) -> dict[str, Any]:
    """The arguments that say something: those that differ from a constructor's defaults."""
    defaults = defaults_of(owner)
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in args.items()}
    return {k: v for k, v in plain.items() if k not in defaults or v != defaults[k]}


def columns_by_name(saved: Sequence[str], classes: Sequence[str], path: str) -> list[int] | None:
    """Where the data's classes stand among a checkpoint's; None where they are the same.

    Args:
        saved: names of the checkpoint's classes, in the order of its logits.
        classes: of the data.
        path: of the checkpoint, for the message.

    Raises:
        UserError: where the names are others: labels are never matched by number alone.
    """
    # An accent may be spelt in two ways, which look alike.
    saved = [unicodedata.normalize("NFC", name) for name in saved]
    classes = [unicodedata.normalize("NFC", name) for name in classes]
    if saved == classes:
        return None
    if sorted(saved) == sorted(classes):
        return [saved.index(name) for name in classes]
    missing = [name for name in classes if name not in saved]
    extra = [name for name in saved if name not in classes]
    said = "; ".join(
        f"{what}: {', '.join(names[:5])}{' …' if len(names) > 5 else ''}"
        for what, names in (("only in the data", missing), ("only in the checkpoint", extra))
        if names
    )
    raise UserError(
        f"checkpoint: '{path}' was trained on other classes than the data have ({said}); rename "
        "the data's, or give data of the same classes"
    )


def load_weights(module: Method, content: Mapping[str, Any], path: str) -> None:
    """Puts a checkpoint's tensors into a module, refusing another normaliser or class count.

    The normaliser's options are compared, too: most are in no tensor, and change the function.

    Args:
        module: changed in place.
        content: of :func:`upgrade_checkpoint`.
        path: of the file, for messages.
    """
    spec: RunSpec = content["spec"]
    if spec.norm != module.hparams["norm"]:
        raise UserError(
            f"checkpoint: '{path}' was trained with norm '{spec.norm}', the model has "
            f"'{module.hparams['norm']}'; where none is given it is the checkpoint's"
        )
    options, now = spec.norm_options, module.hparams["norm_options"] or {}
    if canonical_json(options) != canonical_json(now):
        raise UserError(
            f"checkpoint: '{path}' was trained with norm_options {options}, the model has {now}; "
            "where none are given they are the checkpoint's"
        )
    module.prepare()
    load_matching_state(
        module, content["state_dict"], path, "give the model's options as it was trained"
    )


def load_matching_state(
    module: nn.Module, state: Mapping[str, Tensor], path: str, advice: str
) -> None:
    """Puts tensors into a module, refusing those that don't fit.

    Args:
        module: changed in place.
        state: by the module's names. ``num_batches_tracked`` came with PyTorch 0.4.1; older files
            lack it, and nothing here reads it.
        path: of the file, for the message.
        advice: ends the message.
    """
    own = module.state_dict()
    for key in ("classifier.weight", "network.classifier.weight"):
        if key in state and key in own and len(state[key]) != len(own[key]):
            raise UserError(
                f"checkpoint: '{path}' has {len(state[key])} classes, the data {len(own[key])}"
            )
    wrong = [
        k
        for k in {*own, *state}
        if not (k not in state and k.endswith("num_batches_tracked"))
        and (k not in own or k not in state or own[k].shape != state[k].shape)
    ]
    if wrong:
        raise UserError(
            f"checkpoint: '{path}' does not fit the model ({len(wrong)} tensors differ, first "
            f"{min(wrong)}); {advice}"
        )
    module.load_state_dict(dict(state), strict=False)
