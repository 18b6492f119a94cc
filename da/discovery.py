"""Classes are found on disk: adding one is adding a file, there is no registry to edit."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
import traceback
from functools import cache
from types import GenericAlias, ModuleType
from typing import Any, TypeVar, cast

from da.errors import UserError, unknown

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


def find_class(name: str, package: str, base: type[T], kind: str) -> type[T]:
    """The class of a short name on disk, or of a dotted path from anywhere.

    Args:
        name: ``"DANN"``, or ``"package.module.Class"``.
        package: where short names are looked for.
        base: the class that it must extend.
        kind: what it is to the user, for errors.

    Raises:
        UserError: where there is no such class; lists those on disk.
    """
    known: dict[str, type[T]] = subclasses(package, cast(Any, base))
    if "." not in name:
        if name not in known:
            raise unknown(kind, name, known)
        return known[name]
    module, _, title = name.rpartition(".")
    try:
        value = getattr(importlib.import_module(module), title)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise UserError(f"{kind} '{name}': its module needs '{error.name}'") from error
        if not f"{module}.".startswith(f"{package.partition('.')[0]}."):
            raise UserError(
                f"unknown {kind} '{name}': Python finds no module '{error.name}'; have PYTHONPATH "
                f"name the folder that it lies in, or take one of: {', '.join(known)}"
            ) from None
        raise unknown(kind, name, [*known, *_dotted(known)]) from None
    except AttributeError as error:
        if module not in sys.modules:
            raise _unusable(kind, name, error) from error
        raise unknown(kind, name, _in_module(module, base) or [*known, *_dotted(known)]) from None
    except Exception as error:
        raise _unusable(kind, name, error) from error
    if not isinstance(value, type) or not issubclass(value, base):
        raise UserError(f"{kind} '{name}': expected a subclass of {base.__name__}, got {value!r}")
    if inspect.isabstract(value):
        raise UserError(
            f"{kind} '{name}': expected a class that can be made; this one is abstract, as it "
            f"leaves out {', '.join(sorted(cast(Any, value).__abstractmethods__))}"
        )
    return value


def _in_module(module: str, base: type[T]) -> list[str]:
    """The dotted names of the classes in a module that extend ``base``."""
    return [
        f"{module}.{title}"
        for title, value in vars(sys.modules[module]).items()
        if inspect.isclass(value) and issubclass(value, base) and value.__module__ == module
    ]


def _unusable(kind: str, name: str, error: Exception) -> UserError:
    """A module that is there and fails while it is imported, with the line that failed."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    at = "" if isinstance(error, SyntaxError) else f" ({place.filename}, line {place.lineno})"
    return UserError(
        f"{kind} '{name}': its module can't be imported: {type(error).__name__}: {text}{at}"
    )


def _dotted(known: dict[str, type[T]]) -> list[str]:
    return [f"{value.__module__}.{value.__qualname__}" for value in known.values()]


def short_name(value: type, package: str, base: type[T]) -> str:
    """The shortest name by which :func:`find_class` finds a class."""
    title = value.__qualname__
    on_disk = subclasses(package, cast(Any, base)).get(title) is value
    return title if on_disk else f"{value.__module__}.{title}"
