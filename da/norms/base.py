"""What every normaliser shares: the interface, the surgery, and batch norm's statistics."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import Tensor, nn

from da.discovery import subclasses
from da.errors import UserError
from da.norms.flow import CONVOLUTIONS, NORMS, Flow, feeder

# The batch norms that surgery replaces: these very classes, with the dimensions of their maps.
# A subclass may do more than normalise (timm's has the activation inside).
BATCH_NORMS: dict[type[nn.Module], int] = {
    nn.BatchNorm1d: 1,
    nn.BatchNorm2d: 2,
    nn.BatchNorm3d: 3,
    nn.SyncBatchNorm: 2,
}


class Normaliser(ABC):
    """Takes a network built with batch norm and gives it another normaliser.

    A subclass in its own file in this folder is found by its ``name``; there is no registry.

    Attributes:
        name: the short name, as on the command line.
        composes: whether ``wa+name`` makes sense: it normalises activations.
        single_image: whether evaluation is to normalise each image by itself, where that is a
            choice (batch norm). It is stored here and read by the module.
    """

    name: ClassVar[str]
    composes: ClassVar[bool] = False
    single_image: bool = False

    @abstractmethod
    def apply(self, model: nn.Module) -> nn.Module:
        """Changes the model in place and returns it (a bare layer comes back as a new one).

        An optimiser is to be built afterwards. What can't be converted is refused by name, before
        anything is changed.

        Raises:
            UserError: with the name of the module in the way, and what to do.
        """


class ActivationNormaliser(Normaliser):
    """Puts a normaliser of activations where batch norms are.

    The scale and shift of a batch norm carry over.

    Args:
        insert: also put one after each convolution that has none (LeNet, plain VGG).
        example: an input of the model, for networks that can't be traced; see
            :meth:`da.norms.flow.Flow.of`.
    """

    composes: ClassVar[bool] = True

    def __init__(self, *, insert: bool = False, example: Tensor | None = None):
        if not isinstance(insert, bool):
            raise UserError(f"insert is true or false, not {insert!r}")
        self.insert = insert
        self.example = example

    @abstractmethod
    def build(self, channels: int, dimensions: int) -> nn.Module:
        """A new normaliser with ``weight`` and ``bias`` of ``(channels,)``.

        Args:
            channels: of the activations, ``(B, channels, ...)``.
            dimensions: of the maps: 1 (and vectors), 2 or 3.
        """

    def instead(self, norm: nn.Module) -> nn.Module:
        """What stands where the batch norm ``norm`` was."""
        new = self.build(int(norm.num_features), BATCH_NORMS[type(norm)])  # type: ignore[arg-type]
        new.weight, new.bias = affine(norm)
        return new.train(norm.training)

    def swaps(self, norms: Iterable[nn.Module]) -> dict[nn.Module, nn.Module]:
        """What stands in the place of each batch norm."""
        return {norm: self.instead(norm) for norm in norms}

    def insertions(
        self, model: nn.Module, flow: Flow, kept: Collection[nn.Module] = ()
    ) -> dict[nn.Module, nn.Module]:
        """Each convolution without a normaliser (but those in ``kept``), with one after it."""
        if not self.insert:
            return {}
        norms = [m for m in model.modules() if isinstance(m, NORMS)]
        done = flow.leads_to(norms, sums=True) | flow.gates() | set(kept)
        bare = [m for m in flow.calls if isinstance(m, CONVOLUTIONS) and m not in done]
        return {layer: nn.Sequential(layer, self._after(layer)) for layer in bare}

    def _after(self, layer: nn.Module) -> nn.Module:
        new = self.build(int(layer.out_channels), len(layer.kernel_size))  # type: ignore[arg-type]
        weight = layer.weight
        return new.to(weight.device, weight.dtype).train(layer.training)  # type: ignore[arg-type]

    def apply(self, model: nn.Module) -> nn.Module:
        """See :meth:`Normaliser.apply`."""
        norms = removable(model)
        inserted = self.insertions(model, Flow.of(model, self.example)) if self.insert else {}
        if not norms and not inserted:
            raise UserError(
                f"{title(model)} has no batch norm for '{self.name}' to replace; use 'bn' to leave"
                " it as it is, or insert=True for a normaliser after each bare convolution"
            )
        return replace(model, self.swaps(norms) | inserted)


class Affine(nn.Module):
    """Scale and shift of each channel: what remains of a batch norm that no single layer feeds.

    Attributes:
        weight, bias: ``(C,)`` float parameters.
    """

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter):
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, ...)`` to the same shape."""
        shape = (-1, *(1 for _ in range(x.dim() - 2)))
        return x * self.weight.view(shape) + self.bias.view(shape)

    def extra_repr(self) -> str:
        """What ``print`` shows of the layer."""
        return str(len(self.weight))


