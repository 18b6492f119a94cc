"""The keys of a grid in words, from their types and docstrings: for help, and for errors."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator
from types import GenericAlias
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from da.errors import unknown

KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


class Key(NamedTuple):
    """One key of a file of settings.

    Attributes:
        name: with those that it stands under, ``"tune.seeds"``.
        kind: what it takes.
        default: in words; empty where it must be given.
        meaning: one sentence or several.
    """

    name: str
    kind: str
    default: str
    meaning: str


def is_settings(annotation: Any) -> bool:
    """Whether a type is a group of settings; Python 3.10 calls list[int] a class, too."""
    if isinstance(annotation, GenericAlias) or not isinstance(annotation, type):
        return False
    return issubclass(annotation, BaseModel)


def documented_keys(
    model: type[BaseModel], prefix: str = "", shown: frozenset[type[BaseModel]] = frozenset()
) -> Iterator[Key]:
    """Every key of some settings, each followed by those under it.

    Args:
        model: the settings.
        prefix: of their names.
        shown: settings whose keys are not listed again.
    """
    inherited = [name for name in model.model_fields if name not in vars(model)["__annotations__"]]
    own = [name for name in model.model_fields if name not in inherited]
    listed = [name for name in own if get_origin(model.model_fields[name].annotation) is tuple
              and _settings_in(model.model_fields[name].annotation)]  # fmt: skip
    for name in [*(name for name in own if name not in listed), *inherited, *listed]:
        field = model.model_fields[name]
        nested = _settings_in(field.annotation)
        meaning = " ".join((field.description or "").replace("``", "").split())
        key = Key(f"{prefix}{name}", kind_of(field), _default(field), meaning)
        if nested in shown:
            key = key._replace(meaning=f"{key.meaning} Its keys are those of {name} above.")
        yield key
        if nested and nested not in shown:
            number = "<n>." if name in listed else ""
            yield from documented_keys(nested, f"{prefix}{name}.{number}", shown)
            shown |= {nested}


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return ""
    value = field.default
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(str, value))}]"
    return "nothing" if value is None else str(value)


def kind_of(field: FieldInfo) -> str:
    """What a field takes, in words: ``a whole number above 0``."""
    return _kind(field.annotation, field.metadata)


def _kind(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        extra = [m for item in arguments[1:] for m in getattr(item, "metadata", [item])]
        return _kind(arguments[0], extra)
    if origin in (Union, types.UnionType):
        parts = [_kind(part, metadata) for part in arguments if part is not type(None)]
        return " or ".join(dict.fromkeys(parts))
    if origin is Literal:
        values = ", ".join(map(str, arguments))
        return f"one of {values}" if len(arguments) > 1 else values
    if origin is tuple:
        return f"a list of: {_kind(arguments[0])}"
    if origin is dict:
        if get_origin(arguments[1]) is dict:
            return "names, each with its own options or none"
        if get_origin(arguments[1]) is tuple:
            return "names, each with a list of values"
        return "options by name"
    if is_settings(annotation):
        return "settings"
    return " ".join([KINDS.get(annotation, "a value"), *_bounds(metadata)])


def _bounds(metadata: Iterable[Any]) -> Iterator[str]:
    for item in metadata:
        if isinstance(item, annotated_types.Gt):
            yield f"above {item.gt}"
        elif isinstance(item, annotated_types.Ge):
            yield f"from {item.ge}"
        elif isinstance(item, annotated_types.Lt):
            yield f"below {item.lt}"


def _settings_in(annotation: Any) -> type[BaseModel] | None:
    """The settings that an annotation is of, or a list of."""
    if get_origin(annotation) is tuple:
        annotation = get_args(annotation)[0]
    nested = is_settings(annotation)
    return annotation if nested else None


#: Settings that people look for in a group, and the key of the grid that holds them.
ELSEWHERE: dict[tuple[str, ...], str] = {
    ("optimizer", "lr"): "lr",
    ("trainer", "max_epochs"): "epochs",
    ("trainer", "precision"): "precision",
    ("trainer", "accelerator"): "device",
    ("trainer", "logger"): "logger",
}


def explain(error: ValidationError, model: type[BaseModel]) -> dict[str, list[str]]:
    """What is wrong with settings: by first key, a line each. Several tries of one are one line."""
    errors = error.errors()
    missing = [item["loc"] for item in errors if item["type"] == "missing"]
    lines: dict[tuple[str, ...], tuple[bool, str]] = {}
    for item in errors:
        place = _place(item["loc"], model)
        key, specific = ".".join(place.path), True
        if item["type"] == "extra_forbidden":
            meant = ELSEWHERE.get(place.path[-2:])
            line = (
                f"{key}: the grid has a key of its own for it, {meant}"
                if meant
                else str(unknown(place.kind, place.path[-1], place.owner.model_fields))
            )
            misspelt = [loc for loc in missing if f"did you mean '{loc[-1]}'" in line]
            # A misspelt key is missing, too.
            missing = [loc for loc in missing if loc not in misspelt]
        elif item["type"] == "missing":
            continue
        elif item["type"] == "value_error":
            message = item["msg"].removeprefix("Value error, ")
            line = "\n".join(f"{key}: {m}" if key else m for m in message.split("\n"))
        else:
            specific = False
            line = f"{key}: expected {place.expected}, got {_shown(item['input'])}"
        # Of a choice between types each reports an error: what a validator says is the best one.
        if place.path not in lines or (specific and not lines[place.path][0]):
            lines[place.path] = (specific, line)
    for location in missing:
        place = _place(location, model)
        line = f"{'.'.join(place.path)}: missing: expected {place.expected}"
        lines.setdefault(place.path, (True, line))
    by_key: dict[str, list[str]] = {}
    for path, (specific, line) in lines.items():
        parts_too = any(len(path) < len(other) and other[: len(path)] == path for other in lines)
        if specific or not parts_too:
            by_key.setdefault(path[0] if path else "", []).extend(line.split("\n"))
    return by_key


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


class _Place(NamedTuple):
    """Where an error is: its keys, the settings that hold the last one, and what it takes."""

    path: tuple[str, ...]
    owner: type[BaseModel]
    expected: str

    @property
    def kind(self) -> str:
        """What an unknown key here would have been."""
        return f"setting of {'.'.join(self.path[:-1])}" if self.path[1:] else "setting"


def _place(location: tuple[int | str, ...], model: type[BaseModel]) -> _Place:
    """The place of an error; pydantic's has the names of the types that it tried, too."""
    path: list[str] = []
    owner, annotation = model, None
    metadata: list[Any] = []
    inside: type[BaseModel] | None = model
    for part in location:
        if inside is not None and isinstance(part, str):
            owner, path = inside, [*path, part]
            if (field := inside.model_fields.get(part)) is None:
                break
            annotation, metadata = field.annotation, field.metadata
            inside = _settings_in(annotation)
        elif isinstance(part, int) or get_origin(annotation) is dict:
            path.append(str(part))
            annotation, metadata = _item_of(annotation), []
    return _Place(tuple(path), owner, _kind(annotation, metadata))


def _item_of(annotation: Any) -> Any:
    """The type of the items of a list, or of the values of a dictionary."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return next((_item_of(a) for a in arguments if get_origin(a) in (tuple, dict)), Any)
    return {tuple: arguments[:1], dict: arguments[1:]}.get(origin, (Any,))[0]
