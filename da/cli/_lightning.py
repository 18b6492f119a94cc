"""What fit, test and predict share: LightningCLI in subclass mode, with errors in one line."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as L
import yaml
from jsonargparse import set_loader
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from da.cli._messages import (
    configurations,
    dotted_keys,
    given,
    readable,
    refuse_linked,
    refuse_no_value,
)
from da.cli._option_names import options, refuse_unknown_options, trainer_options
from da.cli._packaged_settings import (
    read_settings,
    with_importable_names,
    with_packaged_configs,
)
from da.cli._published import without_grids
from da.data_sets import as_data_module, data_sets
from da.engine.checkpoints import settings_of
from da.engine.components import available_methods, find_data, find_method
from da.engine.trainer import MethodTrainer
from da.errors import UserError
from da.installation import DATA_SETS, as_called, importable_name
from da.methods.base import Method
from da.networks.backbones.base import without_weights
from da.networks.preprocessing import adopt_preprocessing
from da.types import DataModule

#: Defaults that a run starts from; everything can be overridden.
DEFAULT_MODEL = "da.methods.source_only.SourceOnly"
DEFAULT_DATA = f"{DATA_SETS}.digits.Digits"
DEFAULT_EPOCHS = 10

TOP_LEVEL = ("config", "model", "data", "trainer", "seed_everything")


class CLI(LightningCLI):
    """Parses model, data and trainer; nothing is run. Bad input is one line and exit code 2.

    Args:
        args: the command line after the command's name.
        checkpoint: a checkpoint whose settings are the defaults.
        extra: options of the command's own, ``{"--images": {"type": str, …}}``.
        prog: what the help calls the program.

    Attributes:
        path: the file from elsewhere that the weights are in, if any.
    """

    path: str | None = None

    def __init__(
        self,
        args: list[str],
        prog: str,
        description: str,
        checkpoint: dict[str, Any] | None = None,
        extra: dict[str, dict[str, Any]] | None = None,
        trainer_defaults: dict[str, Any] | None = None,
    ):
        self.checkpoint = checkpoint or {}
        self.extra = extra or {}
        known: dict[str, dict[str, type]] = {
            "model": available_methods(),
            "data": data_sets(),
        }  # so that short names are known
        set_loader("yaml", read_settings, exceptions=(yaml.YAMLError,))
        quiet()
        try:
            super().__init__(
                Method,
                L.LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                trainer_class=MethodTrainer,
                run=False,
                save_config_callback=None,
                seed_everything_default=0,
                args=args,
                trainer_defaults=trainer_defaults,
                parser_kwargs={
                    "prog": as_called(f"python {prog}"),
                    "description": as_called(description),
                    "exit_on_error": False,
                    "allow_abbrev": False,
                    "formatter_class": argparse.RawDescriptionHelpFormatter,
                },
            )
        except argparse.ArgumentError as error:
            raise (
                refuse_no_value(str(error), args) or readable(str(error), known, self.top())
            ) from error
        except ValueError as error:
            # jsonargparse tries a class as one type among several and reports that none fits.
            raise root_cause(error) from error

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Links what model and data share, and sets the defaults."""
        parser.link_arguments(
            "data.num_classes", "model.init_args.num_classes", apply_on="instantiate"
        )
        parser.link_arguments("data.task", "model.init_args.task", apply_on="instantiate")
        for part in ("model", "data"):
            parser.link_arguments("seed_everything", f"{part}.init_args.seed", compute_fn=as_seed)
        for option, settings in self.extra.items():
            parser.add_argument(option, **settings)
        defaults: dict[str, Any] = {"model": DEFAULT_MODEL, "data": DEFAULT_DATA}
        if self.checkpoint:
            defaults = settings_of(self.checkpoint["spec"])
        parser.set_defaults(defaults)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Refuses misspelt names of methods and data sets with the right ones, then parses."""
        finders: dict[str, Any] = {"--model": find_method, "--data": find_data}
        for option, find in finders.items():
            name = value_of(option, args)
            # What is no name is a file or settings, which the parser reads.
            if name and is_name(name) and not Path(name).exists():
                find(name)
        args = without_grids(with_importable_names(with_packaged_configs(args)), value_of)
        files = configurations(args)
        named = [*given(args), *(key for content in files for key in dotted_keys(content))]
        refuse_linked(named)
        refuse_unknown_options(named, self.options_of_parts(args, files), self.top())
        # What is set for one data set by default says nothing of another: not its domains, not
        # its image sizes.
        saved = self.checkpoint["spec"].data if self.checkpoint else None
        chosen = data_class(args, files)
        if chosen and short(chosen) != short(saved or DEFAULT_DATA):
            parser.set_defaults({"data": chosen})
        super().parse_arguments(parser, args)
        trainer = self.config["trainer"]
        if trainer["max_epochs"] is None and trainer["max_steps"] == -1 and not trainer["max_time"]:
            trainer["max_epochs"] = DEFAULT_EPOCHS

    def top(self) -> list[str]:
        """The options of the command itself, and the names of the parts."""
        return [*TOP_LEVEL, *(option.lstrip("-") for option in self.extra)]

    def options_of_parts(
        self, args: list[str], files: list[dict[str, Any]]
    ) -> dict[str, Collection[str]]:
        """The options of model, data and trainer; a class that there is not has none."""
        saved = settings_of(self.checkpoint["spec"]) if self.checkpoint else {}
        parts: dict[str, Collection[str]] = {"trainer": trainer_options(MethodTrainer)}
        finders: dict[str, Any] = {"model": find_method, "data": find_data}
        defaults = {"model": DEFAULT_MODEL, "data": DEFAULT_DATA}
        for part, find in finders.items():
            name = class_named(part, args, files)
            name = name or saved.get(part, {}).get("class_path") or defaults[part]
            with suppress(UserError):  # said by the parser, in its place
                parts[part] = options(find(name))
        return parts

    def instantiate_classes(self) -> None:
        """Builds model, data and trainer; starting weights are not read where a state follows."""
        with (
            without_weights() if self.checkpoint or self.config.get("ckpt_path") else nullcontext()
        ):
            super().instantiate_classes()
        chosen = self.model.hparams
        adopt_preprocessing(self.data, chosen["backbone"], chosen["weights"] or self.path)

    @property
    def data(self) -> DataModule:
        """The data module, which ``datamodule`` is to Lightning."""
        return as_data_module(self.datamodule)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """The trainer; what it refuses is the user's to mend."""
        try:
            return super().instantiate_trainer(**kwargs)
        except UserError:
            raise
        except (ValueError, MisconfigurationException) as error:
            raise UserError(f"trainer: {' '.join(str(error).split())}") from error

    def settings(self) -> dict[str, Any]:
        """The resolved settings as plain values, to be kept in checkpoints and beside results."""
        text = self.parser.dump(self.config, skip_link_targets=True, skip_none=False)
        return yaml.safe_load(text)