def affine(norm: nn.Module) -> tuple[nn.Parameter, nn.Parameter]:
    """Scale and shift of a batch norm, ``(C,)`` each: its own parameters, or new ones that do
    nothing where it has none."""
    if norm.weight is not None:
        return norm.weight, norm.bias  # type: ignore[return-value]
    where = norm.running_mean.device if isinstance(norm.running_mean, Tensor) else None
    channels = int(norm.num_features)  # type: ignore[arg-type]
    ones, zeros = torch.ones(channels, device=where), torch.zeros(channels, device=where)
    return nn.Parameter(ones), nn.Parameter(zeros)


def replace(model: nn.Module, swaps: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """Puts modules in the place of others, wherever those stand: the one traversal.

    A module that is shared stands in several places; all of them get the same new one.

    Args:
        model: changed in place.
        swaps: old module to new; new ones may contain the old.

    Returns:
        The model, or what replaces it.
    """
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child is not None and child in swaps:
                parent._modules[name] = swaps[child]
    return swaps.get(model, model)


def removable(model: nn.Module, kept: Collection[nn.Module] = ()) -> list[nn.Module]:
    """The batch norms of a model, without those in ``kept``.

    Raises:
        UserError: where a module keeps running statistics in a way that is not known.
    """
    found = []
    for name, module in model.named_modules():
        if module in kept:
            continue
        if type(module) in BATCH_NORMS:
            found.append(module)
        elif isinstance(module, nn.modules.batchnorm._BatchNorm) or "running_mean" in dict(
            module.named_buffers(recurse=False)
        ):
            raise UserError(
                f"'{name}' of {title(model)} is a {type(module).__name__}, and only torch.nn's"
                " own batch norms can be replaced; build the network with those"
            )
    return found


def sole_feeders(
    flow: Flow, norms: Iterable[nn.Module], layers: Collection[nn.Module]
) -> dict[nn.Module, nn.Module]:
    """The layers that can take over the affine of the batch norm that follows them.

    That is where the layer's output goes nowhere else, in every call of the layer, and every call
    of the batch norm is fed so by one of ``layers``.

    Returns:
        Layer to batch norm. A batch norm that is shared stands beside several layers.
    """
    found: dict[nn.Module, nn.Module] = {}
    for norm in norms:
        sources = [feeder(call) for call in flow.calls.get(norm, [])]
        fed = [s.module for s in sources if s is not None and s.module in layers]
        every = [call for layer in fed if layer is not None for call in flow.calls[layer]]
        if sources and len(fed) == len(sources) and set(every) == set(sources):
            found.update((layer, norm) for layer in fed if layer is not None)
    return found


def batch_norms(model: nn.Module) -> dict[str, nn.modules.batchnorm._BatchNorm]:
    """The layers of a model that use statistics of the batch, by name."""
    kind = nn.modules.batchnorm._BatchNorm
    return {name: m for name, m in model.named_modules() if isinstance(m, kind)}


@contextmanager
def reestimated(model: nn.Module, batches: Iterable[Tensor]) -> Iterator[nn.Module]:
    """Runs a block with batch norm's running statistics re-estimated on other images.

    They are the cumulative averages of the batches' statistics, each batch weighted by its size
    (AdaBN, Li et al. 2017, with the images of the target). Nothing is trained, dropout is off, and
    the block sees the model in evaluation mode. Statistics and modes are restored afterwards,
    exactly.

    Args:
        model: called with each batch.
        batches: ``(B, C, H, W)`` images on the model's device, B at least 2.
    """
    norms = [m for m in batch_norms(model).values() if m.track_running_stats]
    modes = {module: module.training for module in model.modules()}
    saved = [({k: b.clone() for k, b in m.named_buffers(recurse=False)}, m.momentum) for m in norms]
    try:
        for module in modes:
            module.training = module in norms
        for norm in norms:
            norm.reset_running_stats()
        _accumulate(model, norms, batches)
        for module in modes:
            module.training = False
        yield model
    finally:
        for norm, (buffers, momentum) in zip(norms, saved, strict=True):
            norm.momentum = momentum
            for name, buffer in buffers.items():
                norm.get_buffer(name).copy_(buffer)
        for module, mode in modes.items():
            module.training = mode


def _accumulate(
    model: nn.Module, norms: list[nn.modules.batchnorm._BatchNorm], batches: Iterable[Tensor]
) -> None:
    seen = 0
    with torch.no_grad():
        for batch in batches if norms else ():
            if len(batch) < 2:
                raise UserError(
                    "batch norm's statistics are re-estimated on batches of 2 images or more, and"
                    f" one of {len(batch)} came; choose another evaluation batch size"
                )
            seen += len(batch)
            for norm in norms:
                norm.momentum = len(batch) / seen
            model(batch)
    if norms and not seen:
        raise UserError("no images came to re-estimate batch norm's statistics on; give some")


def title(model: nn.Module) -> str:
    """How errors name a model."""
    return type(model).__name__


def available() -> dict[str, type[Normaliser]]:
    """The normalisers in this folder by their short names."""
    found = subclasses("da.norms", Normaliser)  # type: ignore[type-abstract]
    return {kind.name: kind for kind in sorted(found.values(), key=lambda kind: kind.name)}


def options_of(kind: type[Normaliser]) -> list[str]:
    """The names of a normaliser's own options."""
    parameters = inspect.signature(kind).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
