"""Names as they can be shown: a report never dies of one, and none can hide what it is."""

from __future__ import annotations

import unicodedata

_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_JOINERS = "\u200c\u200d"  # parts of words, and of emoji


def visible(text: str, keep: str = "") -> str:
    r"""The text with what can't be seen or stored written out: controls, half surrogates.

    A line break would end a row of a table, a reversal of the direction would show another name.

    Args:
        text: any.
        keep: characters that stay as they are.

    >>> print(visible("a\nb\u202ec"))
    a\nb\u202ec
    """
    return "".join(
        ascii(letter)[1:-1]
        if unicodedata.category(letter) in _UNSEEN and letter not in keep + _JOINERS
        else letter
        for letter in text
    )


def shorten(name: str, most: int) -> str:
    """A name of at most so many characters, for places that are narrow.

    >>> shorten("ring_binder", 20), shorten("ring_binder", 6)
    ('ring_binder', 'ring_…')
    """
    text = visible(name)
    return text if len(text) <= most else text[: most - 1] + "…"
