"""What a normaliser costs: a training step, inference, and the memory kept for backward.

Every figure is a ratio of two variants that were measured in turn in the same process.
"""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from da.errors import UserError
from da.networks.backbones.base import build_backbone
from da.norms import fold, normaliser, normaliser_names
from da.norms.base import tell_domains
from da.norms.group_norm import groups_for
from da.norms.weight_align import layers
from da.types import Segment

Precision = Literal["float32", "bfloat16"]

#: What can be compared: the normaliser of each variant, and whether its alignment is the naive one.
#: ``none`` is the floor: the same network, nothing normalised and no factor in its place.
VARIANTS: dict[str, tuple[str, bool]] = {
    **{name: (name, False) for name in normaliser_names()},
    "wa naive": ("wa", True),
}


class _InstanceNorm(nn.InstanceNorm2d):
    """torch's own, which refuses maps of one pixel: those pass."""

    def forward(self, input: Tensor) -> Tensor:
        return input if input.shape[2:].numel() == 1 else super().forward(input)


#: What torch has a fused kernel for, as one would write it by hand: the reference of a normaliser
#: is the same network with these in the place of its batch norms, in a loop without this library.
KERNELS: dict[str, Callable[[int], nn.Module]] = {
    "bn": nn.BatchNorm2d,
    "gn": lambda channels: nn.GroupNorm(groups_for(channels, 32), channels),
    "in": lambda channels: _InstanceNorm(channels, affine=True),
    "ln": lambda channels: nn.GroupNorm(1, channels),
}
VARIANTS |= {f"torch {name}": (name, False) for name in KERNELS}
OPTIONS = {"none": {"residual": "one"}}
WARM_UP = 1
CLASSES = 10


class Case(NamedTuple):
    """One row of the table.

    Attributes:
        network: name of the backbone.
        size: height and width of the images.
        precision: ``bfloat16`` is autocast with channels-last images and weights.
        batch: images in a step.
    """

    network: str
    size: int
    precision: Precision
    batch: int


class Measured(NamedTuple):
    """What was measured of one variant in one case.

    Attributes:
        training: seconds of a training step in each round; none where it can't run.
        inference: seconds of a forward pass in each round, folded where the variant can be.
        kept: see :meth:`Variant.bytes_for_backward`.
    """

    training: list[float]
    inference: list[float]
    kept: int


class Classifier(nn.Module):
    """A backbone and a linear layer, as a variant has it.

    Args:
        network: name of the backbone.
        norm: of the normaliser.
        by_hand: whether it is put in as one would without this library, see ``KERNELS``.
    """

    def __init__(self, network: str, norm: str, by_hand: bool = False):
        super().__init__()
        torch.manual_seed(0)
        self.backbone: nn.Module = build_backbone(network)
        if by_hand:
            replace_by_kernel(self.backbone, KERNELS[norm])
        else:
            self.backbone = normaliser(norm, **OPTIONS.get(norm, {})).apply(self.backbone)
        self.classifier = nn.Linear(self.backbone.num_features, CLASSES)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, 10)`` of images ``(B, 3, H, W)``."""
        return self.classifier(self.backbone(images))


def replace_by_kernel(model: nn.Module, build: Callable[[int], nn.Module]) -> None:
    """Puts torch's own layers where 2d batch norms are."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.BatchNorm2d:
                setattr(parent, name, build(child.num_features))


@contextlib.contextmanager
def naive_alignment(naive: bool = True) -> Iterator[None]:
    """Aligned layers compute their weight by a chain of eager operations within this block."""
    fused = layers.align
    if naive:
        layers.align = layers.naive_align
    try:
        yield
    finally:
        layers.align = fused


def autocast_where_asked(device: str, precision: Precision) -> torch.autocast:
    """bfloat16 autocast, or nothing."""
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")


