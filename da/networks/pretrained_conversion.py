"""A fair start from pretrained weights: batch norm's become those of a WA network before training.

Aligning weights that were trained with batch norm destroys what they compute. Under WeightAlign,
alone or with a normaliser of activations, they are therefore converted once, on images that the run
trains on, into aligned weights that compute nearly the same (:func:`da.norms.convert_pretrained`).
What comes out is kept in the user's cache and shared by all runs with the same weights, options and
images.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
import torchvision
from torch import Tensor, nn

import da.networks.backbones
import da.norms
from da.errors import UserError, unknown
from da.networks import published_classifier
from da.networks.backbones.base import build_backbone, reads_weights
from da.networks.calibration_images import calibration_images
from da.networks.conversion_messages import (
    LEAST_KEPT,
    describe_conversion,
    describe_loss,
    progress_logger,
)
from da.networks.published_classifier import (
    Head,
    prediction_agreement,
    read_published_classifier,
)
from da.networks.weight_files import WeightFile, read_weight_file
from da.norms import WeightAlign, convert_pretrained, normaliser, options_of, short_name
from da.norms.surgery import BATCH_NORMS
from da.norms.weight_align.conversion import PLAIN, LayerError
from da.norms.weight_align.coverage import measure_coverage
from da.norms.weight_align.layers import ALIGNED, Aligned
from da.ops.files import cache_folder, chosen_file
from da.ops.intervals import wilson_interval
from da.ops.seeding import seeded
from da.ops.tensor_cache import CachedTensors, digest_tensors, read_or_make
from da.types import DataModule

log = logging.getLogger(__name__)

Calibration = Literal["source", "both", "off"]
"""Which training images are converted on: the source's, half of each domain's, or none."""


@dataclass(frozen=True)
class ConversionPlan:
    """What is converted, and on what.

    Attributes:
        backbone: name of the network.
        weights: ``imagenet`` or a file.
        norm: name of the normaliser: ``wa``, alone or with one of activations, or a subclass of it.
        options: those of the normaliser. Unless they say otherwise, convolutions of images,
            depthwise ones and some of few weights are not aligned.
        on: training images of the ``source`` alone, or of ``both`` domains, half of each.
        images: how many.
    """

    backbone: str
    weights: str
    norm: str
    options: dict[str, Any]
    on: Calibration
    images: int


def conversion_plan(settings: Mapping[str, Any]) -> ConversionPlan | None:
    """The conversion that the settings of a module ask for; None where there is none.

    Raises:
        UserError: for values that mean nothing, and for a normaliser that needs pretrained weights
            where there are none.
    """
    on, images, norm = settings["conversion"], settings["conversion_images"], settings["norm"]
    if on not in get_args(Calibration):
        raise unknown("conversion", str(on), get_args(Calibration))
    if not isinstance(images, int) or images < 2:
        raise UserError(f"conversion_images: expected a whole number from 2, got {images}")
    _refuse_without_weights(settings)
    aligning = _weight_align_of(settings)
    if aligning is None or settings["weights"] is None or "backbone" not in settings["scope"]:
        return None
    if on == "off":
        return None
    if aligning.activation is not None and aligning.activation.insert:
        raise UserError(
            f"norm '{norm}' with insert on pretrained weights: they know no normaliser where one "
            "would be inserted, so their function can't be kept; leave insert out, or start from "
            "the weights as they are with --model.conversion off"
        )
    options = backbone_options(settings)
    return ConversionPlan(settings["backbone"], settings["weights"], norm, options, on, images)


def _weight_align_of(settings: Mapping[str, Any]) -> WeightAlign | None:
    """The normaliser of the settings where it is WeightAlign, however it is named."""
    norm = normaliser(settings["norm"], **(settings["norm_options"] or {}))
    return norm if isinstance(norm, WeightAlign) else None


def backbone_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the normaliser in the backbone: what is converted has fewer layers aligned.

    They follow from the settings alone, since a checkpoint's network is built without its weights.

    >>> settings = {"norm": "wa", "norm_options": None, "weights": "imagenet"}
    >>> backbone_options(settings), backbone_options({**settings, "weights": None})
    ({'min_channels': 4, 'min_weights': 25}, {})
    """
    aligning = _weight_align_of(settings)
    converts = (
        aligning is not None
        and settings.get("weights") is not None
        and settings.get("conversion", "source") != "off"
        and "backbone" in settings.get("scope", ("backbone",))
    )
    options = dict(settings.get("norm_options") or {})
    own = options_of(type(aligning)) if aligning and converts else []  # a subclass may have fewer
    return {**{name: value for name, value in PLAIN.items() if name in own}, **options}


def _refuse_without_weights(settings: Mapping[str, Any]) -> None:
    """Refuses a normaliser made of pretrained statistics where the backbone has none for it."""
    norm = settings["norm"]
    if not normaliser(norm, **(settings["norm_options"] or {})).needs_pretrained:
        return
    if settings["weights"] is None:
        raise UserError(
            f"norm '{norm}' is made of the statistics that come with pretrained weights, and the "
            "backbone has none; give --model.weights imagenet or a file (in a grid, model: "
            "{weights: imagenet}), or use norm 'bn' or 'none'"
        )
    if "backbone" not in settings["scope"]:
        raise UserError(
            f"norm '{norm}' is made of the statistics of the backbone's pretrained weights, and "
            "scope leaves the backbone out; add it to the scope, or use norm 'bn' or 'none'"
        )


