"""Names of configurations and data sets, which depend on how the library is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from da.cli._options import say_where_from
from da.installation import importable_name, packaged_config
from da.ops import yaml12

CONFIG = ("--config", "-c")
DATA = ("--data", "--data.class_path")


def with_packaged_configs(args: list[str]) -> list[str]:
    """A command line whose ``--config`` are files; those of the library are found by their names.

    What is neither a file nor such a name stays, for the parser to refuse.
    """
    return _with_values(args, CONFIG, _config)


def with_importable_names(args: list[str]) -> list[str]:
    """A command line whose data set is named as this process imports it.

    >>> with_importable_names(["--data", "Folder", "--data.root=datasets"])
    ['--data', 'Folder', '--data.root=datasets']
    """
    return _with_values(args, DATA, importable_name)


def read_settings(text: str) -> Any:
    """Parses YAML; data sets in it are named as this process imports them."""
    return _importable(yaml12.parse_yaml(text))


def _config(name: str) -> str:
    file = None if Path(name).expanduser().is_file() else packaged_config(name)
    if file is None:
        return name
    say_where_from(name, file)
    return str(file)


def _with_values(args: list[str], options: tuple[str, ...], change: Any) -> list[str]:
    """A command line with the values of some options changed."""
    changed = []
    for before, word in zip(["", *args], args, strict=False):
        option, equals, value = word.partition("=")
        if before in options:
            word = change(word)
        elif equals and option in options:
            word = f"{option}={change(value)}"
        changed.append(word)
    return changed


def _importable(content: Any, key: str = "") -> Any:
    if isinstance(content, dict):
        return {name: _importable(value, str(name)) for name, value in content.items()}
    named = isinstance(content, str) and key.rpartition(".")[2] in ("data", "class_path")
    return importable_name(content) if named else content
