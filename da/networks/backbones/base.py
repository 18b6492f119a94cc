"""What a backbone is, how one is found by name, and where its weights come from."""

from __future__ import annotations

import sys
from abc import ABC
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from http.client import HTTPException
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from da.discovery import subclasses
from da.errors import UserError, unknown
from da.networks.weight_files import load_weight_file, read_weight_file

#: Whether :func:`build_backbone` reads the weights that it is told; see :func:`without_weights`.
_READ: ContextVar[bool] = ContextVar("read", default=True)


class Preprocessing(NamedTuple):
    """How images are to look for pretrained weights.

    Attributes:
        mean: of the normalisation, per channel, of images in [0, 1].
        std: of the normalisation, per channel.
        size: side of the images, in pixels.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int


class Backbone(nn.Module, ABC):
    """A network from images ``(B, 3, H, W)`` to features ``(B, num_features)``.

    A subclass names the networks that it builds and takes that name and the weights. It is built
    as published, with the normalisers that it was published with; the surgery comes later.

    Attributes:
        names: the networks of this family, as they are named on the command line.
        prefix: of the names of networks that come from another library, which lists them itself;
            ``"timm/"``. Such a family refuses an unknown name when it is built.
        num_features: the width of the output. Nothing else is assumed of a backbone.
        library: where a user without this project has the network from; this project by default.
        head: what its classifier is called there, ``"fc"`` or ``"classifier.6"``.
    """

    names: ClassVar[tuple[str, ...]] = ()
    prefix: ClassVar[str] = ""
    num_features: int
    library: ClassVar[str] = "da"
    head: str = "classifier"

    def __init__(self, name: str, weights: str | None = None):
        super().__init__()
        self.name = name

    def forward(self, images: Tensor) -> Tensor:
        """Features ``(B, num_features)`` of images ``(B, 3, H, W)``."""
        raise TypeError(f"{type(self).__name__} must define forward")

    def library_model(self) -> nn.Module:
        """The network as its library has it, without its classifier; by default this module."""
        return self

    @classmethod
    def build_library_model(cls, name: str) -> nn.Module:
        """A new network with random weights, as a user of its library alone would build it.

        The place of its classifier, ``head``, is empty.
        """
        return cls(name).library_model()

    @classmethod
    def preprocessing(cls, name: str) -> Preprocessing | None:
        """What the published weights of a network were trained with; None where there are none."""
        return None


def backbone_families() -> dict[str, type[Backbone]]:
    """Every backbone on disk: its name and the class that builds it."""
    families = subclasses("da.networks.backbones", Backbone)
    return {name: kind for kind in families.values() for name in kind.names}


def find_backbone_family(name: str) -> type[Backbone]:
    """The class that builds a backbone.

    Raises:
        UserError: for a name that is neither one of :func:`backbone_families` nor has one's prefix.
    """
    by_name = backbone_families()
    kinds = subclasses("da.networks.backbones", Backbone).values()
    prefixed = [kind for kind in kinds if kind.prefix]
    for kind in prefixed:
        if name.startswith(kind.prefix):
            return kind
    if name not in by_name:
        raise unknown("backbone", name, [*by_name, *(f"{kind.prefix}NAME" for kind in prefixed)])
    return by_name[name]


def build_backbone(name: str, weights: str | None = None) -> Backbone:
    """Builds a backbone by name.

    Args:
        name: one of :func:`backbone_families`, or ``timm/NAME`` for a model of timm.
        weights: None for random weights, ``"imagenet"`` for torchvision's ``IMAGENET1K_V1`` (of
            timm, what it takes by default), or the path of a file with a state dict (.pth, .pt,
            .safetensors).

    Raises:
        UserError: for an unknown name, and for weights that don't exist or don't fit.
    """
    return find_backbone_family(name)(name, weights if _READ.get() else None)


def preprocessing_of(name: str, weights: str | None) -> Preprocessing | None:
    """How images are to look for a backbone's weights; nothing is downloaded or read.

    Of a file it is taken to be as with the published weights of that network.

    Args:
        name: as for :func:`build_backbone`.
        weights: as for :func:`build_backbone`.

    Returns:
        None from random weights, and where nothing is known.
    """
    return None if weights is None else find_backbone_family(name).preprocessing(name)


def reads_weights() -> bool:
    """Whether backbones that are built now read their weights, see :func:`without_weights`."""
    return _READ.get()


@contextmanager
def without_weights() -> Iterator[None]:
    """Builds backbones without reading their weights, for when a checkpoint's state follows.

    A network that was trained from weights no longer needs them: their file may be gone, or be on
    another machine.
    """
    token = _READ.set(False)
    try:
        yield
    finally:
        _READ.reset(token)


def load_weights(
    model: nn.Module,
    path: str,
    ignore: tuple[str, ...] = (),
    twin: Callable[[], str | None] | None = None,
) -> None:
    """Loads a state dict from a file into ``model``, refusing a file that does not fit.

    Args:
        model: the network, changed in place.
        path: .safetensors, or a file of torch.save, read without running any code in it.
        ignore: first parts of names that may be absent from or extra in the file, such as the
            classifier's: heads are always new.
        twin: names another network whose tensors have the same shapes, if there is one; asked
            only where order and shapes alone tell which tensor is which.
    """
    if path == "imagenet":
        raise UserError(
            f"weights: there are none of ImageNet for {type(model).__name__}; give a file, or "
            "leave weights out"
        )
    load_weight_file(model, read_weight_file(path), ignore, twin)


def build_torchvision_model(name: str, weights: str | None, head: str) -> nn.Module:
    """Builds a torchvision classifier and loads its weights; the head is cut off by the caller.

    Args:
        name: a name that ``torchvision.models.get_model`` knows.
        weights: as for :func:`build_backbone`.
        head: first part of the names of the classifier's tensors.
    """
    import torchvision.models as zoo

    if weights == "imagenet":
        # V1 and not torchvision's default V2: the published tables were made with it.
        weights = download_weights(zoo.get_model_weights(name)["IMAGENET1K_V1"].url)
    model = zoo.get_model(name)
    if weights is not None:
        load_weights(model, weights, ignore=(head,))
    return model


def torchvision_preprocessing(name: str) -> Preprocessing | None:
    """That of torchvision's ``IMAGENET1K_V1``, from its own description."""
    import torchvision.models as zoo

    weights = zoo.get_model_weights(name)
    if "IMAGENET1K_V1" not in weights.__members__:
        return None
    transforms = weights["IMAGENET1K_V1"].transforms()
    return Preprocessing(tuple(transforms.mean), tuple(transforms.std), transforms.crop_size[0])


def download_weights(url: str) -> str:
    """Fetches a file of torchvision into the cache of torch.hub, unless it is there.

    The file appears only once it is whole and its hash is the one in its name. torch.hub's own
    loader would unpickle whatever is in it; here it is only fetched.
    """
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if file.exists():
        return str(file)
    hash_in_name = torch.hub.HASH_REGEX.search(file.name)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(
            url,
            str(file),
            hash_in_name.group(1) if hash_in_name else None,
            progress=sys.stderr.isatty(),
        )
    except (OSError, RuntimeError, HTTPException) as error:  # no network, cut, another hash
        reason = " ".join(str(error).split())
        raise UserError(
            f"weights: could not download {url} ({reason}); fetch it by hand and give the file: "
            "--model.weights FILE"
        ) from error
    return str(file)
