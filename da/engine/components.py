"""Methods and data sets by name: those on disk by class name, any other by its dotted path."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import pytorch_lightning as L

from da.data_sets import PACKAGE, find_data_set
from da.discovery import find_class, short_name, subclasses
from da.engine.spec import RunSpec
from da.errors import UserError
from da.installation import stored_name
from da.methods.base import Method
from da.types import DataSet

METHODS = "da.methods"


@cache
def available_methods() -> dict[str, type[Method]]:
    """Every method on disk, by class name."""
    return subclasses(METHODS, Method)


def find_method(name: str) -> type[Method]:
    """The method of a class name, or of a dotted path: ``DANN``, ``mypackage.methods.Mine``."""
    return find_class(name, METHODS, Method, "method")


def find_data(name: str) -> type[DataSet]:
    """The data set of a class name, or of a dotted path: ``Digits``, ``mypackage.data.Mine``."""
    return find_data_set(name)


def name_of_method(kind: type) -> str:
    """What a method is called in specifications: the shortest name that finds it."""
    return short_name(kind, METHODS, Method)


def name_of_data(kind: type) -> str:
    """What a data set is called in specifications: the shortest name that finds it."""
    return stored_name(short_name(kind, PACKAGE, L.LightningDataModule))


def parameters_of(owner: type) -> dict[str, inspect.Parameter]:
    """A constructor's arguments, and those that it hands on as ``**kwargs``, by name."""
    collected: dict[str, inspect.Parameter] = {}
    for base in owner.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters
        collected = {**parameters, **collected}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            break
    return {n: p for n, p in collected.items() if n not in ("self", "args", "kwargs")}


def defaults_of(owner: type) -> dict[str, Any]:
    """The defaults of those arguments, as settings keep them: lists for tuples."""
    values = {n: p.default for n, p in parameters_of(owner).items() if p.default is not p.empty}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def build_method(spec: RunSpec, num_classes: int, task: str) -> Method:
    """The method of a specification.

    Args:
        spec: what to train.
        num_classes: of the data.
        task: its name, part of the seed of the initial weights.

    Raises:
        UserError: for names and options that don't exist.
    """
    try:
        return find_method(spec.method)(
            num_classes=num_classes,
            task=task,
            seed=spec.seed,
            norm=spec.norm,
            norm_options=spec.norm_options,
            lr=spec.lr,
            **spec.model_args,
            **spec.method_args,
        )
    except TypeError as error:
        raise UserError(f"{spec.method}: {error}") from error
