"""What flows through the framework: images of two domains in, activations out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from da.ops.image_preparation import ImagePreparation

Role = Literal["source", "target"]
Split = Literal["train", "validation", "test"]
View = Literal["weak", "strong", "plain"]
"""How an image is augmented: as usual, strongly on top of that, or not at all."""


class Labelled(NamedTuple):
    """Images of the source domain with their labels.

    Attributes:
        views: one or more ``(B, C, H, W)`` float32, normalised: the same images, each view
            augmented by itself.
        labels: ``(B,)`` int64, from 0 to ``num_classes - 1``; in the evaluation of a target
            negative where an image has none.
        indices: ``(B,)`` int64, the positions of the images in their set.
    """

    views: tuple[Tensor, ...]
    labels: Tensor
    indices: Tensor

    @property
    def images(self) -> Tensor:
        """The first view, ``(B, C, H, W)``."""
        return self.views[0]


class Unlabelled(NamedTuple):
    """Images of the target domain. There is no field for labels, so none can leak into training.

    Attributes:
        views: as of :class:`Labelled`.
        indices: ``(B,)`` int64, the positions of the images in their set.
    """

    views: tuple[Tensor, ...]
    indices: Tensor

    @property
    def images(self) -> Tensor:
        """The first view, ``(B, C, H, W)``."""
        return self.views[0]


class Batch(NamedTuple):
    """One training batch of both domains; source-free stages get no source."""

    source: Labelled | None
    target: Unlabelled


class Segment(NamedTuple):
    """Neighbouring samples of one domain in a batch.

    Attributes:
        domain: ``"source"`` or ``"target"``.
        size: how many.
    """

    domain: str
    size: int


Domains = tuple[Segment, ...]
"""Which samples of a batch are of which domain, in the order in which they lie in it."""


class Activations(NamedTuple):
    """What the network computes for the images of one domain.

    Attributes:
        features: ``(B, F)`` float, the output of the bottleneck (of the backbone where there is
            none); what adversarial methods align.
        logits: ``(B, K)`` float, the output of the classifier.
        taps: outputs of named layers that a method asked for, batch first.
    """

    features: Tensor
    logits: Tensor
    taps: Mapping[str, Tensor] = {}


class Predictions(NamedTuple):
    """What an evaluation collects of one stream, on the CPU.

    Attributes:
        logits: ``(N, K)`` float32.
        labels: ``(N,)`` int64, negative where an image has none; None of a stream without labels.
        features: ``(N, F)`` float32.
    """

    logits: Tensor
    labels: Tensor | None
    features: Tensor

    @property
    def deviation(self) -> float:
        """Standard deviation over the samples of the features, mean over the features."""
        return self.features.std(dim=0, unbiased=False).mean().item()


class NamedImages(NamedTuple):
    """Images of some files, as a network takes them.

    Attributes:
        images: ``(B, C, H, W)`` float32, normalised; B may be 0.
        names: of their B files, relative to the folder that was named.
        unreadable: the files of the batch that can't be read, and what is wrong with each.
        damaged: of the B files, those that are damaged inside and read all the same, and how.
    """

    images: Tensor
    names: list[str]
    unreadable: dict[str, str]
    damaged: Mapping[str, str] = {}


Images = Tensor | list[Tensor]
"""``(B, C, H, W)`` uint8, or B of ``(C, H, W)`` where their sizes differ."""


@runtime_checkable
class ImagesOfDomain(Protocol):
    """The images of one split of one domain, as training and conversion read them.

    Attributes:
        classes: names in the order of the labels.
        labels: ``(N,)`` int64; negative where an image of a target has none.
    """

    classes: tuple[str, ...]
    labels: NDArray[np.int64]

    def __len__(self) -> int: ...

    def images(self, indices: NDArray[np.int64]) -> Images:
        """Those at the indices ``(B,)``, for the set's transform."""

    def names(self, indices: NDArray[np.int64]) -> list[str]:
        """What people call the images at the indices ``(B,)``: their files, or their positions."""

    def fingerprint(self) -> str:
        """A SHA-256 of what the set holds."""


@runtime_checkable
class ImageTransform(Protocol):
    """What happens to images between their set and the network."""

    def evaluate(self, images: Images) -> Tensor:
        """Images of :class:`ImagesOfDomain` as ``(B, C, H, W)`` float32, without chance."""