class Variant:
    """One variant of a case, ready to be stepped.

    Args:
        name: of ``VARIANTS``.
        case: what it runs on.
        device: ``cpu`` or ``cuda``.
        compiled: whether the network goes through torch.compile.
    """

    def __init__(self, name: str, case: Case, device: str, compiled: bool):
        norm, self.naive = VARIANTS[name]
        self.case, self.device = case, device
        layout = torch.channels_last if case.precision == "bfloat16" else torch.contiguous_format
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(case.batch, 3, case.size, case.size, generator=generator)
        self.images = images.to(device, memory_format=layout)
        self.labels = torch.arange(case.batch, device=device) % CLASSES
        self.by_hand = name.startswith("torch ")
        self.model = Classifier(case.network, norm, self.by_hand).to(device)
        self.model.to(memory_format=layout)
        self.optimiser = torch.optim.SGD(self.model.parameters(), lr=1e-7, momentum=0.9)
        with naive_alignment(self.naive):
            self.folded = self._folded(name).eval()
        if compiled:
            self.model.compile()
            self.folded.compile()

    def _folded(self, name: str) -> nn.Module:
        if name in ("bn", "torch bn"):
            return fuse(self.model.eval())
        computed = any(isinstance(m, layers.ComputedWeight) for m in self.model.modules())
        return fold(self.model) if computed else self.model

    def loss(self) -> Tensor:
        """The cross-entropy of a forward pass, with its graph; half of the images are the source's,
        for layers that keep the domains apart."""
        half = self.case.batch // 2
        halves = (Segment("source", half), Segment("target", self.case.batch - half))
        if not self.by_hand:
            tell_domains(self.model, tuple(segment for segment in halves if segment.size))
        with naive_alignment(self.naive), autocast_where_asked(self.device, self.case.precision):
            logits = self.model(self.images)
        return F.cross_entropy(logits.float(), self.labels)

    def train(self) -> None:
        """One training step: forward, backward, SGD with momentum."""
        self.model.train()
        self.optimiser.zero_grad()
        self.loss().backward()
        self.optimiser.step()

    def infer(self) -> None:
        """One forward pass in evaluation mode, of images of the target."""
        self.folded.eval()
        if not self.by_hand:
            tell_domains(self.folded, (Segment("target", self.case.batch),))
        with naive_alignment(self.naive), autocast_where_asked(self.device, self.case.precision):
            self.folded(self.images)

    def bytes_for_backward(self) -> int:
        """Bytes that a forward pass in training mode keeps for the backward, besides what is there
        anyway: the parameters and the images."""
        there = (*self.model.parameters(), self.images)
        own = {x.untyped_storage().data_ptr() for x in there}
        storages: dict[int, int] = {}

        def pack(x: Tensor) -> Tensor:
            storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x.detach()  # held by its own graph otherwise, and so for ever

        self.model.train()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            loss = self.loss()  # held, so that no address is given twice
        del loss
        return sum(size for address, size in storages.items() if address not in own)


def time_call(function: Callable[[], None], device: str) -> float:
    """Seconds that a call takes, with all that it started on the device."""
    start = time.perf_counter()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure_case(
    case: Case,
    variants: list[str],
    seconds: float,
    device: str = "cpu",
    compiled: bool = False,
) -> dict[str, Measured]:
    """Measures the variants of a case in turn.

    Every round runs every variant once and begins with another one, so that a drift of the
    machine's speed meets all of them.

    Args:
        case: network, size, precision and batch.
        variants: names of ``VARIANTS``.
        seconds: rounds go on for about so long, but there are at least three of each kind.
        device: ``cpu`` or ``cuda``.
        compiled: measure the compiled networks.

    Returns:
        By variant. Batch norm has no training step on maps of one pixel in a batch of one.
    """
    gc.collect()  # traced networks are full of cycles
    measured = {name: Measured([], [], 0) for name in variants}
    ready = {name: Variant(name, case, device, compiled) for name in variants}
    able = {}
    for name, variant in ready.items():
        try:
            measured[name] = measured[name]._replace(kept=variant.bytes_for_backward())
            able[name] = variant
        except (ValueError, UserError) as error:  # PyTorch's, or that of a layer of each domain
            if "more than 1 value per channel" not in str(error):
                raise
    for kind, names, share in (("training", list(able), 0.75), ("inference", variants, 0.25)):
        start, i = time.perf_counter(), 0
        grad = torch.enable_grad() if kind == "training" else torch.no_grad()
        while i < WARM_UP + 3 or time.perf_counter() - start < share * seconds:
            turn = i % len(names)
            for name in names[turn:] + names[:turn]:
                step = ready[name].train if kind == "training" else ready[name].infer
                with grad:
                    spent = time_call(step, device)
                if i >= WARM_UP:
                    getattr(measured[name], kind).append(spent)
            i += 1
    return measured


def median_ratio(values: list[float], base: list[float]) -> float | None:
    """The median of the ratios of paired rounds; None where one of them could not run.

    >>> median_ratio([2.0, 3.0, 8.0], [1.0, 1.0, 2.0])
    3.0
    """
    if not values or not base:
        return None
    return statistics.median(a / b for a, b in zip(values, base, strict=True))
