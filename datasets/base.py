"""The Lightning data module that pairs a labelled source with an unlabelled target."""

from __future__ import annotations

import gc
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler

from da.ops.domain_names import split_sources
from da.ops.image_preparation import ImagePreparation
from da.ops.seeding import derive_seed, permutation
from da.types import Batch, Check, Labelled, Role, Split, Unlabelled, View

from .files.array_checking import check_arrays
from .files.content_hashes import digest
from .files.decoding import Reading
from .files.domain_checks import ROLES, check_classes, check_options, check_sizes
from .files.image_sets import ImageSet, join_sets
from .files.set_facts import SetFacts
from .streams.augmentation import Transform
from .streams.batches import Chunks, ImageChunks, Pairs, Steps, Stream
from .streams.loader import Loader
from .streams.named_images import named_loader, preparation_by

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class DomainData(SetFacts, LightningDataModule, ABC):
    """Two domains of one benchmark: batches of both to train on, each domain alone to evaluate on.

    A subclass names its domains and classes, loads one split of one domain, and says how images
    are augmented; everything else is here.

    Args:
        source: the labelled domain; several with commas are one, and are drawn equally often.
        target: the domain without labels; what its images show is known to the evaluation alone.
        batch_size: images of each domain in a training batch.
        steps_per_epoch: a number, or one pass over the ``source``, over the ``target``, or over
            the ``longest`` of the two, in whole batches. The streams don't stop there: a domain
            is reshuffled whenever all of its images have been seen, at whatever step that is.
        balanced: draw every class of the source equally often.
        augment: augment the training images.
        num_workers: processes that make batches; the batches don't depend on it.
        eval_batch_size: images in a batch of evaluation.
        seed: of the order and the augmentation, together with the task.
        root: folder of the data.
        allow_same: permit a source that is the target, to measure what a domain itself allows.

    Attributes:
        image_size: side of the images that the network sees, in pixels.
        mean: of the normalisation, per channel, of images in [0, 1].
        std: of the normalisation, per channel.
        transform: how images are augmented and normalised.
        transductive: whether the target is evaluated on the very images that it is trained on,
            as the published protocols of some benchmarks do; the source then is too, unless an
            option of the set holds a part of it out.
        evaluations: what each loader of :meth:`val_dataloader` shows, in order.
        test_evaluations: what each loader of :meth:`test_dataloader` shows, in order.
        same_as: streams that hold the same images as one of ``evaluations`` and aren't evaluated
            again, ``{"target/validation": "target/test"}``.
    """

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    transform: Transform
    transductive: bool = False
    evaluations: tuple[tuple[Role, Split], ...] = (
        ("source", "validation"),
        ("target", "validation"),
        ("source", "test"),
        ("target", "test"),
    )
    test_evaluations: tuple[tuple[Role, Split], ...] = (("source", "test"), ("target", "test"))
    same_as: dict[str, str] = {}

    def __init__(
        self,
        source: str,
        target: str,
        batch_size: int = 32,
        steps_per_epoch: int | Literal["source", "target", "longest"] = "longest",
        balanced: bool = False,
        augment: bool = True,
        num_workers: int = 0,
        eval_batch_size: int = 256,
        seed: int = 0,
        root: str | None = None,
        allow_same: bool = False,
    ) -> None:
        super().__init__()
        self.sources = split_sources(source, {*self.domains, *(self.development or ())})
        self.source = ",".join(self.sources)
        self.target = target
        self.batch_size = batch_size
        self.steps_per_epoch = steps_per_epoch
        self.balanced = balanced
        self.augment = augment
        self.num_workers = num_workers
        self.eval_batch_size = eval_batch_size
        self.seed = seed
        self.root = root
        self.allow_same = allow_same
        self._sets: dict[tuple[str, Split], ImageSet] = {}
        self._views: dict[Role, tuple[View, ...]] = {"source": ("weak",), "target": ("weak",)}
        check_options(self)

    @abstractmethod
    def read_split(self, domain: str, split: Split) -> ImageSet:
        """The images of one split of one domain. Called once for each that is used."""

    @classmethod
    def read_all(cls, root: str | None = None) -> dict[str, dict[Split, ImageSet]]:
        """All domains, those to tune on included, each with those of its splits that differ."""
        return cls._read_splits(root, SPLITS)

    @classmethod
    def _read_splits(
        cls, root: str | None, splits: Sequence[Split], **options: Any
    ) -> dict[str, dict[Split, ImageSet]]:
        domains = sorted(cls.available(root), key=lambda name: not cls.has_labels(root, name))
        source, target, *_ = domains
        module = cls(source=source, target=target, root=root, **options)
        names = (*domains, *(cls.development or ()))
        return {
            domain: {split: module.read_split(domain, split) for split in splits}
            for domain in names
        }

    @classmethod
    def check(cls, root: str | None, workers: int | None = None, decode: bool = True) -> Check:
        """Counts the images of every split, see :meth:`da.types.DataSet.check`."""
        return check_arrays(cls.read_all(root), cls.counts)

    def check_presence(self, domain: str) -> None:
        """Refuses a domain whose images can't be found; reads as little as tells."""
        if self.root is not None:  # of whole domains in a file or two, nothing less than all
            for split in ("train", "test"):
                self.read_split(domain, split)

    def adopt(self, mean: Sequence[float], std: Sequence[float], size: int) -> None:
        """Prepares images as pretrained weights expect them, where the options leave it open.

        Called before anything is loaded; of use to sets whose images have no size of their own.

        Args:
            mean: of the normalisation, per channel, of images in [0, 1].
            std: of the normalisation, per channel.
            size: side of the images, in pixels.
        """

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def task(self) -> str:
        """The name of the task, ``"rendered->optical"``."""
        return f"{self.source}->{self.target}"

    @property
    def steps(self) -> int:
        """The number of steps per epoch, known once the data are."""
        if isinstance(self.steps_per_epoch, int):
            return self.steps_per_epoch
        passes = {role: len(self.set_of(role, "train")) // self.batch_size for role in ROLES}
        if self.steps_per_epoch == "longest":
            return max(passes.values())
        return passes[self.steps_per_epoch]

    @property
    def manifest(self) -> str:
        """A SHA-256 of the classes and of both domains in all their splits."""
        pairs = [(role, split) for role in ROLES for split in SPLITS]
        return digest(
            *((role, split, self.set_of(role, split).fingerprint()) for role, split in pairs)
        )

    def domain_of(self, role: Role) -> str:
        """The name of the source or the target."""
        return self.source if role == "source" else self.target

    def set_of(self, role: Role, split: Split) -> ImageSet:
        """The images of one split of the source or the target, loaded when first asked for."""
        domain = self.domain_of(role)
        if (domain, split) not in self._sets:
            names = self.sources if role == "source" else (domain,)
            parts = [self.read_split(name, split) for name in names]
            self._sets[domain, split] = join_sets(parts, names)
        return self._sets[domain, split]

    def prepare_data(self) -> None:
        """Makes whatever has to be made once per machine; called by Lightning in one process."""
        for role in ROLES:
            self.set_of(role, "train")

    def setup(self, stage: str | None = None) -> None:
        """Loads both domains and refuses what can't be trained on. Called by Lightning."""
        check_classes(self)
        if stage in (None, "fit"):
            check_sizes(self)

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """As Lightning's, which finds out anew for every training batch what it is made of."""
        if not isinstance(batch, Batch):
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        waiting = device.type in ("cpu", "mps")  # as Lightning: from an MPS device it is not safe

        def moved(x: torch.Tensor) -> torch.Tensor:
            return x.to(device, non_blocking=not waiting)

        views = [tuple(map(moved, domain.views)) for domain in batch if domain is not None]
        source, target = batch
        return Batch(
            source and Labelled(views[0], moved(source.labels), moved(source.indices)),
            Unlabelled(views[-1], moved(target.indices)),
        )

    def train_dataloader(self) -> DataLoader[Any]:
        """Yields :class:`da.types.Batch`, ``steps`` of them, going on from the run's last step."""
        self.setup("fit")
        pairs = Pairs(*((self._stream(role), self._views[role]) for role in ROLES))
        # The next full collection would copy what is shared with workers just started: better now
        # than in the middle of a run.
        begun = gc.collect if self.num_workers else None
        return self._loader(pairs, Steps(self.steps, self._steps_done, begun), persistent=True)

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """Loaders of :class:`da.types.Labelled`, one for each of ``evaluations``."""
        return [self.evaluation(role, split) for role, split in self.evaluations]

    def test_dataloader(self) -> list[DataLoader[Any]]:
        """Loaders of :class:`da.types.Labelled`, one for each of ``test_evaluations``."""
        return [self.evaluation(role, split) for role, split in self.test_evaluations]

    def images(self, role: Role, split: Split = "train", mixed: bool = False) -> DataLoader[Any]:
        """Yields images alone, ``(B, C, H, W)`` float32, not augmented.

        Args:
            role: of the domain.
            split: of it.
            mixed: in an order that has nothing to do with classes, the same in every run, for
                statistics of batches: files lie class by class, and those of one class after
                another are not the domain's. By default images come in their own order.
        """
        data = self.set_of(role, split)
        shuffled = mixed and not self.classes_in_turn
        order = permutation(derive_seed("mixed"), 0, len(data)) if shuffled else None
        return self._loader(ImageChunks(data, self.transform, self.eval_batch_size, order))

    def serve_views(self, source: Sequence[View], target: Sequence[View]) -> None:
        """Has training batches hold these views of the images of either domain, in this order."""
        self._views = {"source": tuple(source), "target": tuple(target)}

    @property
    def preferences(self) -> dict[str, Any]:
        """What the user has set of ``image_size``, ``mean`` and ``std``, by name."""
        return {}

    def evaluation(
        self,
        role: Role,
        split: Split,
        batch_size: int | None = None,
        order_seed: int | None = None,
    ) -> DataLoader[Any]:
        """Yields :class:`da.types.Labelled` of one split, not augmented.

        Args:
            role: of the domain.
            split: of it.
            batch_size: by default ``eval_batch_size``.
            order_seed: shuffles the images; by default they come in their own order.
        """
        data = self.set_of(role, split)
        order = None if order_seed is None else permutation(derive_seed(order_seed), 0, len(data))
        return self._loader(Chunks(data, self.transform, batch_size or self.eval_batch_size, order))

    def predict_images(self, place: str | Path) -> Loader:
        """See :meth:`da.types.DataModule.predict_images`; images that can't be read are named."""
        parts = (self.reading, self.transform, self.eval_batch_size)
        return named_loader(place, *parts, num_workers=self.num_workers, device=self._device())

    @property
    def preparation(self) -> ImagePreparation | None:
        """What evaluation does with an image; None where a transform of one's own does it."""
        return preparation_by(self.reading, self.transform)

    def remarks(self) -> list[str]:
        """See :meth:`da.types.DataModule.remarks`."""
        return []

    @property
    def reading(self) -> Reading:
        """How files are decoded; larger than ``image_size`` where ``transform`` then crops."""
        return Reading(self.image_size)

    def _stream(self, role: Role) -> Stream:
        return Stream(
            self.set_of(role, "train"),
            self.transform,
            derive_seed(self.seed, self.task, role),
            self.batch_size,
            balance=self.balanced and role == "source",
            augment=self.augment,
        )

    def _loader(
        self, data: Dataset[Any], sampler: Sampler[int] | None = None, persistent: bool = False
    ) -> Loader:
        """A loader of batches; for a CUDA device images are normalised there, a quarter is sent."""
        device = self._device()
        return Loader(
            data,
            self.transform,
            sampler,
            derive_seed(self.seed, self.task, "loader"),
            device,
            num_workers=self.num_workers,
            persistent_workers=persistent and self.num_workers > 0,
            pin_memory=device is not None,
        )

    def _device(self) -> torch.device | None:
        """The device of the run where images are normalised on it, which is a CUDA device."""
        device = None if self.trainer is None else self.trainer.strategy.root_device
        return device if device is not None and device.type == "cuda" else None

    def _steps_done(self) -> int:
        """Steps that the run has behind it, also in another process before a resume.

        ``current_epoch`` is one behind when the loader starts after a resume, ``global_step``
        counts every optimiser: the counter of processed batches is right in both cases, and in
        the middle of an epoch.
        """
        if self.trainer is None:
            return 0
        total: Any = self.trainer.fit_loop.epoch_loop.batch_progress.total
        return int(total.processed)


if TYPE_CHECKING:
    from da.types import DataModule, DataSet

    def _data_module(data: DomainData) -> DataModule:
        """The type checker proves here that ``da`` finds all that it asks for."""
        return data

    def _data_set(kind: type[DomainData]) -> type[DataSet]:
        return kind
