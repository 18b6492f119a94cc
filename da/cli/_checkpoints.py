"""Checkpoints that commands start from: those of fit, and networks that were trained elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from da.cli._lightning import CLI, value_of
from da.cli._messages import given
from da.cli._option_names import refuse_training_options
from da.engine.checkpoints import (
    is_own_checkpoint,
    load_matching_state,
    load_weights,
    spec_of,
    upgrade_checkpoint,
)
from da.engine.components import find_method
from da.errors import UserError
from da.networks.backbones.base import build_backbone, without_weights
from da.networks.external_networks import map_network, order_of_numbers
from da.networks.weight_files import unwrap_tensors
from da.ops.files import split_choice
from da.ops.image_preparation import ImagePreparation, preparation_of
from da.ops.tensor_files import read_tensors, write_checkpoint

ADVICE = "give the .ckpt that fit wrote, or a file of torch.save(network.state_dict(), FILE)"

#: Nothing is logged or saved where nothing is trained.
TRAINER = {"logger": False, "enable_checkpointing": False}


class ExternalNetworkCLI(CLI):
    """Builds the network that a file from elsewhere holds: the bottleneck's width is the file's.

    Args:
        args: the command line after the file.
        path: the file, for messages.
        content: what is in it.
    """

    path: str

    def __init__(self, args: list[str], path: str, content: Any, **kwargs: Any):
        self.path = path
        self.tensors = unwrap_tensors(content, "checkpoint", path, ADVICE)
        self.bottleneck = value_of("--model.bottleneck", args)
        super().__init__(args, **kwargs)

    def before_instantiate_classes(self) -> None:
        """Maps the file's tensors once the network's name is known."""
        chosen = self.config["model"]["init_args"]
        if chosen["weights"] is not None:
            raise UserError(f"weights: '{self.path}' holds the weights; leave --model.weights out")
        bare = build_backbone(chosen["backbone"])
        self.parts = map_network(
            self.tensors, bare.state_dict(), bare.num_features, chosen["backbone"], self.path
        )
        if self.bottleneck not in (None, str(self.parts.width or "null")):
            found = self.parts.width or "none"
            raise UserError(
                f"bottleneck: '{self.path}' has {found}, the model {self.bottleneck}; leave "
                "--model.bottleneck out"
            )
        chosen["bottleneck"] = self.parts.width


#: Options of data that say how image files are read: they need no data set.
OF_IMAGES = {*ImagePreparation._fields, "eval_batch_size", "num_workers", "skip_unreadable"}


class NetworkCLI(CLI):
    """Builds the network of a checkpoint alone: the data that it was trained on may be elsewhere.

    Attributes:
        preparation: of images, as in training unless the command line says otherwise.
    """

    preparation: ImagePreparation

    def instantiate_classes(self) -> None:
        """Builds model and trainer; classes and task are the checkpoint's."""
        chosen, spec = self.config["model"], self.checkpoint["spec"]
        args = {**chosen["init_args"].as_dict()}
        args |= {"num_classes": len(self.checkpoint["classes"]), "task": spec.task}
        with without_weights():
            self.model = find_method(chosen["class_path"])(**args)
        self.datamodule = None
        self.config_init = self.config
        self.trainer = self.instantiate_trainer()

    def option_of_images(self, name: str) -> Any:
        """The value of an option of the data, ``"eval_batch_size"``; None where it has none."""
        return self.config["data"]["init_args"].get(name)

    def prepare_as_given(self, args: list[str], path: str) -> None:
        """Takes the checkpoint's preparation, and over it what a command line says."""
        saved = preparation_of(self.checkpoint["preparation"], path)
        names = {name.rpartition(".")[2] for name in given(args) if name.startswith("data.")}
        names &= {*saved._fields}
        new = {name: self.option_of_images(name) for name in names}
        new = {k: tuple(v) if isinstance(v, list) else v for k, v in new.items() if v is not None}
        if "image_size" in new and "resize" not in new:
            new["resize"] = round(saved.resize * new["image_size"] / saved.image_size)
        self.preparation = saved._replace(**new)
        if not 0 < self.preparation.image_size <= self.preparation.resize:
            raise UserError(
                f"image_size is {self.preparation.image_size}: it must be 1 to "
                f"{self.preparation.resize} (resize)"
            )


def needs_no_data(content: dict[str, Any], args: list[str]) -> bool:
    """Whether a checkpoint and a command line say all that a network and its images need."""
    names = [name.split(".") for name in given(args)]
    of_data = {parts[-1] for parts in names if parts[0] == "data"}
    files = any(parts[0] in ("config", "print_config") for parts in names)
    return "preparation" in content and not files and of_data <= OF_IMAGES


def from_checkpoint(
    args: list[str],
    prog: str,
    description: str,
    extra: dict[str, dict[str, Any]],
    alone: Callable[[dict[str, Any]], bool] = lambda content: False,
) -> tuple[CLI, str]:
    """The model and the data of a checkpoint, its settings overridden by the command line.

    A file that ``fit`` did not write is taken apart by :mod:`da.networks.external_networks`; its
    settings are the defaults and what the command line says.

    Args:
        args: the checkpoint's path first, then options.
        prog: what the help calls the program.
        description: of the help.
        extra: options of the command's own.
        alone: says of the content of a checkpoint of ``fit`` whether its data are left alone; then
            there is a :class:`NetworkCLI`.

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
    command = prog.removeprefix("run.py ")
    if Path(path).is_dir():
        raise UserError(
            f"checkpoint: '{path}' is a folder; give the file, such as {path}/last.ckpt"
        )
    content = read_tensors("checkpoint", split_choice(path)[0], ADVICE)
    cli: CLI
    if is_own_checkpoint(content) and split_choice(path)[1] is None:
        content = upgrade_checkpoint(content, path)
        defaults = {**TRAINER, "precision": content["spec"].precision}  # as in training
        kind = NetworkCLI if alone(content) else CLI
        cli = kind(args[1:], prog, description, content, extra, defaults)
        if isinstance(cli, NetworkCLI):
            cli.prepare_as_given(args[1:], path)
        load_weights(cli.model, content, path)
    else:
        cli = ExternalNetworkCLI(
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
        load_matching_state(cli.model.network, cli.parts.state, path, advice)
        cli.model.prepare()  # its own parts, of the network as loaded
        print(cli.parts.said)
        if word := order_of_numbers(cli.data.classes):
            print(word)
        cli.checkpoint = {"classes": list(cli.data.classes)}
    refuse_training_options(given(args[1:]), command)
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
    spec = spec_of(cli.settings())
    before = cli.checkpoint.get("spec")
    if before is not None:  # what the command line has no option for
        kept = ("epochs", "trainer", "device", "threads", "precision", "forms", "scores")
        spec = spec.model_copy(update={name: getattr(before, name) for name in kept})
    content = {
        **cli.checkpoint,
        "spec": spec.model_dump(mode="json"),
        "state_dict": {k: v.cpu() for k, v in cli.model.state_dict().items()},
    }
    content.pop("preparation", None)
    if (preparation := cli.data.preparation) is not None:
        content["preparation"] = preparation.as_dict()
    if before is None or (spec.data, spec.data_args, spec.task) != (
        before.data,
        before.data_args,
        before.task,
    ):
        for key in ("data_manifest", "data_sets"):  # they are of the images it was trained on
            content.pop(key, None)
    if statistics is not None:
        content["statistics"] = statistics
    write_checkpoint(path, content)
