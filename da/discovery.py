"""Classes are found on disk: adding one is adding a file, there is no registry to edit."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache
from types import GenericAlias, ModuleType
from typing import TypeVar

T = TypeVar("T")


def modules(package: str) -> list[ModuleType]:
    """Imports and returns the modules directly inside a package, by name."""
    root = importlib.import_module(package)
    names = sorted(info.name for info in pkgutil.iter_modules(root.__path__))
    return [importlib.import_module(f"{package}.{name}") for name in names]


@cache
def subclasses(package: str, base: type[T]) -> dict[str, type[T]]:
    """The concrete public subclasses of ``base`` that a package's modules define, by class name.

    Args:
        package: dotted name, ``"da.methods"``.
        base: the class that they extend. It is left out, as are classes that are only imported
            there, abstract ones and those whose names start with an underscore.
    """
    found: dict[str, type[T]] = {}
    for module in modules(package):
        for name, value in vars(module).items():
            if (
                isinstance(value, type)
                and not isinstance(value, GenericAlias)  # Python 3.10 calls list[int] a type
                and issubclass(value, base)
                and value is not base
                and f"{value.__module__}.".startswith(f"{module.__name__}.")
                and not inspect.isabstract(value)
                and not name.startswith("_")
            ):
                found[name] = value
    return dict(sorted(found.items()))
