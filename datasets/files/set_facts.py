"""What a class of data sets states of itself: its names and numbers, and where it comes from."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from da.errors import UserError
from da.types import Origin, Role


class SetFacts:
    """What is known of a set before any of its images is read; for grids and for ``data list``.

    Attributes:
        title: as papers call it.
        reference: authors, title, venue, year; empty where nothing is to be cited.
        licence: what is known of it, one line.
        homepage: where it is published.
        domains: the names that ``source`` and ``target`` may take; empty on a class whose domains
            are known only once its folder is read.
        symbols: letters of the domains in tables, ``{"amazon": "A"}``.
        classes: names in the order of the labels; empty where ``domains`` is.
        counts: images per domain, or per ``"domain/split"`` where there are published splits.
        class_counts: images of each class, per domain, where they are published.
        published_splits: whether the set comes with lists of images for training and for test.
        own_validation: whether every domain has validation images that are not trained on; of a set
            without, only the source has them, where the option ``validation`` holds a share out.
        classes_in_turn: whether the images of a split lie in an order that mixes classes as it is.
        development: a (source, target) pair to tune on, outside every table; its domains may be
            chosen too.
        version: of how the images are made. Raise it when the same options give other images:
            finished results of the version before are then left behind.
    """

    title: str = ""
    reference: str = ""
    licence: str = ""
    homepage: str = ""
    domains: tuple[str, ...] = ()
    symbols: dict[str, str] = {}
    classes: tuple[str, ...] = ()
    counts: dict[str, int] = {}
    class_counts: dict[str, tuple[int, ...]] = {}
    published_splits: bool = False
    own_validation: bool = True
    classes_in_turn: bool = False
    development: tuple[str, str] | None = None
    version: int = 1

    @classmethod
    def available(cls, root: str | None = None) -> tuple[str, ...]:
        """The domains of the set, where need be as found in its folder."""
        return cls.domains

    @classmethod
    def has_labels(cls, root: str | None, domain: str) -> bool:
        """Whether a domain can be a source; those of published sets all can."""
        return True

    @classmethod
    def tasks(cls) -> tuple[str, ...]:
        """The tasks in the published notation, ``"A→W"``: by default all ordered pairs."""
        return tuple(
            f"{cls.symbols.get(a, a)}→{cls.symbols.get(b, b)}"
            for a, b in itertools.permutations(cls.domains, 2)
        )

    @classmethod
    def is_needed(cls, domain: str) -> bool:
        """Whether a domain is in one of the tasks; each is where none is stated."""
        symbol = cls.symbols.get(domain, domain)
        tasks = cls.tasks()
        return not tasks or any(symbol in task.split("→") for task in tasks)

    @classmethod
    def holds_out(cls, role: Role, options: Mapping[str, Any]) -> bool:
        """Whether the validation images of a domain are others than those it is trained on.

        Args:
            role: ``"source"`` or ``"target"``.
            options: of the set, as a grid gives them.
        """
        return cls.own_validation or (
            role == "source" and float(options.get("validation", 0.0)) > 0
        )

    @classmethod
    def origin(cls) -> Origin:
        """Where the images come from."""
        return "made here"

    @classmethod
    def fetch(cls, root: Path) -> None:
        """Downloads the set into a folder, or says what to do by hand."""
        raise UserError(
            f"{cls.__name__} has nothing to download: it is made here, or consists of your own "
            "files"
        )
