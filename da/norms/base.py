"""The interface of a normaliser, and what those of activations share."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from typing import ClassVar

from torch import Tensor, nn

from da.discovery import subclasses
from da.errors import UserError, unknown
from da.norms.flow import Flow
from da.norms.joined_layers import on_split_layers
from da.norms.surgery import (
    BATCH_NORMS,
    affine_parameters,
    refuse_other_normalisers,
    removable_batch_norms,
    replace_modules,
    title_of_model,
)
from da.norms.tracing import CONVOLUTIONS, NORMS
from da.types import Domains

DOMAINS = ("source", "target")


class Normaliser(ABC):
    """Takes a network built with batch norm and gives it another normaliser.

    A subclass in its own file in this folder is found by its ``name``; there is no registry.

    Attributes:
        name: the short name, as on the command line.
        composes: whether ``wa+name`` makes sense: it normalises activations.
        single_image: whether a batch of one image may be trained on although layers on maps then
            have the statistics of that image alone, which is no batch norm: a choice of those that
            normalise by a batch, and refused without it.
        mixes_domains: whether, in training, what a sample becomes depends on samples of the other
            domain beside it. Without, a joint forward of both domains gives what separate ones do.
        needs_target: whether it learns something of the target only where training forwards it.
        needs_pretrained: whether it is made of the statistics that come with a backbone's
            pretrained weights; trainings without such weights are refused.
        needs_gpu: whether it can't train on a CPU.
    """

    name: ClassVar[str]
    composes: ClassVar[bool] = False
    single_image: bool = False
    mixes_domains: bool = False
    needs_target: ClassVar[bool] = False
    needs_pretrained: ClassVar[bool] = False
    needs_gpu: ClassVar[bool] = False

    def for_part(self, part: str) -> Normaliser | None:
        """The normaliser of a part of a method: ``"backbone"``, ``"critic"``, …

        Returns:
            This one; another where this one makes no sense; None where batch norm stays.
        """
        return self

    def allow_single_image(self, allow: bool) -> None:
        """Sets :attr:`single_image` from an option of that name.

        Raises:
            UserError: if it is no truth value.
        """
        if not isinstance(allow, bool):
            raise UserError(f"single_image is true or false, not {allow!r}")
        self.single_image = allow

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
        title: how errors name it.
    """

    domains: Domains = ()
    title: ClassVar[str] = "a layer that keeps the domains apart"

    def split_domains(self, x: Tensor) -> list[tuple[str, Tensor]]:
        """The segments of a batch with their domains, in order, as the layer was told.

        Args:
            x: ``(B, ...)``.

        Raises:
            UserError: where it was told no domains, others than source and target, or another
                number of samples.
        """
        if not self.domains:
            raise UserError(
                f"{self.title} was not told which samples are of which; call "
                "the da.networks.network.Network that it is part of with domains, or "
                "da.norms.base.tell_domains before each batch"
            )
        for domain, _ in self.domains:
            if domain not in DOMAINS:
                raise UserError(f"{self.title} knows {' and '.join(DOMAINS)}, not '{domain}'")
        names, sizes = zip(*self.domains, strict=True)
        if sum(sizes) != x.shape[0]:
            told = " + ".join(f"{size} of {domain}" for domain, size in self.domains)
            raise UserError(
                f"{self.title} was told of {told} samples, and {x.shape[0]} "
                "came; tell it the domains of every batch"
            )
        parts = [x] if len(sizes) == 1 else x.split(sizes)
        return list(zip(names, parts, strict=True))

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
        self.example = checked_example(example)

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
        if self.insert or not norms:  # beside layer norms it would not be what it is called
            refuse_other_normalisers(model, self.name)
        inserted = self.insertions(model, Flow.of(model, self.example)) if self.insert else {}
        if not norms and not inserted:
            raise self.nothing_to_replace(model)
        return replace_modules(model, self.replacements(norms) | inserted)

    def nothing_to_replace(self, model: nn.Module) -> UserError:
        """The error for a model without batch norms."""
        return UserError(
            f"{title_of_model(model)} has no batch norm for '{self.name}' to replace; use 'bn'"
            " to leave it as it is, or insert: true (--model.norm_options.insert true) for a"
            " normaliser after each bare convolution"
        )


def available_normalisers() -> dict[str, type[Normaliser]]:
    """The normalisers in this folder by their short names."""
    kinds = subclasses("da.norms", Normaliser)
    return {kind.name: kind for kind in sorted(kinds.values(), key=lambda kind: kind.name)}


def options_of(kind: type[Normaliser]) -> list[str]:
    """The names of a normaliser's own options."""
    parameters = inspect.signature(kind).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]


def unknown_option(name: str, option: str, known: Collection[str]) -> UserError:
    """The error for an option that a normaliser lacks, with those that can be written down."""
    return unknown(f"option of {name}", option, [one for one in known if one != "example"])


def checked_example(example: Tensor | None) -> Tensor | None:
    """An input of a network, which a command line or a file can't give.

    Raises:
        UserError: if it is something else.
    """
    if example is not None and not isinstance(example, Tensor):
        raise UserError(
            f"example: expected a tensor, an input of the network, got {example!r}; it is given "
            "from Python alone, leave it out"
        )
    return example
