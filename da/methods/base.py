"""The contract of a method: what it needs, what it builds, which updates it makes of a batch."""

from __future__ import annotations

import copy
from abc import ABC
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from da.errors import UserError
from da.methods.normaliser_scope import unseen_target
from da.methods.stages import Stage, StagedModule
from da.methods.updates import Sharpness, Step
from da.networks.network import Network, evaluating, split_activations
from da.networks.pretrained_conversion import convert_backbone
from da.networks.trained_heads import start_heads
from da.norms import normaliser
from da.norms.base import tell_domains
from da.norms.weight_align.sharing import aligned_once
from da.ops.acceleration import accelerate, without_autocast
from da.types import Activations, Batch, DataModule, Domains, Predictions, Role, Segment, View

__all__ = ["Method", "Needs", "Sharpness", "Stage", "Step"]


@dataclass(frozen=True)
class Needs:
    """What a method takes of the data and of the network.

    Attributes:
        target: whether training forwards the target at all. Source-only must not: with a joint
            forward the target would leak into the running statistics of batch norm.
        source_views: views of each source image, in this order.
        target_views: views of each target image, in this order.
        taps: names of modules of the network whose outputs are read, ``"backbone.layer4"``.
    """

    target: bool = True
    source_views: tuple[View, ...] = ("weak",)
    target_views: tuple[View, ...] = ("weak",)
    taps: tuple[str, ...] = ()


