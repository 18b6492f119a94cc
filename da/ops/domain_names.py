"""What domains are called: several sources in one name, and a target that is a folder's path."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path


def is_path(domain: str) -> bool:
    """Whether a domain is given by the path of its folder, and not by its name.

    >>> is_path("/media/new_camera"), is_path("./new_camera"), is_path("new_camera")
    (True, True, False)
    """
    return "/" in domain or os.sep in domain or domain.startswith("~")


def name_of_domain(domain: str) -> str:
    """The name of a domain; of a path the last folder's, wherever that lies.

    >>> name_of_domain("/media/new_camera/"), name_of_domain("webcam")
    ('new_camera', 'webcam')
    """
    if not is_path(domain):
        return domain
    path = Path(domain).expanduser()
    return (path if path.name not in ("", "..") else path.resolve()).name or "root"


def split_sources(source: str, domains: Collection[str]) -> tuple[str, ...]:
    """The domains that a source names, one or several with commas; a domain may have a comma.

    >>> split_sources("a, b", ["a", "b", "c"]), split_sources("a,b", ["a,b", "c"])
    (('a', 'b'), ('a,b',))
    """
    if source in domains or "," not in source:
        return (source,)
    return tuple(name.strip() for name in source.split(","))
