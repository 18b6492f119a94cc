"""How the scale of activations and gradients develops through a network at the start of training.

A network without normalisers of activations keeps the scales that it starts with only if each layer
hands on what it takes. Here it is measured: one batch goes through, a random direction of the
outputs comes back.

Forward, the scale is the standard deviation over all elements. Backward, it is the norm of the
whole gradient, since a layer with He's fan-in initialisation, whatever its stride and width,
preserves the deviation of an element on the way forward and the norm of the tensor on the way back.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import get_model

from da.data_sets import find_data_set
from da.errors import UserError, unknown
from da.norms import normaliser
from da.norms.tracing import CONVOLUTIONS
from da.ops.seeding import seeded

#: The modules whose outputs end a stage, from the stem to the last map.
_RESNET = ("maxpool", "layer1", "layer2", "layer3", "layer4")
STAGES: dict[str, tuple[str, ...]] = {
    "resnet18": _RESNET,
    "resnet50": _RESNET,
    "resnet101": _RESNET,
    "vgg16_bn": tuple(f"features.{i}" for i in (2, 6, 13, 23, 33, 43)),
    "mobilenet_v3_large": tuple(f"features.{i}" for i in (0, 1, 3, 6, 10, 12, 15, 16)),
    "densenet121": ("features.pool0", *(f"features.denseblock{i}" for i in (1, 2, 3, 4))),
}


@dataclass(frozen=True)
class Scales:
    """Scales at the end of each stage, from the first to the last.

    Attributes:
        forward: standard deviation of the activations.
        backward: norm of the gradient with respect to the activations, relative to the last stage.
        weights: of each convolution, in the order of the modules: ‖∂L/∂w‖ · ‖w‖, the gradient with
            respect to its direction. The scale of an aligned or batch-normalised weight does not
            matter, and it drops out of this product.
    """

    forward: tuple[float, ...]
    backward: tuple[float, ...]
    weights: tuple[float, ...]


def largest_over_smallest(values: Iterable[float]) -> float:
    """The largest over the smallest.

    >>> largest_over_smallest([2.0, 1.0, 8.0])
    8.0
    """
    numbers = list(values)
    return max(numbers) / min(numbers) if min(numbers) > 0 else float("inf")


def geometric_mean(values: Iterable[float]) -> float:
    """The geometric mean of positive numbers.

    >>> geometric_mean([1.0, 4.0])
    2.0
    """
    numbers = list(values)
    return math.prod(numbers) ** (1 / len(numbers))


def measure_scales(
    model: nn.Module, images: Tensor, stages: Sequence[str], seed: int = 0
) -> Scales:
    """Measures a network in training mode with dropout off.

    Args:
        model: from images to ``(B, K)``. Batch norms move their running statistics.
        images: ``(B, 3, H, W)`` float.
        stages: names of the modules whose outputs are looked at.
        seed: of the direction of the outputs ``(B, K)`` that the gradient starts from.
    """
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
    outputs: dict[str, Tensor] = {}
    hooks = [
        model.get_submodule(name).register_forward_hook(_keep(outputs, name)) for name in stages
    ]
    try:
        out = model(images)
    finally:
        for hook in hooks:
            hook.remove()
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(out.shape, generator=generator).to(out)
    weights = [m.get_parameter("weight") for m in model.modules() if isinstance(m, CONVOLUTIONS)]
    ends_of_stages = [outputs[name] for name in stages]
    gradients = torch.autograd.grad((out * direction).sum(), [*ends_of_stages, *weights])
    norms = [float(gradient.norm()) for gradient in gradients]
    sides = [
        n * float(w.detach().norm())
        for n, w in zip(norms[len(ends_of_stages) :], weights, strict=True)
    ]
    return Scales(
        forward=tuple(float(output.detach().std()) for output in ends_of_stages),
        backward=tuple(
            norm / norms[len(ends_of_stages) - 1] for norm in norms[: len(ends_of_stages)]
        ),
        weights=tuple(sides),
    )


def _keep(outputs: dict[str, Tensor], name: str) -> Any:
    def hook(module: nn.Module, args: Any, output: Tensor) -> None:
        outputs[name] = output

    return hook


def build_network(name: str, norm: str, seed: int = 0, **options: Any) -> nn.Module:
    """One of :data:`STAGES` from torchvision with random weights, under a normaliser."""
    if name not in STAGES:
        raise unknown("network", name, STAGES)
    with seeded(seed, "initial scale", name):
        model: nn.Module = get_model(name, weights=None)
    return normaliser(norm, **options).apply(model)


def noise_images(batch: int, size: int, seed: int = 0) -> Tensor:
    """Images ``(batch, 3, size, size)`` of independent N(0, 1)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, size, size, generator=generator)


def source_images(
    data: str, source: str, target: str, batch: int, size: int, seed: int = 0
) -> Tensor:
    """The first training images of a source, resized: ``(batch, 3, size, size)`` float.

    Args:
        data: name of a data set, short or dotted.
        source, target: its domains.
        batch: how many.
        size: height and width to which they are resized bilinearly.
        seed: of the data module.
    """
    try:
        kind = find_data_set(data)
    except UserError as error:
        raise UserError(f"--data: {error}") from None
    module = kind(source=source, target=target, batch_size=batch, steps_per_epoch=1, seed=seed)
    module.prepare_data()
    module.setup("fit")
    images = next(iter(module.train_dataloader())).source
    assert images is not None  # for the type checker: every data module here has a source
    return F.interpolate(images.images, size=(size, size), mode="bilinear", align_corners=False)
