"""Data sets by name: the one place where a class that comes from outside becomes a typed one."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from inspect import getattr_static, isfunction
from typing import TYPE_CHECKING, cast

from da.discovery import find_class, subclasses
from da.errors import UserError
from da.installation import DATA_SETS, importable_name

if TYPE_CHECKING:
    import torch

    from da.ops.image_preparation import ImagePreparation
    from da.types import DataModule, DataSet, NamedImages

PACKAGE = DATA_SETS
"""Where data sets are looked for; the only thing that this library knows of them."""


def data_sets() -> dict[str, type[DataSet]]:
    """Every data set on disk, by class name."""
    from pytorch_lightning import LightningDataModule

    return cast("dict[str, type[DataSet]]", subclasses(PACKAGE, LightningDataModule))


def find_data_set(name: str) -> type[DataSet]:
    """The class of a short name (``Digits``) or a dotted one, from anywhere on the path.

    ``datasets.digits.Digits`` and ``da_datasets.digits.Digits`` are one class, in a checkout and
    installed alike.

    Raises:
        UserError: for a name that is none, with those that are near; and for a class that lacks
            something of :class:`da.types.DataSet`, with what it lacks.
    """
    from pytorch_lightning import LightningDataModule

    return as_data_set(find_class(importable_name(name), PACKAGE, LightningDataModule, "data set"))


def as_data_set(value: type) -> type[DataSet]:
    """A class, refused where it lacks something of :class:`da.types.DataSet`."""
    from da.types import DataModule, DataSet

    # What only an instance has (source, transform) is checked once there is one.
    wanted = {
        *members(DataSet),
        *(x for x in members(DataModule) if isfunction(vars(DataModule).get(x))),
    }
    if lacking := sorted(name for name in wanted if not hasattr(value, name)):
        raise _no_data(value, "data set", lacking)
    return cast("type[DataSet]", value)


def as_data_module(value: object) -> DataModule:
    """A data module, refused where it lacks something of :class:`da.types.DataModule`."""
    from da.types import DataModule

    # Not by isinstance: before Python 3.12 it reads every property, and the manifest reads files.
    absent = object()
    if lacking := [x for x in members(DataModule) if getattr_static(value, x, absent) is absent]:
        raise _no_data(type(value), "data module", lacking)
    return cast("DataModule", value)


def prepared_images(
    place: str,
    preparation: ImagePreparation,
    batch_size: int,
    workers: int = 0,
    device: torch.device | None = None,
) -> Iterable[NamedImages]:
    """Batches of the image files in a folder and below, or of one file; no data set is needed.

    Args:
        place: the folder or the file.
        preparation: what is done with an image.
        batch_size: files of a batch.
        workers: processes that read them.
        device: where images are normalised; the CPU where not given.
    """
    module = import_module(f"{PACKAGE}.streams.named_images")
    batches = module.prepared_images(place, preparation, batch_size, workers, device)
    return cast("Iterable[NamedImages]", batches)


def members(protocol: type) -> list[str]:
    """The names that a protocol itself asks for, without those of what it extends.

    >>> from da.types import ImagesOfDomain
    >>> members(ImagesOfDomain)
    ['classes', 'fingerprint', 'images', 'labels', 'names']
    """
    names = {*vars(protocol), *protocol.__annotations__}
    return sorted(name for name in names if not name.startswith("_"))


def _no_data(kind: type, what: str, lacking: list[str]) -> UserError:
    return UserError(
        f"{kind.__module__}.{kind.__qualname__} is no {what}: it lacks {', '.join(lacking)}; "
        f"extend {PACKAGE}.base.DomainData, which has them"
    )
