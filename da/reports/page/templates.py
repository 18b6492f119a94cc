"""The templates of pages, with the style and the script that each page carries in itself."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup, escape

from da.ops.shown_text import visible
from da.reports.page.charts import legend_mark
from da.reports.texts import Strong


def fill_template(name: str, **content: Any) -> str:
    """A page; every text in it is escaped, and written so that it can be seen.

    Args:
        name: of the template, ``page.html``.
        content: what it shows, by the names that it uses.
    """
    folder = files("da.reports.page")
    texts = {
        part: (folder / part).read_text(encoding="utf-8")
        for part in (name, "parts.html", "page.css", "page.js")
    }
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        loader=DictLoader(texts),
    )
    environment.tests["strong"] = lambda text: isinstance(text, Strong)
    environment.globals |= {
        "swatch": legend_mark,
        "emphasised": emphasised,
        "breakable": breakable,
        "style": Markup(texts["page.css"]),
        "script": Markup(texts["page.js"]),
    }
    return environment.get_template(name).render(**content)


def _shown(value: Any) -> Any:
    """Names as they can be seen; what is markup already stays as it is."""
    return visible(value) if type(value) in (str, Strong) else value


def emphasised(text: str) -> Markup:
    """Our own words with ``*`` and ``**`` as emphasis.

    >>> str(emphasised("**a** and *b* < c"))
    '<strong>a</strong> and <em>b</em> &lt; c'
    """
    safe = str(escape(visible(text)))
    strong = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", safe)
    return Markup(re.sub(r"\*(.+?)\*", r"<em>\1</em>", strong))


def breakable(name: str) -> Markup:
    """A title that may be broken before a form: ``bn`` and, below it, ``@target-stats``."""
    return escape(visible(name)).replace("@", Markup("<wbr>@"))
