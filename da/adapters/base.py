"""The contract of an adapter: a trained network meets unlabelled images, batch after batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from torch import Tensor

from da.discovery import find_class, subclasses
from da.errors import UserError
from da.networks.network import Network

PACKAGE = "da.adapters"


class Adapter(ABC):
    """Adapts a network to the images that it is to predict, without labels and without a source.

    One class per file, found by its name. Its constructor's arguments are its options.

    Attributes:
        online: whether the prediction of a batch depends on the batches before it: their order and
            size are then part of the result.
        statistics_alone: whether nothing but batch norm's statistics is changed: a network without
            batch norm then predicts as it is.
    """

    online: ClassVar[bool] = True
    statistics_alone: ClassVar[bool] = False

    @abstractmethod
    def predict(
        self, network: Network, batches: Iterable[Tensor], domain: str = "target"
    ) -> Iterator[Tensor]:
        """Logits ``(B, K)`` of each batch, in order.

        Args:
            network: a copy that the adapter may change.
            batches: images ``(B, C, H, W)`` float32 on the network's device.
            domain: which domain they are of.
        """


def adapters() -> dict[str, type[Adapter]]:
    """Every adapter on disk, by class name."""
    return subclasses(PACKAGE, Adapter)


def adapter(name: str, options: dict[str, Any] | None = None) -> Adapter:
    """The adapter of a class name, ``"TENT"``, or of a dotted path.

    Args:
        name: of the class.
        options: of its constructor.

    Raises:
        UserError: for names and options that do not exist.
    """
    kind = find_class(name, PACKAGE, Adapter, "adapter")  # type: ignore[type-abstract]
    try:
        return kind(**(options or {}))
    except TypeError as error:
        raise UserError(f"adapter {name}: {error}") from error