def short(name: str) -> str:
    """The name of a class without its module."""
    return name.rpartition(".")[2]


def data_class(args: list[str], files: list[dict[str, Any]]) -> str | None:
    """The dotted name of the data set that a command line or the last of its files names.

    None where there is no such data set: the parser says so.
    """
    named = class_named("data", args, files)
    kind = data_sets().get(short(named)) if isinstance(named, str) else None
    dotted = f"{kind.__module__}.{kind.__qualname__}" if kind else None
    return dotted if named in (dotted, short(dotted or "")) else None


def class_named(part: str, args: list[str], files: list[dict[str, Any]]) -> str | None:
    """The class that a command line or the last of its files names for ``model`` or ``data``."""
    named = value_of(f"--{part}", args) or value_of(f"--{part}.class_path", args)
    for content in reversed(files):
        value = content.get(part, content.get(f"{part}.class_path"))
        named = named or (value.get("class_path") if isinstance(value, dict) else value)
    return importable_name(named) if isinstance(named, str) else None


def value_of(option: str, args: list[str]) -> str | None:
    """The value that an option has on a command line, the last one given."""
    found = None
    for i, word in enumerate(args):
        if word == option and i + 1 < len(args):
            found = args[i + 1]
        elif word.startswith(option + "="):
            found = word.partition("=")[2]
    return found


def is_name(text: str) -> bool:
    """Whether a text is the name of a class, short or dotted.

    >>> is_name("DANN"), is_name("my_package.bnm.BNM"), is_name("{class_path: DANN}")
    (True, True, False)
    """
    return all(part.isidentifier() for part in text.split("."))


def as_seed(value: Any) -> int:
    """The seed of model and data from ``--seed_everything``."""
    if isinstance(value, bool) or value is None:
        raise UserError(f"seed_everything: expected an integer such as 0, got {value}")
    if not 0 <= value < 2**32:
        raise UserError(f"seed_everything: expected an integer from 0 to 2^32 - 1, got {value}")
    return int(value)


def root_cause(error: BaseException) -> BaseException:
    """The user's error that an exception goes back to, or else the first of its chain."""
    while not isinstance(error, UserError) and (error.__cause__ or error.__context__):
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return error


class Bar(RichProgressBar):
    """Lightning's progress bar without the number of a logger's version."""

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> Any:
        """What stands beside the bar."""
        return {k: v for k, v in super().get_metrics(trainer, pl_module).items() if k != "v_num"}


class EpochLines(L.Callback):
    """One plain line per epoch, for logs and pipes."""

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Prints it."""
        values = {k: v for k, v in trainer.callback_metrics.items() if not k.endswith("_step")}
        text = ", ".join(f"{name} {value:.4g}" for name, value in sorted(values.items()))
        of = f"/{trainer.max_epochs}" if (trainer.max_epochs or 0) > 0 else ""
        print(f"epoch {trainer.current_epoch + 1}{of}: {text}", flush=True)


def quiet() -> None:
    """Keeps Lightning's advice out of the way; warnings that concern the run stay."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in (
        ".*LightningCLI's args parameter.*",
        ".*exists and is not empty.*",
        ".*The dirpath has changed.*",
        ".*does not have many workers.*",
        ".*isinstance.treespec.*",
        ".*tensorboardX.*",
        ".*smaller than the logging interval.*",
        ".*You have overridden .on_after_batch_transfer.*",
        "(?s).*Unable to serialize instance.*",
    ):
        warnings.filterwarnings("ignore", text)


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM ends the run with 143 and Ctrl-C with 130; Lightning alone would give 0 and 1."""
    received: list[int] = []

    def terminate(*_: Any) -> None:
        received.append(signal.SIGTERM)
        sys.exit(143)

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except SystemExit as stop:
        if stop.code != 143 or not received:
            raise KeyboardInterrupt from stop
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