def read_trained_backbone(settings: Mapping[str, Any]) -> WeightFile | None:
    """A file of weights that are under a normaliser already: a checkpoint of a training here.

    Args:
        settings: of a module.

    Returns:
        None for other files, for plain batch norm, and where no weights are to be read.

    Raises:
        UserError: where the module's normaliser is another one.
    """
    weights = settings["weights"]
    if not reads_weights() or chosen_file(weights) is None:
        return None
    file = read_weight_file(weights)
    if file.settings is None or file.norm is None:
        return None
    mine = short_name(settings["norm"]) if "backbone" in settings["scope"] else "bn"
    first, second = (_full_options(one) for one in (file.settings, settings))
    if mine != short_name(file.norm) or first != second:
        options = [
            {k: v for k, v in one.items() if k not in PLAIN or first.get(k) != second.get(k)}
            for one in (first, second)
        ]
        advice = "give the same"
        if mine == short_name(file.norm) and first == _full_options(
            {**settings, "conversion": "off"}
        ):
            advice = "these weights need no conversion, so give --model.conversion off"
        raise UserError(
            f"weights: the backbone in '{weights}' was trained with norm '{file.norm}' and options "
            f"{options[0]}, the model has '{mine}' and {options[1]}; {advice}"
        )
    return file


def _full_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of :func:`backbone_options`, with what decides the structure of WA spelled out."""
    options = backbone_options(settings)
    return {**dict.fromkeys(PLAIN, 1), **options} if _weight_align_of(settings) else options


def convert_backbone(
    aligned: nn.Module, plan: ConversionPlan, data: DataModule, device: torch.device | str
) -> dict[str, Any] | None:
    """Gives an aligned backbone the function that its pretrained weights had, in place.

    Args:
        aligned: the backbone after surgery.
        plan: what it was built from, and what it is converted on.
        data: the data module, set up.
        device: where to compute.

    Returns:
        What the result says of it; None where aligning leaves the function as it is. ``on`` which
        domains, how many ``images``, how many ``held_out`` to measure it on; ``error`` of the
        features and ``worst_error`` of the ``worst_layer``, both as in ``LayerError``, the latter
        before the network was ``distilled``, if it was;
        ``agreement`` of the published classifier's predictions and its 95 % ``agreement_interval``,
        None without one; ``seconds``, and whether it was ``cached``.
    """
    began = time.perf_counter()
    if torch.device(device).type == "mps":  # it has no float64, which the fit needs
        device = "cpu"
    with seeded("conversion"):
        plain = build_backbone(plan.backbone, plan.weights).eval()
        if not changes_function(plain, aligned):
            return None
        images, held_out = calibration_images(data, plan)
        head = read_published_classifier(plain, plan.backbone, plan.weights)
        path = (
            cache_folder()
            / "converted"
            / _cache_file_name(plain, head, plan, images, held_out, device)
        )
        shapes = {name: value.shape for name, value in aligned.state_dict().items()}
        on_device = plain.to(device), images.to(device), held_out.to(device)
        converted, cached = read_or_make(path, shapes, lambda: _convert(plan, *on_device, head))
    aligned.load_state_dict(converted.tensors)
    report = {"on": plan.on, **converted.report}
    report |= {"seconds": time.perf_counter() - began, "cached": cached}
    log.info(describe_conversion(plan, report, measure_coverage(aligned)))
    if report["agreement"] is not None and report["agreement"] < LEAST_KEPT:
        log.warning(describe_loss(plan, report))
    return report


def _convert(
    plan: ConversionPlan, plain: nn.Module, images: Tensor, held_out: Tensor, head: Head | None
) -> CachedTensors:
    """The weights of the aligned network, and the part of the report that they decide."""
    try:
        conversion = convert_pretrained(
            plain,
            images,
            held_out if len(held_out) else None,
            normaliser=cast(WeightAlign, normaliser(plan.norm, **plan.options)),
            progress=progress_logger(plan),
        )
    except UserError as error:
        raise UserError(
            f"conversion of '{plan.backbone}': {error}; or start from the weights as they are "
            "with --model.conversion off"
        ) from error
    output = LayerError("output", conversion.error)
    worst = max(conversion.layers, key=lambda layer: layer.error, default=output)
    agreement = prediction_agreement(plain, conversion.model, held_out, head)
    report = {
        "images": conversion.images,
        "held_out": conversion.held_out,
        "error": conversion.error,
        "agreement": agreement,
        "agreement_interval": (
            None if agreement is None else list(wilson_interval(agreement, len(held_out)))
        ),
        "worst_layer": worst.name,
        "worst_error": worst.error,
        "distilled": conversion.distilled,
    }
    return CachedTensors(conversion.model.state_dict(), report)


def changes_function(plain: nn.Module, aligned: nn.Module) -> bool:
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


def _cache_file_name(
    plain: nn.Module,
    head: Head | None,
    plan: ConversionPlan,
    images: Tensor,
    held_out: Tensor,
    device: Any,
) -> str:
    """The file's name: it depends on everything that decides its content, to the last bit."""
    code = hashlib.sha256()
    folders = [Path(x.__path__[0]) for x in (da.norms, da.networks.backbones)]
    own = inspect.getfile(type(normaliser(plan.norm, **plan.options)))
    modules = Path(__file__), Path(published_classifier.__file__), Path(own)
    for file in (*modules, *(x for folder in folders for x in sorted(folder.rglob("*.py")))):
        code.update(file.read_bytes())
    inputs = {**plain.state_dict(), "images": images, "held out": held_out}
    inputs |= {f"head {i}": part for i, part in enumerate(head or ()) if part is not None}
    digest = digest_tensors(
        inputs,
        *(code.hexdigest(), plan.backbone, short_name(plan.norm), plan.options, plan.on),
        *(torch.__version__, torchvision.__version__, type(plain).__name__),
        *(torch.get_num_threads(), torch.device(device).type),
    )
    readable = re.sub(r"[^\w.-]+", "-", plan.backbone)
    return f"{readable}-{digest[:32]}.safetensors"
