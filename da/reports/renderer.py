"""What a format of a report is: one file, made of the report and of nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from da.discovery import subclasses
from da.reports.model import Report


class Renderer(ABC):
    """Writes a report down. A module of :mod:`da.reports.formats` that extends this is found there.

    Attributes:
        file: the name of the file.
    """

    file: ClassVar[str]

    @abstractmethod
    def render(self, report: Report) -> str:
        """The content of the file; the same report gives the same text.

        Names of data sets, classes and methods are escaped for the format: they may hold anything.
        """


def renderers() -> list[Renderer]:
    """One of every format, by the names of their files."""
    kinds = subclasses("da.reports.formats", Renderer)
    return sorted((kind() for kind in kinds.values()), key=lambda one: one.file)
