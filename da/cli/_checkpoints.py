"""Checkpoints that commands start from: those of fit, and networks that were trained elsewhere."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from da.cli._lightning import CLI, value_of
from da.engine.spec import canonical
from da.errors import UserError
from da.methods.base import Method
from da.networks import foreign
from da.networks.backbones.base import backbone
from da.ops.files import write_atomically
from da.ops.tensor_files import read_tensors

#: Nothing is logged or saved where nothing is trained.
TRAINER = {"logger": False, "enable_checkpointing": False}

#: Options of models that checkpoints still name; without them a model computes the same.
REMOVED = {"allow_bn_weights"}


def read_checkpoint(path: str) -> dict[str, Any]:
    """Reads a checkpoint of ``fit`` to train on, without running any code in it."""
    checkpoint = read_tensors("checkpoint", path, "give the .ckpt that fit wrote")
    if not isinstance(checkpoint, dict) or "settings" not in checkpoint:
        raise UserError(f"checkpoint: '{path}' holds no settings; it was not written by fit")
    if "optimizer_states" not in checkpoint:
        raise UserError(
            f"checkpoint: '{path}' holds a network and no training to go on with; test and predict "
            "take it"
        )
    return known(checkpoint)


def known(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint without the options that there are no more."""
    settings = checkpoint["settings"]
    model = settings["model"]
    kept = {k: v for k, v in model.get("init_args", {}).items() if k not in REMOVED}
    return {**checkpoint, "settings": {**settings, "model": {**model, "init_args": kept}}}


def load_weights(module: Method, checkpoint: dict[str, Any], path: str) -> None:
    """Puts a checkpoint's weights into a module, refusing another normaliser or class count.

    The normaliser's options are compared, too: most are in no tensor, and change the function.
    """
    saved = checkpoint["settings"]["model"]["init_args"]
    norm = saved.get("norm", "bn")
    if norm != module.hparams["norm"]:
        raise UserError(
            f"checkpoint: '{path}' was trained with norm '{norm}', the model has "
            f"'{module.hparams['norm']}'; where none is given it is the checkpoint's"
        )
    options, now = saved.get("norm_options") or {}, module.hparams["norm_options"] or {}
    if canonical(options) != canonical(now):
        raise UserError(
            f"checkpoint: '{path}' was trained with norm_options {options}, the model has {now}; "
            "where none are given they are the checkpoint's"
        )
    advice = "give the model's options as it was trained"
    load_state(module, checkpoint["state_dict"], path, advice)


def load_state(
    module: torch.nn.Module, state: dict[str, torch.Tensor], path: str, advice: str
) -> None:
    """Puts tensors into a module, refusing those that don't fit.

    Args:
        module: a method or its network, changed in place.
        state: by the module's names. ``num_batches_tracked`` came with PyTorch 0.4.1; older files
            lack it, and nothing here reads it.
        path: of the file, for the message.
        advice: ends the message.
    """
    own = module.state_dict()
    key = "classifier.weight"
    if key in state and len(state[key]) != len(own[key]):
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
    module.load_state_dict(state, strict=False)


class Foreign(CLI):
    """Builds the network that a file from elsewhere holds: the bottleneck's width is the file's.

    Args:
        args: the command line after the file.
        path: the file, for messages.
        content: what is in it.
    """

    path: str

    def __init__(self, args: list[str], path: str, content: Any, **kwargs: Any):
        self.path = path
        self.tensors = foreign.tensors_of(content, path)
        self.bottleneck = value_of("--model.bottleneck", args)
        super().__init__(args, **kwargs)

    def before_instantiate_classes(self) -> None:
        """Maps the file's tensors once the network's name is known."""
        chosen = self.config["model"]["init_args"]
        if chosen["weights"] is not None:
            raise UserError(f"weights: '{self.path}' holds the weights; leave --model.weights out")
        bare = backbone(chosen["backbone"])
        self.parts = foreign.parts(
            self.tensors, bare.state_dict(), bare.num_features, chosen["backbone"], self.path
        )
        if self.bottleneck not in (None, str(self.parts.width or "null")):
            found = self.parts.width or "none"
            raise UserError(
                f"bottleneck: '{self.path}' has {found}, the model {self.bottleneck}; leave "
                "--model.bottleneck out"
            )
        chosen["bottleneck"] = self.parts.width


def from_checkpoint(
    args: list[str], prog: str, description: str, extra: dict[str, dict[str, Any]]
) -> tuple[CLI, str]:
    """The model and the data of a checkpoint, its settings overridden by the command line.

    A file that ``fit`` did not write is taken apart by :mod:`da.networks.foreign`; its settings
    are the defaults and what the command line says.

    Args:
        args: the checkpoint's path first, then options.

    Returns:
        The parsed command, its model with the checkpoint's weights on the trainer's device, and
        the path. The command's ``checkpoint`` is one of ``fit`` also where the file is not.
    """
    if not args:
        raise UserError(f"expected the path of a checkpoint: python {prog} CHECKPOINT [options]")
    if args[0] in ("-h", "--help"):
        CLI(["--help"], f"{prog} CHECKPOINT", description, extra=extra)
    if args[0].startswith("-"):
        raise UserError(
            f"expected the path of a checkpoint first, got '{args[0]}': "
            f"python {prog} CHECKPOINT [options]"
        )
    path = args[0]
    content = read_tensors(
        "checkpoint", path, "give the .ckpt that fit wrote, or a file with a state dict"
    )
    cli: CLI
    if isinstance(content, dict) and "settings" in content and "classes" in content:
        content = known(content)
        precision = (content["settings"].get("trainer") or {}).get("precision")  # as in training
        defaults = {**TRAINER, **({"precision": precision} if precision else {})}
        cli = CLI(args[1:], prog, description, content, extra, defaults)
        load_weights(cli.model, content, path)
    else:
        cli = Foreign(
            args[1:],
            path,
            content,
            prog=prog,
            description=description,
            extra=extra,
            trainer_defaults=TRAINER,
        )
        norm = cli.model.hparams["norm"]
        advice = f"'{norm}' is not what it was trained with, or the data are others"
        load_state(cli.model.network, cli.parts.state, path, advice)
        cli.model.prepare()  # its own parts, of the network as loaded
        print(cli.parts.said)
        cli.checkpoint = {"classes": list(cli.datamodule.classes)}
    cli.model.to(cli.trainer.strategy.root_device)
    return cli, path


def save_network(path: Path, cli: CLI, statistics: str | None) -> None:
    """Writes a checkpoint of the network as it is now, atomically, with the command's settings.

    What a checkpoint of ``fit`` holds besides is kept, so that training can go on from it.

    Args:
        path: of the new file.
        cli: the command whose network it is.
        statistics: the domain whose images gave batch norm's statistics; None as trained.
    """
    settings = cli.settings()
    chosen = {key: settings[key] for key in ("model", "data", "seed_everything")}
    content = {
        **cli.checkpoint,
        "settings": {**cli.checkpoint.get("settings", {}), **chosen},
        "state_dict": {k: v.cpu() for k, v in cli.model.state_dict().items()},
    }
    if settings["data"] != cli.checkpoint.get("settings", {}).get("data"):
        for key in ("data_manifest", "data_sets"):  # they are of the images it was trained on
            content.pop(key, None)
    if statistics is not None:
        content["statistics"] = statistics
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())
