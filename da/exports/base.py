"""What an exported network is, and what a format of files for it has to do."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from da.discovery import subclasses
from da.errors import UserError, unknown
from da.networks.network import Network
from da.ops.image_preparation import ImagePreparation, preparation_of
from da.ops.log_output import without_warnings

#: Under which a file holds what it says of itself.
KEY = "da_export"

INPUT, OUTPUT = "images", "logits"
"""Names of what a network takes, ``(B, 3, H, W)`` float32, and gives, ``(B, K)`` float32."""


class About(NamedTuple):
    """What an exported file says of itself.

    Attributes:
        classes: names in the order of the logits.
        preparation: of the images.
        facts: for people, and for who builds the network again: backbone, head, how it was
            trained, versions; values that JSON holds.
    """

    classes: tuple[str, ...]
    preparation: ImagePreparation
    facts: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        side = self.preparation.image_size
        return {
            "classes": list(self.classes),
            "preprocessing": self.preparation.as_dict(),
            "input": {"name": INPUT, "shape": ["batch", 3, side, side], "dtype": "float32"},
            "output": {"name": OUTPUT, "shape": ["batch", len(self.classes)], "dtype": "float32"},
            **self.facts,
        }

    def as_json(self) -> str:
        """As text; names of classes that are no UTF-8 are escaped as JSON escapes them."""
        return json.dumps(self.as_dict(), allow_nan=False)


def about_of(text: str, path: str) -> About:
    """What a file says of itself, see :meth:`About.as_json`.

    Raises:
        UserError: where it does not say what is needed to predict with it.
    """
    try:
        content = json.loads(text)
        classes = content.pop("classes")
        prepared = content.pop("preprocessing")
        facts = {k: v for k, v in content.items() if k not in ("input", "output")}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(
            f"'{path}' does not say which classes it tells apart and how images are prepared; "
            "give a file that export wrote"
        ) from error
    return About(tuple(map(str, classes)), preparation_of(prepared, path), facts)


class Exported(NamedTuple):
    """A network that was read from a file.

    Attributes:
        logits: of images ``(B, 3, H, W)`` float32 on the CPU: ``(B, K)`` float32.
        about: see :class:`About`.
    """

    logits: Callable[[Tensor], Tensor]
    about: About


class ExportFormat(ABC):
    """A format of files; a subclass in its own file in ``formats`` is found by its ``name``.

    Attributes:
        name: as on the command line.
        suffix: of its files.
        writes_with: packages that it is written with, beyond those of this project.
        reads_with: packages that it is read with.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    writes_with: ClassVar[tuple[str, ...]] = ()
    reads_with: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def write(self, network: Network, about: About, path: Path) -> None:
        """Writes a network of plain layers.

        Args:
            network: in evaluation mode, in float32 on the CPU; it may be changed.
            about: what the file is to say of itself. What the format itself has to tell whoever
                builds the network is added.
            path: a temporary file of the right suffix.

        Raises:
            UserError: where the format can't hold this network; says what can.
        """

    @abstractmethod
    def read(self, path: Path) -> Exported:
        """Reads such a file without running any code in it, on the CPU.

        Raises:
            UserError: where it is damaged, or not one that export wrote.
        """

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether a file is of this format; reads no more than its beginning."""
        return path.suffix.lower() == cls.suffix


@contextmanager
def refusing(form: ExportFormat, instead: str) -> Iterator[None]:
    """A block in which a library turns a network into its own form; what it can't is one line.

    Args:
        form: that the network is to have.
        instead: another one to try.
    """
    try:
        with without_warnings():
            yield
    except Exception as error:  # exporters raise whatever an operation of the network provokes
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"this network can't be written as {form.name} ({reason}); try --format {instead}"
        ) from error


def export_formats() -> dict[str, type[ExportFormat]]:
    """The formats on disk by name."""
    kinds = subclasses("da.exports.formats", ExportFormat)
    return {kind.name: kind for kind in sorted(kinds.values(), key=lambda kind: kind.name)}


def export_format(name: str) -> ExportFormat:
    """The format of a name, with the packages that it needs.

    Raises:
        UserError: for an unknown name, and where a package is missing.
    """
    formats = export_formats()
    if name not in formats:
        raise unknown("format", name, formats)
    kind = formats[name]
    return _with_packages(kind, *kind.writes_with, *kind.reads_with)  # it is read for the check


def _with_packages(kind: type[ExportFormat], *packages: str) -> ExportFormat:
    for package in packages:
        try:
            import_module(package)
        except ImportError as error:
            raise UserError(
                f"format '{kind.name}' needs the package '{package}', which can't be imported "
                f"({error}): pip install {' '.join((*kind.writes_with, *kind.reads_with))}"
            ) from error
    return kind()


def _format_of(path: str) -> type[ExportFormat] | None:
    place = Path(path).expanduser()
    kinds = export_formats().values()
    return next((kind for kind in kinds if kind.recognises(place)), None)


def is_exported(path: str) -> bool:
    """Whether a path is one of a file that ``export`` writes, and not of a checkpoint."""
    return _format_of(path) is not None


def read_exported(path: str) -> Exported:
    """The network in a file that ``export`` wrote.

    Raises:
        UserError: where there is no such file, it is damaged, or a package is missing.
    """
    kind = _format_of(path)
    if kind is None:
        raise UserError(f"'{path}' is no file that export wrote; name one")
    place = Path(path).expanduser()
    if not place.is_file():
        raise UserError(f"no file '{path}'; give a file that export wrote")
    return _with_packages(kind, *kind.reads_with).read(place)