@runtime_checkable
class DataModule(Protocol):
    """What a Lightning data module of two domains offers; training uses nothing else of it.

    Attributes:
        source: the name of the labelled domain, or of several with commas.
        sources: the domains that it consists of.
        target: the name of the domain without labels.
        task: ``"source->target"``.
        classes: names in the order of the labels.
        num_classes: how many.
        batch_size: images of each domain in a training batch.
        eval_batch_size: images in a batch of evaluation.
        seed: of order and augmentation.
        image_size: side of the images, in pixels.
        mean: of the normalisation, per channel.
        std: of the normalisation, per channel.
        transform: what prepares images.
        manifest: a SHA-256 of the classes and of both domains in all their splits.
        evaluations: what each loader of ``val_dataloader`` shows, in order.
        test_evaluations: what each loader of ``test_dataloader`` shows, in order.
        same_as: streams that hold the same images as one of ``evaluations``.
        preferences: what the user has set of how images are prepared, such as ``image_size``,
            ``mean`` and ``std``, by name.
    """

    source: str
    sources: tuple[str, ...]
    target: str
    batch_size: int
    eval_batch_size: int
    seed: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    evaluations: tuple[tuple[Role, Split], ...]
    test_evaluations: tuple[tuple[Role, Split], ...]
    same_as: dict[str, str]

    @property
    def task(self) -> str: ...

    @property
    def num_classes(self) -> int: ...

    @property
    def transform(self) -> ImageTransform: ...

    @property
    def manifest(self) -> str: ...

    @property
    def preferences(self) -> Mapping[str, object]: ...

    def prepare_data(self) -> None: ...

    def setup(self, stage: str | None = None) -> None: ...

    def adopt(self, mean: Sequence[float], std: Sequence[float], size: int) -> None:
        """Prepares images as pretrained weights expect them, where the options leave it open."""

    def serve_views(self, source: Sequence[View], target: Sequence[View]) -> None:
        """Has training batches hold these views of the images of either domain, in this order."""

    def domain_of(self, role: Role) -> str:
        """The name of the source or the target."""

    def set_of(self, role: Role, split: Split) -> ImagesOfDomain:
        """The images of one split of the source or the target."""

    def images(self, role: Role, split: Split = "train", mixed: bool = False) -> Iterable[Tensor]:
        """Batches of images alone, ``(B, C, H, W)`` float32, not augmented.

        They come in their own order or ``mixed``, in one that has nothing to do with classes.
        """

    def evaluation(
        self,
        role: Role,
        split: Split,
        batch_size: int | None = None,
        order_seed: int | None = None,
    ) -> Iterable[Labelled]:
        """Batches of one split of a domain, in their own order or shuffled, not augmented."""

    def predict_images(self, place: str | Path) -> Iterable[NamedImages]:
        """Batches of the image files in a folder and below, or of one file, as in evaluation."""

    @property
    def preparation(self) -> ImagePreparation | None:
        """What evaluation does with an image, as plain values; None where those can't say it."""

    def remarks(self) -> Sequence[str]:
        """What users should know of the images of both domains, a line each: files passed over."""

    def train_dataloader(self) -> Iterable[Batch]: ...

    def val_dataloader(self) -> Sequence[Iterable[Labelled]]: ...

    def test_dataloader(self) -> Sequence[Iterable[Labelled]]: ...


Origin = Literal["made here", "downloaded", "got by hand", "the user's"]
"""Where the images of a data set come from."""


class Check(NamedTuple):
    """What there is of a data set.

    Attributes:
        text: for people, several lines.
        well: whether all is there and as it is published.
    """

    text: str
    well: bool


@runtime_checkable
class DataSet(DataModule, Protocol):
    """What a class of data modules states of itself, for grids and for the commands about data.

    Attributes:
        title: as papers call it.
        reference: authors, title, venue, year; empty where nothing is to be cited.
        licence: what is known of it, one line.
        homepage: where it is published.
        domains: empty on the class where they are known only once its folder is read.
        symbols: letters of the domains in tables, ``{"amazon": "A"}``.
        counts: images per domain, or per ``"domain/split"``, where they are published.
        published_splits: whether training and test images are told apart by published lists.
        development: a source and a target to tune on, outside every table.
        version: of how the images are made; another one makes finished results outdated.
    """

    title: str
    reference: str
    licence: str
    homepage: str
    domains: tuple[str, ...]
    symbols: dict[str, str]
    counts: dict[str, int]
    published_splits: bool
    development: tuple[str, str] | None
    version: int

    def __init__(
        self, source: str, target: str, root: str | None = None, **options: Any
    ) -> None: ...

    @classmethod
    def available(cls, root: str | None = None) -> tuple[str, ...]:
        """The domains of the set, where need be as found in its folder."""

    @classmethod
    def tasks(cls) -> tuple[str, ...]:
        """The tasks as papers write them, ``"A→W"``."""

    @classmethod
    def origin(cls) -> Origin: ...

    @classmethod
    def holds_out(cls, role: Role, options: Mapping[str, Any]) -> bool:
        """Whether validation images are others than those trained on; with these options."""

    @classmethod
    def fetch(cls, root: Path) -> None:
        """Downloads the set into a folder, or says what to do by hand."""

    @classmethod
    def check(cls, root: str | None, workers: int | None = None, decode: bool = True) -> Check:
        """Says what there is of the set, and what of it is not as it should be.

        Args:
            root: its folder.
            workers: processes; one per core by default.
            decode: decode every image; else only whether files are there, and not empty.
        """

    @classmethod
    def read_all(cls, root: str | None = None) -> Mapping[str, Mapping[Split, ImagesOfDomain]]:
        """All domains, those to tune on included, each with those of its splits that differ."""

    def check_presence(self, domain: str) -> None:
        """Refuses a domain whose images can't be found; reads as little as tells."""
