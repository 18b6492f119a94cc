"""Write the predicted class of every image in a folder to a CSV or JSON file.

It needs the checkpoint, or a file of export, and the images: a folder and all folders in it, or one
file. What can't be read is left out and named; the exit code is 1 then. With --stats, batch norm's
statistics are first re-estimated on unlabelled images: of the source, of the target, or the images
to predict themselves (AdaBN).

examples:
  python run.py predict last.ckpt --images photos/ --out predictions.csv
  python run.py predict last.ckpt --images photos/ --format json
  python run.py predict last.ckpt --images photos/ --stats images
  python run.py predict model.onnx --images photo.jpg      a network of export
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from da.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from da.cli._prediction_files import Prediction
    from da.types import NamedImages

OPTIONS: dict[str, dict[str, Any]] = {
    "--images": {
        "type": str | None,
        "default": None,
        "help": "folder of images, and of folders of them, or one image (required)",
    },
    "--out": {
        "type": str | None,
        "default": None,
        "help": "the file to write; by default predictions.csv or predictions.json",
    },
    "--format": {
        "type": Literal["csv", "json"],
        "default": "csv",
        "help": "a table, or JSON with the classes of each image from the most probable on",
    },
}

STATS: dict[str, dict[str, Any]] = {
    "--stats": {
        "type": Literal["source", "target", "images"] | None,
        "default": None,
        "help": "re-estimate batch norm's statistics on the training images of a domain, or on "
        "the images of --images; by default they are the checkpoint's",
    },
}

#: Bad files that are named one by one.
NAMED = 10


class Predictor(NamedTuple):
    """A network and the images that it is to be shown.

    Attributes:
        classes: their names, in the order of the logits.
        batches: of the images.
        logits: of images ``(B, C, H, W)``: ``(B, K)``.
        context: to compute in.
    """

    classes: Sequence[str]
    batches: Iterable[NamedImages]
    logits: Callable[[Tensor], Tensor]
    context: AbstractContextManager[Any] = nullcontext()


class Said(NamedTuple):
    """What is said of the files.

    Attributes:
        predictions: of those that can be read.
        unreadable: the others, and why.
        damaged: of the first, those that are damaged inside, and how.
    """

    predictions: list[Prediction]
    unreadable: dict[str, str]
    damaged: dict[str, str]


def main(argv: list[str]) -> int:
    """Writes what is predicted of each image; 1 where something could not be read."""
    from da.cli._prediction_files import as_csv, as_json
    from da.exports.base import is_exported
    from da.ops.files import write_atomically

    exported = bool(argv) and is_exported(argv[0])
    config, predictor = (of_exported if exported else of_checkpoint)(argv)
    said = predict(predictor)
    predictions, unreadable = said.predictions, said.unreadable
    classes = predictor.classes
    if config["format"] == "csv":
        text = as_csv(predictions, classes)
    else:
        text = as_json(predictions, classes, argv[0], unreadable, said.damaged)
    out = Path(config["out"] or f"predictions.{config['format']}").expanduser()
    if not predictions:
        more = f" ({len(unreadable)} files)" if len(unreadable) > 1 else ""
        raise UserError(f"no image could be read{more}: {shown(next(iter(unreadable.values())))}")
    write_atomically(out, text)
    return report(out, said)


def of_checkpoint(argv: list[str]) -> tuple[Any, Predictor]:
    """The options of a command line that names a checkpoint, and its network."""
    from da.cli._checkpoints import NetworkCLI, from_checkpoint, needs_no_data
    from da.cli._lightning import value_of
    from da.cli.test import without_batch_norm
    from da.data_sets import prepared_images
    from da.engine.evaluation import restated_statistics
    from da.networks.network import evaluating
    from da.norms import batch_norms

    of_domain = value_of("--stats", argv) in ("source", "target")
    cli, _ = from_checkpoint(
        argv,
        "run.py predict",
        __doc__ or "",
        OPTIONS | STATS,
        lambda content: not of_domain and needs_no_data(content, argv[1:]),
    )
    module, stats = cli.model, cli.config["stats"]
    if stats and not batch_norms(module.evaluated()):
        raise without_batch_norm(f"stats: '{stats}'", module)
    folder = folder_of(cli.config)
    device = module.device
    if isinstance(cli, NetworkCLI):
        size, workers = (cli.option_of_images(x) for x in ("eval_batch_size", "num_workers"))
        on = device if device.type == "cuda" else None
        batches = prepared_images(folder, cli.preparation, size or 256, workers or 0, on)
    else:
        batches = cli.data.predict_images(folder)
    shown = (batch.images for batch in batches if batch.names) if stats == "images" else None
    form = f"{stats}-stats" if stats in ("source", "target") else ""
    context = ExitStack()
    context.enter_context(cli.trainer.precision_plugin.forward_context())
    data: Any = cli.datamodule  # not asked for where there is none
    context.enter_context(restated_statistics(module, data, form, shown))
    context.enter_context(evaluating(module))
    return cli.config, Predictor(
        cli.checkpoint["classes"], batches, lambda images: module(images.to(device)), context
    )


def of_exported(argv: list[str]) -> tuple[Any, Predictor]:
    """The options of a command line that names a file of export, and its network."""
    from da.cli._options import parse, plain_parser
    from da.data_sets import prepared_images
    from da.exports.base import read_exported

    parser = plain_parser("predict", __doc__)
    parser.add_argument("network", type=str, help="a file that export wrote")
    for name, settings in OPTIONS.items():
        parser.add_argument(name, **settings)
    config = parse(parser, argv)
    network = read_exported(argv[0])
    batches = prepared_images(folder_of(config), network.about.preparation, 64)
    return config, Predictor(network.about.classes, batches, network.logits)


def folder_of(config: Any) -> str:
    """The folder or the file to predict."""
    if config["images"] is None:
        raise UserError("images: expected a folder of images or an image; give --images FOLDER")
    return str(config["images"])


def predict(predictor: Predictor) -> Said:
    """What a network says of each file."""
    import torch

    from da.cli._prediction_files import Prediction

    predictions: list[Prediction] = []
    unreadable: dict[str, str] = {}
    damaged: dict[str, str] = {}
    with predictor.context:
        for images, names, bad, inside in predictor.batches:
            unreadable |= bad
            damaged |= inside
            if not names:
                continue
            p = torch.softmax(predictor.logits(images).double(), dim=1)
            for name, row in zip(names, p, strict=True):
                if row.isfinite().all():
                    predictions.append(Prediction(name, row.tolist()))
                else:
                    unreadable[name] = f"image '{name}': the network's output is not finite"
    return Said(predictions, unreadable, damaged)


def is_utf8(name: str) -> bool:
    """Whether a name can be written as it is."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(text: str) -> str:
    """A message in one line that any terminal shows."""
    from da.cli._prediction_files import printable

    return printable(text)


def report(out: Path, said: Said) -> int:
    """Names what went wrong; the last line says what was written. Returns the exit code."""
    import sys

    odd = {one.file: one.file for one in said.predictions if not is_utf8(one.file)}
    for before, lines in (
        ("left out: ", said.unreadable),
        ("predicted all the same: ", said.damaged),
        ("name that is no UTF-8, written as ", odd),
    ):
        for line in list(lines.values())[:NAMED]:
            print(f"{before}{shown(line)}", file=sys.stderr)
        if len(lines) > NAMED:
            print(f"{before}{len(lines) - NAMED} more", file=sys.stderr)
    count = len(said.predictions)
    parts = [f"{count} image{'s' * (count != 1)}"]
    if said.unreadable:
        parts.append(f"{len(said.unreadable)} left out, as they can't be read")
    if said.damaged:
        parts.append(f"{len(said.damaged)} damaged inside")
    if odd:
        parts.append(f"{len(odd)} with an escaped name")
    print(f"written: {out} ({'; '.join(parts)})")
    return 1 if said.unreadable or odd else 0
