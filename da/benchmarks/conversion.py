"""What it takes to convert a network's weights for WeightAlign, and how near it comes."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
import torchvision.models as zoo
from torch import Tensor, nn

from da.benchmarks.peak_memory import peak_memory
from da.errors import unknown
from da.norms import WeightAlign, convert_pretrained
from da.norms.folding import fold_batch_norms
from da.norms.weight_align.layers import Aligned
from da.norms.weight_align.output_errors import compare_outputs
from da.ops.seeding import seeded

# Images whose moments are matched by the baseline that does only that, all in one batch.
MATCHED_ON = 64


class Measured(NamedTuple):
    """How near one way of converting comes on the images held out.

    Attributes:
        way: its name.
        agreement: see :class:`da.norms.Conversion`.
        error: likewise.
        seconds: of the conversion.
        busy: seconds that processors worked on it, over all threads.
        peak: the most memory that the process has held so far, in bytes.
        layers: name and error of each layer, where they were measured.
    """

    way: str
    agreement: float | None
    error: float
    seconds: float
    busy: float
    peak: int
    layers: tuple[tuple[str, float], ...] = ()


def build_network(name: str, images: Tensor) -> nn.Module:
    """A torchvision classifier with random weights, in evaluation mode.

    Scales and shifts of its batch norms are random, and their running statistics those of a few
    passes over the images, so that it does something as a trained network does.
    """
    if name not in zoo.list_models(zoo):
        raise unknown("network", name, zoo.list_models(zoo))
    with seeded(0, "bench", "network"):
        model = zoo.get_model(name)
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
            norm.momentum = None  # the plain average of the passes
        with torch.no_grad():
            for batch in images[:64].split(16) if norms else ():
                model.train()(batch)
    return model.eval()


def random_pictures(count: int, size: int, seed: int = 0) -> Tensor:
    """Random images with structure at every scale, as natural ones have it.

    Returns:
        ``(count, 3, size, size)`` float32 of mean 0 and deviation 1.
    """
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(count, 3, size, size)
    side = 2
    while side <= size:  # as much power in every octave: 1/f in amplitude
        noise = torch.randn(count, 3, side, side, generator=generator)
        total += F.interpolate(noise, size=(size, size), mode="bilinear")
        side *= 2
    return total.sub_(total.mean()).div_(total.std())


def measure_conversion(
    name: str,
    count: int,
    size: int,
    baselines: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Measured]:
    """Converts a network; with ``baselines`` also in the two ways that are simpler.

    Args:
        name: of a torchvision model.
        count: of the images to convert on; a tenth of them is held out.
        size: of the images.
        baselines: whether to compare with :func:`match_moments` and plain alignment.
        progress: see :func:`da.norms.convert_pretrained`.
    """
    images = random_pictures(count, size)
    model = build_network(name, images)
    conversion, seconds, busy = time_call(
        lambda: convert_pretrained(model, images, progress=progress)
    )
    layers = tuple((layer.name, layer.error) for layer in conversion.layers)
    rows = [
        Measured(
            "fitted", conversion.agreement, conversion.error, seconds, busy, peak_memory(), layers
        )
    ]
    if baselines:
        held_out = list(images[9::10].split(32))
        rows += measure_simpler_ways(model, images[:MATCHED_ON], held_out)
    return rows


def measure_simpler_ways(
    model: nn.Module, images: Tensor, held_out: list[Tensor]
) -> list[Measured]:
    """The two simpler ways: only the moments of each layer matched, and only aligned.

    Args:
        model: with batch norm, in evaluation mode.
        images: ``(B, C, H, W)`` to match moments on.
        held_out: batches to measure on.
    """
    rows = []
    ways: dict[str, Callable[[], nn.Module]] = {
        "moments matched": lambda: match_moments(model, images),
        "only aligned": lambda: WeightAlign().apply(copy.deepcopy(model)),
    }
    for way, convert in ways.items():
        converted, seconds, busy = time_call(convert)
        converted.eval()
        with torch.no_grad():
            error, agreement = compare_outputs(model, converted, held_out)
        rows.append(Measured(way, agreement, error, seconds, busy, peak_memory()))
    return rows


@torch.no_grad()
def match_moments(model: nn.Module, images: Tensor) -> nn.Module:
    """The aligned network in which every layer's output has the original's mean and deviation.

    Filters are centred and no more; g and b of each layer, from the input on, give each channel
    the two moments that the original layer (with its batch norm) has on the same images.

    Args:
        model: in evaluation mode; it stays as it is.
        images: ``(B, C, H, W)``, in one batch.
    """
    converted = WeightAlign().apply(copy.deepcopy(model)).eval()
    original = fold_batch_norms(copy.deepcopy(model), converted, None)
    aligned = {n: m for n, m in converted.named_modules() if isinstance(m, Aligned)}
    wanted: dict[str, tuple[Tensor, Tensor]] = {}

    def moments(y: Tensor) -> tuple[Tensor, Tensor]:
        axes = [d for d in range(y.dim()) if d != 1]
        return y.mean(axes), y.std(axes)

    def look(name: str) -> Callable[..., None]:
        return lambda layer, taken, given: wanted.update({name: moments(given)})

    def match(name: str) -> Callable[..., Any]:
        def hook(layer: Any, taken: tuple[Tensor, ...], given: Tensor) -> Tensor:
            mean, deviation = moments(given)
            ratio = wanted[name][1] / deviation.clamp(min=1e-12)
            layer.g.mul_(ratio)
            layer.bias.copy_(wanted[name][0] - ratio * (mean - layer.bias))
            return layer.forward(*taken)

        return hook

    for name in aligned:
        original.get_submodule(name).register_forward_hook(look(name))
    original(images)
    handles = [layer.register_forward_hook(match(name)) for name, layer in aligned.items()]
    converted(images)
    for handle in handles:
        handle.remove()
    return converted


T = TypeVar("T")


def time_call(function: Callable[[], T]) -> tuple[T, float, float]:
    """What a function returns, its seconds, and those that processors worked on it."""
    wall, busy = time.perf_counter(), time.process_time()
    result = function()
    return result, time.perf_counter() - wall, time.process_time() - busy
