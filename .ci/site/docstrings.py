"""Docstrings as Markdown: Sphinx' roles become links, doctests and formulas blocks of code."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):`~?([\w.]+)`")
MATH = re.compile(r":math:(?=`)")
FORMULA = re.compile(r"^( *)\.\. math:: *(.+(?:\n\1 +\S.*)*)", re.MULTILINE)
DOCTEST = re.compile(r"^( *)>>> .*(?:\n\1(?! *$).+)*", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Changes every docstring before it is parsed."""

    def on_instance(self, *, node: Any, obj: Any, agent: Any, **kwargs: Any) -> None:
        """Called with every object that is found."""
        if obj.docstring is not None:
            text = ROLE.sub(lambda found: link(found[1]), obj.docstring.value)
            text = FORMULA.sub(r"\1```latex\n\1\2\n\1```", MATH.sub("", text))
            obj.docstring.value = DOCTEST.sub(fenced, text)


def link(name: str) -> str:
    """A name in code, linked where it is written out as one of this library's."""
    ours = name.startswith(("da.", "datasets."))
    private = any(part.startswith("_") for part in name.split("."))
    return f"[`{name}`][{name}]" if ours and not private else f"`{name}`"


def fenced(found: re.Match[str]) -> str:
    """A doctest as a block of code."""
    indent = found[1]
    return f"{indent}```pycon\n{found[0]}\n{indent}```"
