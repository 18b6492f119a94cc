"""YAML as people write it: `no` and `off` are names, `1e-3` is a number (YAML 1.2, core schema).

The same loader reads grids, tables of tuned rates and the settings of `fit`. It is made for files
that people write: what is larger, deeper or multiplies itself is refused before it costs memory.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from da.errors import UserError

MOST_BYTES = 1_000_000
MOST_VALUES = 50_000
"""Keys and values of a file, each alias counted as what it stands for."""
MOST_LEVELS = 50
"""Settings within settings."""


class Yaml12Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which follows YAML 1.1, with the booleans and numbers of YAML 1.2.

    It refuses a key that is given twice, and what is larger or deeper than any file of settings.
    """

    def __init__(self, stream: Any):
        super().__init__(stream)
        self._level = 0
        self._values = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Composes a node and counts what it stands for; an alias counts as all of its content."""
        event = self.peek_event()
        before, self._level = self._values, self._level + 1
        if self._level > MOST_LEVELS:
            _refuse(f"more than {MOST_LEVELS} levels of lists or settings", event)
        node = super().compose_node(parent, index)
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self._sizes:
                _refuse(f"'*{event.anchor}' stands within what it stands for", event)
            self._values += self._sizes[id(node)]
        else:
            self._values += 1
            self._sizes[id(node)] = self._values - before
        if self._values > MOST_VALUES:
            _refuse(f"more than {MOST_VALUES} values", event)
        self._level -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """A dictionary of the keys as they stand there, each once."""
        written = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in written:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"'{key.value}' is given twice", key.start_mark
                    )
                written.add((key.tag, key.value))
        return super().construct_mapping(node, deep)

    def construct_integer(self, node: Any) -> int:
        """A whole number, ``0x`` and ``0o`` by their base."""
        text = self.construct_scalar(node)
        base = {"0x": 16, "0o": 8}.get(text[:2], 10)
        try:
            return int(text, base)
        except ValueError:  # more digits than Python reads
            raise yaml.constructor.ConstructorError(
                None, None, f"no number has {len(text)} digits", node.start_mark
            ) from None


def _refuse(problem: str, event: Any) -> None:
    raise yaml.composer.ComposerError(None, None, problem, event.start_mark)


_REPLACED = {f"tag:yaml.org,2002:{name}" for name in ("bool", "int", "float", "timestamp")}
Yaml12Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _REPLACED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Yaml12Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
Yaml12Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"),
    list("-+0123456789"),
)
Yaml12Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)
#: Those of JSON, and `<<`; no dates, sets or bytes, which no setting takes.
_CORE = ("null", "bool", "int", "float", "str", "seq", "map")
Yaml12Loader.yaml_constructors = {
    tag: constructor
    for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in _CORE
}
Yaml12Loader.add_constructor("tag:yaml.org,2002:int", Yaml12Loader.construct_integer)


def parse_yaml(text: str) -> Any:
    """Parses one YAML document.

    Raises:
        yaml.YAMLError: it is broken, or larger or deeper than settings are.

    >>> parse_yaml("{norm: no, lr: 1e-3, seed: 0, keep: true, day: 2026-01-02}")
    {'norm': 'no', 'lr': 0.001, 'seed': 0, 'keep': True, 'day': '2026-01-02'}
    """
    if len(text) > MOST_BYTES:
        raise yaml.YAMLError(f"more than {MOST_BYTES:,} characters")
    try:
        return yaml.load(text, Loader=Yaml12Loader)
    except (ValueError, KeyError) as error:  # of a tag on what it is not: !!float x, !!bool x
        raise yaml.YAMLError(" ".join(str(error).split())) from None


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        UserError: with file, line and column where it is broken.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(
                f"{path}: expected a file of settings, got one of {path.stat().st_size:,} bytes "
                f"(at most {MOST_BYTES:,})"
            )
        return parse_yaml(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error)
        raise UserError(f"{where}: broken YAML: {' '.join(problem.split())}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: expected text in UTF-8, got other bytes") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