class Method(StagedModule, ABC):
    """A classifier trained on a labelled source and an unlabelled target.

    The order of surgery lives here: pretrained weights, the normaliser, the heads, the conversion
    of pretrained weights, the method's own parts, the optimiser. A subclass in its own file is
    found by its name. It says what it :attr:`needs`, adds parts (:meth:`build`) and its loss
    (:meth:`adaptation`); where one update of all parameters per batch is not enough, it
    overrides :meth:`steps`.

    Attributes:
        needs: what it takes of the data and of the network.
        critics: names under which it logs, by :meth:`log`, the accuracy of a critic of domains on a
            batch, of which 0.5 is chance: trainings raise an alarm where one learns nothing or
            can't be fooled.
        own_scores: label-free scores of which it makes its own loss, as the loss of batches: a
            tuning by one of these would reward the loss and not what it is for.
        smallest_batch: images of a domain that its loss needs in a batch, whatever the normaliser.
        small: options that make the method's own parts small, for a quick look and for tests.
    """

    needs: ClassVar[Needs] = Needs()
    critics: ClassVar[Sequence[str]] = ()
    own_scores: ClassVar[Sequence[str]] = ()
    smallest_batch: ClassVar[int] = 1
    small: ClassVar[Mapping[str, Any]] = {}
    prepared: bool = False

    def taps(self) -> Sequence[str]:
        """See :meth:`NetworkModule.taps`."""
        return self.needs.taps

    # What a method adds.

    def build(self) -> None:
        """Makes the method's own parts (:meth:`part`, copies of :attr:`network`).

        Called once, after the conversion of pretrained weights: a copy of the network equals it.
        """

    def steps(self, batch: Batch) -> Iterator[Step]:
        """The updates that a batch makes, in order: one of all parameters by default.

        Code after a ``yield`` runs when the update is made: averages of weights go there.
        """
        yield Step(lambda: self.losses(batch))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """All loss terms of a batch: ``task`` (source cross-entropy) and the method's own."""
        if batch.source is None:
            (target,) = self.activations_of((batch.target.images, "target"))
            with without_autocast(target.features):
                return self.source_free(target, batch)
        if not (self.needs.target and self.stage.target):
            (source,) = self.activations_of((batch.source.images, "source"))
            terms = {}
        else:
            source, target = self.activations_of(
                (batch.source.images, "source"), (batch.target.images, "target")
            )
            with without_autocast(source.features):
                terms = self.adaptation(source, target, batch)
        return {"task": self.task_loss(source, batch.source.labels), **terms}

    def task_loss(self, source: Activations, labels: Tensor) -> Tensor:
        """The loss on the labelled source: cross-entropy, the mean over ``(B,)`` labels."""
        return F.cross_entropy(source.logits, labels)

    def adaptation(
        self, source: Activations, target: Activations, batch: Batch
    ) -> dict[str, Tensor]:
        """The method's loss terms, named, each already multiplied by its trade-off.

        They are added to the cross-entropy on the source and logged one by one. Other values to
        log go through :meth:`log`.
        """
        return {}

    def source_free(self, target: Activations, batch: Batch) -> dict[str, Tensor]:
        """The loss terms of a batch without source images, of a stage that has none."""
        raise NotImplementedError(f"{type(self).__name__} has no loss without a source batch")

    @property
    def makes_one_update(self) -> bool:
        """See :attr:`UpdatingModule.makes_one_update`."""
        return type(self).steps is Method.steps

    # Forward passes.

    def activations_of(
        self, *groups: tuple[Tensor, str], network: nn.Module | None = None
    ) -> list[Activations]:
        """Activations of several groups of images, jointly or one by one as ``forward_mode`` says.

        Args:
            groups: images ``(B, C, H, W)`` and their domain.
            network: :attr:`network` by default.
        """
        network = network or self.network
        if self.hparams["forward_mode"] == "separate" and len(groups) > 1:
            with aligned_once(network):
                return [network(images, domain) for images, domain in groups]
        domains = domain_segments(groups)
        joint = network(torch.cat([images for images, _ in groups]), domains)
        return split_activations(joint, [segment.size for segment in domains])

    def apply_part(self, part: nn.Module, *groups: tuple[Tensor, str]) -> list[Tensor]:
        """Outputs of a part for several groups of features, jointly or one by one.

        Args:
            part: a critic or another head.
            groups: features ``(B, F)`` and their domain.
        """
        if self.hparams["forward_mode"] == "separate" and len(groups) > 1:
            with aligned_once(part):
                return [self._told(part, x, (Segment(d, len(x)),)) for x, d in groups]
        domains = domain_segments(groups)
        joint = self._told(part, torch.cat([features for features, _ in groups]), domains)
        return list(joint.split([segment.size for segment in domains]))

    @staticmethod
    def _told(part: nn.Module, x: Tensor, domains: Domains) -> Tensor:
        tell_domains(part, domains)
        output: Tensor = part(x)
        return output

    def frozen_copy(self) -> Network:
        """A copy of the network as it is now, which takes no gradient."""
        twin = copy.deepcopy(self.network).requires_grad_(False)
        for part in twin.children():  # copies aren't compiled
            accelerate(part, self.hparams["channels_last"], self.hparams["compile"])
        return twin

    # Preparation.

    def setup(self, stage: str) -> None:
        """Prepares the network for training: see :meth:`prepare`."""
        super().setup(stage)
        if stage == "fit":
            self.refuse_data(self.data)
            self.refuse_accumulation()
            self._refuse_unseen_target()
            self._refuse_cpu()
            self.data.serve_views(self.needs.source_views, self.needs.target_views)
            # What is resumed has its weights, which are read after this.
            resuming = getattr(self.trainer, "resuming", False)
            self.prepare(None if resuming else self.data)
            if not resuming:
                self._refuse_unused_normaliser()

    def refuse_data(self, data: DataModule) -> None:
        """Refuses data that it can't be trained on, before anything is written or trained.

        A subclass that asks more of its data calls this first.

        Args:
            data: as it is set up for training.

        Raises:
            UserError: saying what is missing.
        """
        images = data.images("source") if data.batch_size == 1 else ()
        self.refuse_batch_of_one(data.batch_size, images)
        if data.batch_size < self.smallest_batch:
            raise UserError(
                f"batch_size: {type(self).__name__} compares images of one domain with one "
                f"another: expected at least {self.smallest_batch}, got {data.batch_size}"
            )

    def _refuse_unseen_target(self) -> None:
        norm = self.hparams["norm"]
        needed = normaliser(norm, **(self.hparams["norm_options"] or {})).needs_target
        seen = self.needs.target and any(stage.target for stage in self.stages())
        if needed and not seen:
            raise UserError(unseen_target(norm, type(self).__name__))

    def _refuse_cpu(self) -> None:
        norm = self.hparams["norm"]
        device = self._trainer.strategy.root_device if self._trainer else self.device
        if normaliser(norm, **(self.hparams["norm_options"] or {})).needs_gpu and (
            device.type == "cpu"
        ):
            raise UserError(
                f"norm '{norm}' needs a GPU, and this training runs on the CPU; use norm 'bn', "
                "which is the same in a single process, or --trainer.accelerator gpu"
            )

    def prepare(self, data: DataModule | None = None) -> None:
        """Converts pretrained weights, and builds the method's own parts after that; once.

        Args:
            data: images to convert on, and names of classes; None where a state is loaded
                afterwards.
        """
        if self.prepared:
            return
        if data is not None:
            self.convert(data)
            start_heads(self.network, self.hparams, data.classes)
        self.build()
        self.prepared = True

    def _refuse_unused_normaliser(self) -> None:
        """A table that has batch norm under another name is worse than none."""
        norm, scope = self.hparams["norm"], self.hparams["scope"]
        if norm != "bn" and all(own == "bn" for own in self.part_norms.values()):
            raise UserError(
                f"norm '{norm}' with scope {', '.join(scope) or 'none'}: batch norm stays in every "
                f"part of {type(self).__name__} ({', '.join(self.part_norms)}), as the norm takes "
                "none that the scope names; use a scope with the backbone, or norm 'bn'"
            )

    def convert(self, data: DataModule) -> None:
        """Keeps the function of pretrained weights under WeightAlign: before training, and once."""
        if self.conversion_plan is not None and self.converted is None:
            device = self._trainer.strategy.root_device if self._trainer else self.device
            self.converted = convert_backbone(
                self.network.backbone, self.conversion_plan, data, device
            )

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """See :meth:`UpdatingModule.training_step`; a stage without a source gets none."""
        if not self.stage.source:
            batch = batch._replace(source=None)
        return super().training_step(batch, batch_idx)

    def collect(self, role: Role = "target", network: nn.Module | None = None) -> Predictions:
        """Predictions on all training images of a domain, in the order of their indices.

        Nothing is trained and no label is read; images are not augmented.

        Args:
            role: of the domain.
            network: by default the one that is evaluated.
        """
        network = network or self.evaluated()
        plugin: Any = self.trainer.precision_plugin
        out = []
        with evaluating(network), plugin.forward_context():
            for images in self.data.images(role, "train"):
                a = network(images.to(self.device), role)
                out.append((a.logits.float().cpu(), a.features.float().cpu()))
        logits, features = (torch.cat(x) for x in zip(*out, strict=True))
        return Predictions(logits, None, features)


def domain_segments(groups: Sequence[tuple[Tensor, str]]) -> Domains:
    """Which samples of the groups, one after another, are of which domain."""
    return tuple(Segment(domain, len(x)) for x, domain in groups)
