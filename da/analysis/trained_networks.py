"""Trained networks on the same images of both domains: what they predict, and what is in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from da.analysis.activations import PickedImages
from da.analysis.layer_distances import LayerDistance, measure_distances
from da.analysis.pooled_outputs import pool_outputs
from da.errors import UserError
from da.methods.base import Method
from da.networks.network import evaluating
from da.ops.acceleration import uncompiled
from da.ops.seeding import derive_seed, permutation
from da.types import DataModule, Images, Role, Split

FEWEST = 8
"""Images of each domain; halves of fewer say nothing."""

ROLES: tuple[Role, ...] = ("source", "target")


@dataclass(frozen=True)
class DomainSample:
    """What a network makes of images of one domain.

    Attributes:
        features: ``(N, F)`` float32.
        logits: ``(N, K)`` float32, in the order of the data's classes.
        labels: ``(N,)`` int64; negative where an image has none.
        indices: ``(N,)`` int64, of the images in their set.
        names: of the images, as their set calls them.
        picked: ``(M,)`` int64, positions among the N: the images of the comparisons of domains.
        domain: its name.
    """

    features: NDArray[np.float32]
    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    indices: NDArray[np.int64]
    names: list[str]
    picked: NDArray[np.int64]
    domain: str

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """The softmax of the logits, ``(N, K)`` float64."""
        return torch.from_numpy(self.logits).double().softmax(dim=1).numpy()

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """The predicted classes, ``(N,)`` int64."""
        return self.logits.argmax(axis=1)

    @cached_property
    def labelled(self) -> DomainSample:
        """The part with labels; nothing of it is picked."""
        there = self.labels >= 0
        names = [name for name, has in zip(self.names, there, strict=True) if has]
        return DomainSample(
            self.features[there],
            self.logits[there],
            self.labels[there],
            self.indices[there],
            names,
            np.empty(0, np.int64),
            self.domain,
        )


@dataclass(frozen=True)
class TrainedNetwork:
    """One network, and what it makes of both domains.

    Attributes:
        facts: what tells it from others: ``norm``, ``method``, ``backbone``, ``seed``, ``lr``,
            ``batch_size`` and ``checkpoint``, in this order; None for what is not known.
        source, target: of the same images for every network.
        distances: of the domains at every place; empty where they are not asked for.
        name: short, see :func:`name_networks`.
    """

    facts: Mapping[str, Any]
    source: DomainSample
    target: DomainSample
    distances: list[LayerDistance] = field(default_factory=list)
    name: str = ""

    def sample(self, role: Role) -> DomainSample:
        """Of one domain."""
        return self.source if role == "source" else self.target


@dataclass(frozen=True)
class Subject:
    """What all networks are shown.

    Attributes:
        data: of the first network; prepared.
        split: of both domains.
        most: how many images of each domain are picked at most.
        seed: of every choice by chance.
        shared: what the networks have in common, ``"DANN, seed 0"``.
    """

    data: DataModule
    split: Split
    most: int
    seed: int
    shared: str = ""

    @property
    def count(self) -> int:
        """How many images of each domain are picked: as many as both have, at most ``most``.

        Raises:
            UserError: where they are too few.
        """
        sizes = {role: len(self.data.set_of(role, self.split)) for role in ROLES}
        smallest = min(ROLES, key=lambda role: sizes[role])
        if sizes[smallest] < FEWEST:
            raise UserError(
                f"{self.data.domain_of(smallest)}: the {self.split} split has {sizes[smallest]} "
                f"images, and domains are compared on at least {FEWEST}"
            )
        return min(self.most, *sizes.values())

    def picks(self, role: Role) -> NDArray[np.int64]:
        """The picked images of a domain, in their set's order; the same for every network."""
        total = len(self.data.set_of(role, self.split))
        key = derive_seed("pictures", self.seed, role, self.split)
        return np.sort(permutation(key, 0, total)[: self.count])

    @property
    def has_labels(self) -> bool:
        """Whether any image of the target has a label."""
        return bool((np.asarray(self.data.set_of("target", self.split).labels) >= 0).any())

    def title(self, what: str) -> str:
        """The title of a picture: what is seen, of which task, of which networks."""
        first = f"{what}\n{self.data.source} → {self.data.target}"
        return f"{first}, {self.shared}" if self.shared else first

    def images(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Images of the target as the networks see them, ``(B, H, W, C)`` in [0, 1]."""
        found: Images = self.data.set_of("target", self.split).images(indices)
        seen = self.data.transform.evaluate(found)
        mean, std = (torch.tensor(x).view(-1, 1, 1) for x in (self.data.mean, self.data.std))
        return (seen * std + mean).clamp(0, 1).permute(0, 2, 3, 1).numpy()


def observe(
    module: Method,
    subject: Subject,
    facts: Mapping[str, Any],
    columns: Sequence[int] | None,
    whole: Mapping[Role, bool],
    distances: bool,
    context: Callable[[], AbstractContextManager[Any]] = nullcontext,
    tick: Callable[[int], object] = lambda images: None,
) -> TrainedNetwork:
    """Runs a network over both domains.

    Args:
        module: whose evaluated network it is; it stays as it is.
        subject: with the data that this network was given.
        facts: see :class:`TrainedNetwork`.
        columns: where the data's classes stand among the logits; None where they are in order.
        whole: whether all images of a domain are wanted, or the picked ones.
        distances: whether the domains are compared at every place.
        context: in which it computes, such as a precision.
        tick: told of the images of every batch.
    """
    data, split = subject.data, subject.split

    def batches(role: Role, chosen: NDArray[np.int64]) -> PickedImages:
        found = data.set_of(role, split)
        size = data.eval_batch_size
        return PickedImages(found, data.transform, chosen, size, module.device, tick)

    def sample(role: Role) -> DomainSample:
        found, picks = data.set_of(role, split), subject.picks(role)
        chosen = np.arange(len(found)) if whole[role] else picks
        parts: list[tuple[Tensor, Tensor]] = []
        with evaluating(module):
            for images in batches(role, chosen):
                out = module.activations(images, role)
                parts.append((out.features.float().cpu(), out.logits.float().cpu()))
        features, logits = (torch.cat(x) for x in zip(*parts, strict=True))
        if not (features.isfinite().all() and logits.isfinite().all()):
            raise UserError(
                f"checkpoint: '{facts['checkpoint']}' computes features of the {role} that are "
                "not finite; it can't be analysed"
            )
        return DomainSample(
            features.numpy(),
            (logits if columns is None else logits[:, list(columns)]).numpy(),
            np.asarray(found.labels)[chosen],
            chosen,
            found.names(chosen),
            np.searchsorted(chosen, picks),
            data.domain_of(role),
        )

    with context(), uncompiled(module):
        source, target = sample("source"), sample("target")
        apart: list[LayerDistance] = []
        if distances:
            network = module.evaluated()
            one, other = (pool_outputs(network, batches(r, subject.picks(r)), r) for r in ROLES)
            apart = measure_distances(one, other, subject.seed)
    return TrainedNetwork(facts, source, target, apart)


def refuse_other_images(one: Subject, other: Subject, checkpoints: tuple[str, str]) -> None:
    """Refuses images that differ, in whatever is in them: no picture can compare networks on them.

    Args:
        one: what the network of the first checkpoint is shown.
        other: what that of the second is.
        checkpoints: their paths.

    Raises:
        UserError: with the domain that differs.
    """
    for role in ROLES:
        (a, first), (b, second) = (
            (subject.data.domain_of(role), subject.data.set_of(role, subject.split))
            for subject in (one, other)
        )
        if a != b or first.fingerprint() != second.fingerprint():
            raise UserError(
                f"checkpoint: '{checkpoints[0]}' and '{checkpoints[1]}' have "
                f"other images of the {role}, and networks are compared on the same; give "
                "checkpoints of one task and one set of data, or options for all of them such as "
                "--data.source and --seed_everything"
            )


ALWAYS = ("method", "backbone", "seed")
"""Facts that are named wherever networks differ in them; the others where names would agree."""


def name_networks(networks: Sequence[TrainedNetwork]) -> tuple[list[TrainedNetwork], str]:
    """The same networks with short names, all different, and what they have in common.

    A name is that of the normaliser and whatever else tells the networks apart.
    """
    values = {key: [network.facts[key] for network in networks] for key in networks[0].facts}
    differ = [key for key in ALWAYS if len(set(values[key])) > 1]
    names = [_in_words(["norm", *differ], network.facts) for network in networks]
    for key in (key for key in values if key not in ("norm", *ALWAYS)):
        for name in {name for name in names if names.count(name) > 1}:
            same = [i for i, one in enumerate(names) if one == name]
            if len({values[key][i] for i in same}) > 1:
                for i in same:
                    names[i] = f"{name}, {_in_words([key], networks[i].facts)}"
    named = [replace(n, name=name) for n, name in zip(networks, names, strict=True)]
    alike = [key for key in ("method", "seed") if key not in differ]
    return named, _in_words(alike, networks[0].facts)


def _in_words(keys: Sequence[str], facts: Mapping[str, Any]) -> str:
    """``"bn, DANN, seed 0, lr 0.1"``, without what is not known."""
    before = {"seed": "seed ", "lr": "lr ", "batch_size": "batch "}
    values = {key: facts[key] for key in keys if facts[key] is not None}
    return ", ".join(
        before.get(key, "") + (f"{value:g}" if isinstance(value, float) else str(value))
        for key, value in values.items()
    )
