"""The interface of a normaliser, and what those of activations share."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from typing import ClassVar

from torch import Tensor, nn

from da.discovery import subclasses
from da.errors import UserError
from da.norms.flow import Flow
from da.norms.joined_layers import on_split_layers
from da.norms.surgery import (
    BATCH_NORMS,
    affine_parameters,
    removable_batch_norms,
    replace_modules,
    title_of_model,
)
from da.norms.tracing import CONVOLUTIONS, NORMS
from da.types import Domains


class Normaliser(ABC):
    """Takes a network built with batch norm and gives it another normaliser.

    A subclass in its own file in this folder is found by its ``name``; there is no registry.

    Attributes:
        name: the short name, as on the command line.
        composes: whether ``wa+name`` makes sense: it normalises activations.
        single_image: whether evaluation is to normalise each image by itself, where that is a
            choice (batch norm). It is stored here and read by the module.
        needs_target: whether it learns something of the target only where training forwards it.
        needs_pretrained: whether it is made of the statistics that come with a backbone's
            pretrained weights; trainings without such weights are refused.
    """

    name: ClassVar[str]
    composes: ClassVar[bool] = False
    single_image: bool = False
    needs_target: ClassVar[bool] = False
    needs_pretrained: ClassVar[bool] = False

    def for_part(self, part: str) -> Normaliser | None:
        """The normaliser of a part of a method: ``"backbone"``, ``"critic"``, …

        Returns:
            This one; another where this one makes no sense; None where batch norm stays.
        """
        return self

    @abstractmethod
    def apply(self, model: nn.Module) -> nn.Module:
        """Changes the model in place and returns it (a bare layer comes back as a new one).

        An optimiser is to be built afterwards. What can't be converted is refused by name, before
        anything is changed.

        Raises:
            UserError: with the name of the module in the way, and what to do.
        """


class DomainLayer(nn.Module):
    """A layer that computes otherwise for samples of another domain; a network tells it which.

    Attributes:
        domains: of the samples of the batch at hand, in order.
    """

    domains: Domains = ()

    def start_target_from_source(self) -> None:
        """Gives the target what the layer has learnt of the source: where a network that was
        trained on the source alone goes on to the target. A layer that keeps nothing of either
        has nothing to do.
        """

    def of_domain(self, domain: str) -> nn.Module:
        """The plain layer that computes what this one does for samples of one domain.

        Args:
            domain: ``"source"`` or ``"target"``.
        """
        raise NotImplementedError


def tell_domains(model: nn.Module, domains: Domains) -> None:
    """Tells every layer that asks for it which samples of the next batch are of which domain."""
    for layer in model.modules():
        if isinstance(layer, DomainLayer):
            layer.domains = domains


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

    def replacement_for(self, norm: nn.Module) -> nn.Module:
        """What stands where the batch norm ``norm`` was."""
        new = self.build(int(norm.num_features), BATCH_NORMS[type(norm)])  # type: ignore[arg-type]
        new.weight, new.bias = affine_parameters(norm)
        return new.train(norm.training)

    def replacements(self, norms: Iterable[nn.Module]) -> dict[nn.Module, nn.Module]:
        """What stands in the place of each batch norm."""
        return {norm: self.replacement_for(norm) for norm in norms}

    def insertions(
        self, model: nn.Module, flow: Flow, excluded: Collection[nn.Module] = ()
    ) -> dict[nn.Module, nn.Module]:
        """Each convolution without a normaliser (but those in ``excluded``), with one after it."""
        if not self.insert:
            return {}
        norms = [m for m in model.modules() if isinstance(m, NORMS)]
        covered = flow.leads_to(norms, sums=True) | flow.gates() | set(excluded)
        bare = [m for m in flow.calls if isinstance(m, CONVOLUTIONS) and m not in covered]
        return {layer: nn.Sequential(layer, self._after(layer)) for layer in bare}

    def _after(self, layer: nn.Module) -> nn.Module:
        new = self.build(int(layer.out_channels), len(layer.kernel_size))  # type: ignore[arg-type]
        weight = layer.weight
        return new.to(weight.device, weight.dtype).train(layer.training)  # type: ignore[arg-type]

    @on_split_layers
    def apply(self, model: nn.Module) -> nn.Module:
        """See :meth:`Normaliser.apply`."""
        norms = removable_batch_norms(model)
        inserted = self.insertions(model, Flow.of(model, self.example)) if self.insert else {}
        if not norms and not inserted:
            raise UserError(
                f"{title_of_model(model)} has no batch norm for '{self.name}' to replace; use 'bn'"
                " to leave it as it is, or insert=True for a normaliser after each bare convolution"
            )
        return replace_modules(model, self.replacements(norms) | inserted)


def available_normalisers() -> dict[str, type[Normaliser]]:
    """The normalisers in this folder by their short names."""
    kinds = subclasses("da.norms", Normaliser)
    return {kind.name: kind for kind in sorted(kinds.values(), key=lambda kind: kind.name)}


def options_of(kind: type[Normaliser]) -> list[str]:
    """The names of a normaliser's own options."""
    parameters = inspect.signature(kind).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
