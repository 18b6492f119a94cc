"""The parser's nested messages as one line: what came and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from da.cli._option_names import LINKED
from da.data_sets import as_data_set
from da.errors import UserError, unknown
from da.ops import yaml12

_KINDS = {"model": "method", "data": "data set"}
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "NoneType": "null",
    "dict": "a mapping {name: value}",
    "list": "a list [a, b]",
    "Sequence": "a list [a, b]",
    "Iterable": "a list [a, b]",
}


def readable(
    message: str, known: Mapping[str, Mapping[str, type]], top: Collection[str]
) -> UserError:
    """One line of what jsonargparse says over many.

    Args:
        message: what it says.
        known: the classes that ``model`` and ``data`` may be, by name.
        top: the options of the command itself.
    """
    text = re.sub(r"\s+", " ", message)
    keys = re.findall(r'Parser key "([\w.]+)":', text)
    part, key = (keys[0] if keys else ""), _path(keys)
    classes = known.get(part, {})
    inner = text[text.rfind('Parser key "') :] if keys else text
    if match := re.search(r"failed: (.*)", text):
        return UserError(match.group(1))
    if match := re.search(r"unrecognized arguments: (?:--)?([\w.-]+)", text):
        return unknown("option", match.group(1), top)
    if match := re.search(r"the following arguments are required: ([\w, ]+?) - Expected", text):
        return _required(part, match.group(1).split(", "), classes, text)
    if part in _KINDS:
        for pattern in (
            r"Expected a dot import path string: ([\w.]+)",
            r"class_path '([\w.]+)': (?!Parser key)",
        ):
            if match := re.search(pattern, text):
                return unknown(_KINDS[part], match.group(1), dotted(classes, match.group(1)))
    if key == "seed_everything":  # Lightning also takes false, which a run here has no use for
        return _expected(key, _TYPES["int"], text.rpartition("Given value: ")[2])
    if match := re.search(r"Subtypes: \[(.*?)\] Errors:.*? Given value: (.*)", inner):
        return _expected(key, _types(match.group(1)), match.group(2))
    if match := re.search(r"Expected an? (.+?)\. Got value: (.*)", inner):
        return _expected(key, _types(match.group(1)), match.group(2))
    return UserError(text.strip() if len(text) <= 400 else text[:397] + "…")


def _required(part: str, names: list[str], classes: Mapping[str, type], text: str) -> UserError:
    """The error for arguments without a value; a data set then says which domains it has."""
    missing = " and ".join(f"{part}.{name}" for name in names)
    path = re.search(r"class_path '([\w.]+)'", text)
    chosen = classes.get(path.group(1).rpartition(".")[2]) if path else None
    root = re.search(r"\broot='(.*?)'", text)
    if chosen is None or part != "data":
        return UserError(f"{missing}: expected a value, got none")
    domains = ", ".join(as_data_set(chosen).available(root.group(1) if root else None))
    return UserError(f"{missing}: expected one of {domains}; got none")


def _path(keys: list[str]) -> str:
    """``model``, ``lr`` as ``model.lr``; a key may repeat the one that it is in."""
    path = ""
    for key in keys:
        path = key if not path or key.startswith(path + ".") else f"{path}.{key}"
    return path


def _types(text: str) -> str:
    """``<class 'int'>, typing.Literal['a', 'b']`` in words."""
    choices: list[str] = []
    for literal in re.findall(r"Literal\[(.*?)\]", text):
        choices += [word.strip(" '\"") for word in literal.split(",")]
    rest = re.sub(r"(typing\.)?Literal\[.*?\]", "", text)
    rest = re.sub(r"<class '([\w.]+)'>", r"\1", rest)
    while "[" in rest and (shorter := re.sub(r"\[[^\[\]]*\]", "", rest)) != rest:
        rest = shorter
    names = [word.strip().rpartition(".")[2] for word in rest.split(",") if word.strip()]
    found = [f"one of {', '.join(dict.fromkeys(choices))}"] if choices else []
    return " or ".join(dict.fromkeys(found + [_TYPES.get(name, name) for name in names]))


def _expected(key: str, expected: str, value: str) -> UserError:
    value = re.split(r" - (?:Expected a|Problem with)", value)[0].strip()
    return UserError(f"{key}: expected {expected}; got '{value[:100]}'")


def dotted(classes: Mapping[str, type], name: str) -> list[str]:
    """The names that a class may be given by: dotted where ``name`` is."""
    if "." not in name:
        return list(classes)
    return [f"{kind.__module__}.{kind.__qualname__}" for kind in classes.values()]


def refuse_linked(names: Iterable[str]) -> None:
    """Refuses options that are set from elsewhere: the parser would ignore them in silence.

    Args:
        names: of options, ``"model.seed"`` or ``"model.init_args.seed"``; others pass.
    """
    for name in names:
        match = re.fullmatch(r"(model|data)\.(?:init_args\.)?(num_classes|task|seed)", name)
        if match and (match.group(1) == "model" or match.group(2) == "seed"):
            raise UserError(f"{name}: it is set from {LINKED[match.group(2)]}; leave it out")


def given(args: Iterable[str]) -> list[str]:
    """The names of the options on a command line.

    >>> given(["--model.lr=3", "--model", "DANN"])
    ['model.lr', 'model']
    """
    return [word[2:].partition("=")[0] for word in args if word.startswith("--")]


def dotted_keys(content: Mapping[str, Any]) -> list[str]:
    """The names of the options in a configuration, however it nests them.

    >>> dotted_keys({"model": {"init_args": {"lr": 3}}, "trainer.max_epochs": 2})
    ['model.init_args.lr', 'trainer.max_epochs']
    """
    found = []
    for key, value in content.items():
        inner = dotted_keys(value) if isinstance(value, dict) else []
        found += [f"{key}.{name}" for name in inner] or [str(key)]
    return found


def configurations(args: list[str]) -> list[dict[str, Any]]:
    """The configuration files of a command line, in order, each as a mapping of options.

    Raises:
        UserError: for files that are missing, no YAML, or no mapping.
    """
    values = [b for a, b in pairwise(args) if a in ("--config", "-c")]
    values += [word.partition("=")[2] for word in args if word.startswith("--config=")]
    found = []
    for value in values:
        file = Path(value).expanduser()
        if not file.is_file():
            raise UserError(f"config: no file '{value}'; give a YAML file of options")
        try:
            content: Any = yaml12.parse_yaml(file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            mark = getattr(error, "problem_mark", None)
            place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
            problem = getattr(error, "problem", None) or "it is not text in UTF-8"
            raise UserError(f"config: '{value}' is not YAML{place}: {problem}") from error
        if not isinstance(content, dict):
            held = {None: "nothing", list: "a list"}.get(content and type(content), "no options")
            raise UserError(
                f"config: '{value}' holds {held}, expected a mapping of options "
                "such as {model: {class_path: DANN}}"
            )
        found.append(content)
    return found


def refuse_no_value(message: str, args: list[str]) -> UserError | None:
    """The error for an option at the end of its line; the parser names only its first part."""
    match = re.search(r"argument (?:-\w/)?--([\w.]+).*: expected one argument", message)
    if not match:
        return None
    name = match.group(1)
    for word, after in zip(args, [*args[1:], "--"], strict=True):
        if word.startswith(f"--{name}") and after.startswith("--"):
            name = word[2:]
    return UserError(f"{name}: expected a value, got none")
