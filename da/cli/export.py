"""Write a trained network as a file that other programs load, checked against the original.

WeightAlign and batch norm are folded into plain layers. The file and FILE.json beside it say which
classes it tells apart and how images are prepared. It is compared with the checkpoint's network on
images of the target, or on those of --images, before it is written.

formats:
  onnx           for ONNX Runtime; pip install onnx onnxscript onnxruntime
  torch-export   a program of torch.export (.pt2), which runs without the code of the network
  safetensors    tensors under the names of torchvision or timm
  torch          the same as a file of torch.save

examples:
  python run.py export runs/wa/last.ckpt --format onnx --out office.onnx
  python run.py export last.ckpt --format safetensors --images photos/
  python run.py predict office.onnx --images photos/
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from da.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from da.engine.spec import RunSpec
    from da.methods.base import Method
    from da.ops.image_preparation import ImagePreparation
    from da.types import DataModule


def main(argv: list[str]) -> int:
    """Writes the file and what it says of itself; says how it was checked."""
    from da.cli._options import parse, plain_parser

    parser = plain_parser("export", __doc__)
    parser.add_argument("checkpoint", type=str, help="the .ckpt that fit wrote")
    parser.add_argument(
        "--format", type=str, default="onnx", help="onnx, torch-export, safetensors or torch"
    )
    parser.add_argument("--out", type=str, help="the file; by default beside the checkpoint")
    parser.add_argument("--images", type=str, help="folder of images, or one, to check it on")
    parser.add_argument("--root", type=str, help="folder of the data, where it has moved")
    options = parse(parser, argv)

    from da.exports.base import About, export_format
    from da.exports.exporting import TOLERANCE, export_network

    form = export_format(options.format)
    path = options.checkpoint
    content = read_network(path)
    out = output_file(options.out, path, form.suffix, form.name)
    spec: RunSpec = content["spec"]
    module = build_network(content, path)
    preparation, images, of = images_to_check(content, module, options)
    about = About(tuple(content["classes"]), preparation, facts(content, module, form.name))
    compared = export_network(module, about, images, form, out)
    count = f"{compared.images} image{'s' * (compared.images != 1)}"
    print(
        f"checked on {count} ({of}), together and one alone: outputs differ by at most "
        f"{compared.difference:.1e} ({TOLERANCE:.0e} is allowed)"
    )
    size = preparation.image_size
    what = f"{spec.norm}, {len(about.classes)} classes, images of 3 × {size} × {size}"
    print(f"written: {out}, {out.name}.json ({what})")
    return 0


def read_network(path: str) -> dict[str, Any]:
    """The content of a checkpoint of ours."""
    from da.engine.checkpoints import is_own_checkpoint, upgrade_checkpoint
    from da.ops.tensor_files import read_tensors

    if Path(path).is_dir():
        raise UserError(
            f"checkpoint: '{path}' is a folder; give the file, such as {path}/last.ckpt"
        )
    content = read_tensors("checkpoint", path, "give the .ckpt that fit wrote")
    if not is_own_checkpoint(content):
        raise UserError(
            f"checkpoint: '{path}' was not written by fit; with the options of the network that "
            f"it holds, python run.py test {path} --forms trained --save NEW.ckpt makes one"
        )
    return upgrade_checkpoint(content, path)


def build_network(content: dict[str, Any], path: str) -> Method:
    """The method of a checkpoint with its weights, on the CPU."""
    from da.engine.checkpoints import load_weights
    from da.engine.components import build_method
    from da.networks.backbones.base import without_weights

    spec: RunSpec = content["spec"]
    with without_weights():
        module = build_method(spec, len(content["classes"]), spec.task)
    load_weights(module, content, path)
    return module


def output_file(name: str | None, checkpoint: str, suffix: str, form: str) -> Path:
    """The file to write, refused where it would overwrite, or be taken for another format."""
    out = Path(name or Path(checkpoint).with_suffix(suffix)).expanduser()
    if out.suffix.lower() != suffix:
        raise UserError(f"out: a file of format {form} ends in {suffix}, got '{name}'")
    if out.exists():
        raise UserError(f"out: '{out}' exists; name a new file, or remove it")
    return out


def images_to_check(
    content: dict[str, Any], module: Method, options: Any
) -> tuple[ImagePreparation, Tensor, str]:
    """How images are prepared, those that the file is compared on, and what they are, in words."""
    from da.data_sets import prepared_images
    from da.exports.exporting import MOST, first_images
    from da.ops.image_preparation import preparation_of

    saved, path = content.get("preparation"), options.checkpoint
    preparation = None if saved is None else preparation_of(saved, path)
    if options.images is not None and options.root is not None:
        raise UserError("root: the network is checked on --images, not on data; leave one out")
    if options.images is not None and preparation is not None:
        batches = prepared_images(options.images, preparation, MOST)
        return preparation, first_images(b.images for b in batches), f"of '{options.images}'"
    data = data_of(content["spec"], module, options)
    preparation = preparation or data.preparation
    if preparation is None:
        raise UserError(
            f"checkpoint: '{path}' was trained on images that {content['spec'].data} prepares in "
            "a way of its own, which no file can say; export a network of another data set"
        )
    if options.images is not None:
        batches = data.predict_images(options.images)
        return preparation, first_images(b.images for b in batches), f"of '{options.images}'"
    images = first_images(data.images("target", "test", mixed=True))
    return preparation, images, f"target {data.target}, test split"


def data_of(spec: RunSpec, module: Method, options: Any) -> DataModule:
    """The data of a specification, ready to be read."""
    from da.engine.training import build_data
    from da.networks.preprocessing import adopt_preprocessing

    try:
        data = build_data(spec, options.root)
        adopt_preprocessing(data, module.hparams["backbone"], module.hparams["weights"])
        data.prepare_data()
        data.setup("test")
    except UserError as error:
        raise UserError(
            f"there are no images to check the exported network on ({error}); give a folder of "
            "some, --images FOLDER, or that of the data, --root FOLDER"
        ) from error
    return data


def facts(content: dict[str, Any], module: Method, form: str) -> dict[str, Any]:
    """What a file says beside classes and images."""
    from importlib.metadata import PackageNotFoundError, version

    spec: RunSpec = content["spec"]
    versions = {}
    for package in ("da", "torch", "torchvision"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # run from its folder
            continue
    return {
        "format": form,
        "backbone": module.hparams["backbone"],
        "method": spec.method,
        "norm": spec.norm,
        "source": spec.source,
        "target": spec.target,
        "statistics": content.get("statistics"),
        "versions": versions,
    }
