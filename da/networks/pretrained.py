"""A fair start from pretrained weights: batch norm's become those of a WA network before training.

Aligning weights that were trained with batch norm destroys what they compute. Where the normaliser
is WeightAlign alone, they are therefore converted once, on images that the run trains on, into
aligned weights that compute nearly the same (:func:`da.norms.convert_pretrained`). What comes out
is kept in the user's cache and shared by all runs with the same weights, options and images.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import da.networks.backbones
import da.norms
from da.errors import UserError, unknown
from da.networks.backbones.base import (
    Backbone,
    backbone,
    downloaded,
    preprocessing,
    reads_weights,
)
from da.networks.weight_files import WeightFile, read_weight_file
from da.norms import WeightAlign, convert_pretrained, normaliser
from da.norms.surgery import BATCH_NORMS
from da.norms.weight_align.conversion import LayerError
from da.norms.weight_align.layers import ALIGNED, Aligned
from da.ops.files import cache_folder
from da.ops.seeding import derive, permutation, seeded
from da.ops.tensor_cache import Kept, digest, kept
from da.types import DataModule, Role

log = logging.getLogger(__name__)

LOG_EVERY = 15.0
"""Seconds between two lines on the progress of a conversion."""

Calibration = Literal["source", "both", "off"]
Head = tuple[Tensor, Tensor | None]
"""Weight and bias of a classifier."""

HELD_OUT = 64
"""Images of the source, beyond those of the conversion, on which it is measured."""


def adopt(data: DataModule, backbone: str, weights: str | None) -> None:
    """Has the data prepare images as a backbone's weights expect them; called before any is loaded.

    What the user has set stays; where it is another one than the weights', one line says so.

    Args:
        data: the data module.
        backbone: name of the network.
        weights: ``imagenet``, a file, or None for random ones, which expect nothing.
    """
    found = preprocessing(backbone, weights)
    if found is None:
        return
    data.adopt(*found)
    preferences = data.preferences
    own = {"image_size": found.size, "mean": found.mean, "std": found.std}
    for name, value in own.items():
        set_to = preferences.get(name)
        chosen = tuple(set_to) if isinstance(set_to, list | tuple) else set_to
        if chosen is not None and chosen != value:
            log.warning(
                "data.%s is %s, and the weights of %s were trained with %s; yours is used",
                *(name, chosen, backbone, value),
            )


def prepared(data: DataModule) -> dict[str, Any]:
    """How images are normalised and which size they have, for the result."""
    return {"mean": list(data.mean), "std": list(data.std), "image_size": data.image_size}


@dataclass(frozen=True)
class Start:
    """What is converted, and on what.

    Attributes:
        backbone: name of the network.
        weights: ``imagenet`` or a file.
        options: those of the normaliser.
        on: training images of the ``source`` alone, or of ``both`` domains, half of each.
        images: how many.
    """

    backbone: str
    weights: str
    options: dict[str, Any]
    on: Calibration
    images: int


def start(settings: Mapping[str, Any]) -> Start | None:
    """The conversion that the settings of a module ask for; None where there is none.

    Raises:
        UserError: for values that mean nothing, and for a normaliser of activations beside WA.
    """
    on, images, norm = settings["conversion"], settings["conversion_images"], settings["norm"]
    if on not in get_args(Calibration):
        raise unknown("conversion", str(on), get_args(Calibration))
    if not isinstance(images, int) or images < 2:
        raise UserError(f"conversion_images: expected a whole number from 2, got {images}")
    aligned, _, activation = norm.partition("+")
    if aligned != "wa" or settings["weights"] is None or "backbone" not in settings["scope"]:
        return None
    if on == "off":
        return None
    if activation:
        raise UserError(
            f"norm '{norm}' on pretrained weights: their function can be kept under 'wa' alone, "
            f"not with '{activation}' beside it; use norm 'wa' or 'bn', or start from the weights "
            "as they are with --model.conversion off"
        )
    options = settings["norm_options"] or {}
    return Start(settings["backbone"], settings["weights"], options, on, images)


def trained_here(settings: Mapping[str, Any]) -> WeightFile | None:
    """A file of weights that are under a normaliser already: a checkpoint of a training here.

    Args:
        settings: of a module.

    Returns:
        None for other files, for plain batch norm, and where no weights are to be read.

    Raises:
        UserError: where the module's normaliser is another one.
    """
    weights = settings["weights"]
    if not reads_weights() or not weights or not Path(weights).expanduser().is_file():
        return None
    file = read_weight_file(weights)
    if file.norm is None:
        return None
    mine = settings["norm"] if "backbone" in settings["scope"] else "bn"
    options = settings["norm_options"] or {}
    if mine != file.norm or dict(options) != dict(file.norm_options):
        raise UserError(
            f"weights: the backbone in '{weights}' was trained with norm '{file.norm}' and options "
            f"{dict(file.norm_options)}, the model has '{mine}' and {dict(options)}; give the same"
        )
    return file


def convert(
    aligned: nn.Module, start: Start, data: DataModule, device: torch.device | str
) -> dict[str, Any] | None:
    """Gives an aligned backbone the function that its pretrained weights had, in place.

    Args:
        aligned: the backbone after surgery.
        start: what it was built from.
        data: the data module, set up.
        device: where to compute.

    Returns:
        What the result says of it; None where aligning leaves the function as it is. ``on`` which
        domains, how many ``images``, how many ``held_out`` to measure it on; ``error`` of the
        features and ``worst_error`` of the ``worst_layer``, both as in
        ``LayerError``; ``agreement`` of the published classifier's
        predictions, None without one; ``seconds``, and whether it was ``cached``.
    """
    began = time.perf_counter()
    if torch.device(device).type == "mps":  # it has no float64, which the fit needs
        device = "cpu"
    with seeded("conversion"):
        plain = backbone(start.backbone, start.weights).eval()
        if not changes(plain, aligned):
            return None
        images, held_out = calibration(data, start)
        head = published_head(plain, start)
        path = cache_folder() / "converted" / _name(plain, head, start, images, held_out, device)
        shapes = {name: value.shape for name, value in aligned.state_dict().items()}
        on_device = plain.to(device), images.to(device), held_out.to(device)
        found, cached = kept(path, shapes, lambda: _made(start, *on_device, head))
    aligned.load_state_dict(found.tensors)
    report = {"on": start.on, **found.report}
    report |= {"seconds": time.perf_counter() - began, "cached": cached}
    log.info(summary(start, report))
    return report


def _made(
    start: Start, plain: nn.Module, images: Tensor, held_out: Tensor, head: Head | None
) -> Kept:
    """The weights of the aligned network, and the part of the report that they decide."""
    try:
        made = convert_pretrained(
            plain,
            images,
            held_out if len(held_out) else None,
            normaliser=cast(WeightAlign, normaliser("wa", **start.options)),
            progress=_log_progress(start),
        )
    except UserError as error:
        raise UserError(
            f"conversion of '{start.backbone}': {error}; or start from the weights as they are "
            "with --model.conversion off"
        ) from error
    output = LayerError("output", made.error)
    worst = max(made.layers, key=lambda layer: layer.error, default=output)
    report = {
        "images": made.images,
        "held_out": made.held_out,
        "error": made.error,
        "agreement": agreement(plain, made.model, held_out, head),
        "worst_layer": worst.name,
        "worst_error": worst.error,
    }
    return Kept(made.model.state_dict(), report)


def changes(plain: nn.Module, aligned: nn.Module) -> bool:
    """Whether surgery changed what a network computes: a batch norm went, or a layer is aligned.

    A layer that standardises its own weight (timm's) is aligned without a change, and is no plain
    layer of torch.
    """
    after = dict(aligned.named_modules())
    return any(
        (type(module) in BATCH_NORMS and type(after.get(name)) is not type(module))
        or (type(module) in ALIGNED and isinstance(after.get(name), Aligned))
        for name, module in plain.named_modules()
    )


def calibration(data: DataModule, start: Start) -> tuple[Tensor, Tensor]:
    """Images to convert on, and others of the source to measure it on, as evaluation sees them.

    They are the first of a permutation that is the same in every run, so that runs share what
    comes out. At least a tenth of a domain is left out of the conversion. No label is read.

    Returns:
        ``(N, C, H, W)`` and ``(M, C, H, W)`` float32.
    """
    half = start.images // 2 if start.on == "both" else 0
    chosen, held_out = _divide(data, "source", start.images - half)
    if half:
        chosen = torch.cat([chosen, _divide(data, "target", half)[0]])
    return chosen, held_out


def _divide(data: DataModule, role: Role, count: int) -> tuple[Tensor, Tensor]:
    """So many images of a domain, and others to measure on."""
    images = data.set_of(role, "train")
    order = permutation(derive("conversion"), 0, len(images))
    count = min(count, max(2, 9 * len(images) // 10))
    parts = order[:count], order[count : count + HELD_OUT]
    first, second = (data.transform.evaluate(images.images(part)) for part in parts)
    return first, second


def published_head(plain: Backbone, start: Start) -> Head | None:
    """Weight and bias of the classifier that the weights were published with, where they hold one.

    It is the one matrix in the file that is no part of the backbone and takes its features.
    """
    path: str = start.weights
    if path == "imagenet":
        import torchvision.models as zoo

        try:
            path = downloaded(zoo.get_model_weights(start.backbone)["IMAGENET1K_V1"].url)
        except (ValueError, KeyError):  # not torchvision's
            return None
    state = read_weight_file(path).tensors
    own = {name for full in plain.state_dict() for name in (full, full.partition(".")[2])}
    found = [
        (value.float(), state.get(f"{name.removesuffix('weight')}bias"))
        for name, value in state.items()
        if name not in own and name.endswith("weight") and value.shape[1:] == (plain.num_features,)
    ]
    return found[0] if len(found) == 1 else None


def agreement(plain: nn.Module, new: nn.Module, images: Tensor, head: Head | None) -> float | None:
    """The share of images of which a classifier predicts the same from both networks' features."""
    if head is None or not len(images):
        return None
    weight, bias = (None if x is None else x.to(images) for x in head)
    equal = 0
    with torch.no_grad():
        for chunk in images.split(32):
            one, other = (
                F.linear(network.eval()(chunk), cast(Tensor, weight), bias).argmax(dim=1)
                for network in (plain, new)
            )
            equal += int((one == other).sum())
    return equal / len(images)


def summary(start: Start, report: dict[str, Any]) -> str:
    """One line for the user."""
    images = "source" if report["on"] == "source" else "source and target"
    how = "from cache" if report["cached"] else f"in {report['seconds']:.1f} s"
    text = f"converted {start.backbone} to WA on {report['images']} {images} images, {how}: "
    if report["agreement"] is not None:
        text += f"{100 * report['agreement']:.1f} % of predictions kept, "
    return text + (
        f"{100 * report['error']:.2g} % of the features' variance lost "
        f"(worst layer {report['worst_layer']}, {100 * report['worst_error']:.2g} %)"
    )


def _name(
    plain: nn.Module,
    head: Head | None,
    start: Start,
    images: Tensor,
    held_out: Tensor,
    device: Any,
) -> str:
    """The file's name: it depends on everything that decides its content, to the last bit."""
    code = hashlib.sha256()
    folders = [Path(x.__path__[0]) for x in (da.norms, da.networks.backbones)]
    for file in (Path(__file__), *(x for folder in folders for x in sorted(folder.rglob("*.py")))):
        code.update(file.read_bytes())
    given = {**plain.state_dict(), "images": images, "held out": held_out}
    given |= {f"head {i}": part for i, part in enumerate(head or ()) if part is not None}
    found = digest(
        given,
        *(code.hexdigest(), start.backbone, start.options, start.on),
        *(torch.__version__, torchvision.__version__, type(plain).__name__),
        *(torch.get_num_threads(), torch.device(device).type),
    )
    readable = re.sub(r"[^\w.-]+", "-", start.backbone)
    return f"{readable}-{found[:32]}.safetensors"


def _log_progress(start: Start) -> Callable[[int, int], None]:
    """Logs the beginning, and from then on how far it is: a deep network takes minutes."""
    log.info("converting %s to WA …", start.backbone)
    last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= LOG_EVERY:
            last = time.monotonic()
            log.info("converting %s to WA: %.0f %%", start.backbone, 100 * done / total)

    return progress
