"""What `data list` says of the data sets on disk."""

from __future__ import annotations

from typing import Any

CLASSES = 12
"""So many classes are named where several sets are listed."""


def overview(sets: dict[str, Any]) -> str:
    """One paragraph per data set.

    Args:
        sets: classes of data sets by name.
    """
    return "\n".join(line for name, cls in sets.items() for line in described(name, cls))


def described(name: str, cls: Any, whole: bool = False) -> list[str]:
    """The lines of one set.

    Args:
        name: its short name.
        cls: its class.
        whole: name all of its classes and tasks.
    """
    summary = (cls.__doc__ or "").partition("\n")[0].rstrip(".")
    lines = [f"{name} ({cls.__module__}.{cls.__qualname__}): {summary}"]
    domains = getattr(cls, "domains", None)
    if not isinstance(domains, tuple):
        return [*lines, "  domains and classes are read from the folder given as root"]
    lines.append(f"  domains: {', '.join(_domain(cls, domain) for domain in domains)}")
    if cls.development is not None:
        lines.append(f"  to tune on: {' -> '.join(cls.development)}")
    classes = getattr(cls, "classes", ())
    if isinstance(classes, tuple) and classes:
        lines.append(f"  {len(classes)} classes: {_some(classes, whole)}")
    if hasattr(cls, "image_size"):
        lines.append(f"  images: {cls.image_size} x {cls.image_size}")
    if hasattr(cls, "tasks"):
        tasks = cls.tasks()
        lines.append(f"  {len(tasks)} tasks: {_some(tasks, whole)}")
    for label, attribute in (
        ("cite", "reference"),
        ("licence", "licence"),
        ("published at", "homepage"),
    ):
        if text := getattr(cls, attribute, ""):
            lines.append(f"  {label}: {' '.join(str(text).split())}")
    return [*lines, f"  where from: {_origin(name, cls)}"]


def _domain(cls: Any, domain: str) -> str:
    """``amazon (A, 2,817)``; published splits one by one."""
    counts = getattr(cls, "counts", {})
    splits = {key: n for key, n in counts.items() if key.startswith(f"{domain}/")}
    sizes = [f"{counts[domain]:,}"] if domain in counts else []
    sizes += [f"{key.rpartition('/')[2]} {n:,}" for key, n in splits.items()]
    symbol = getattr(cls, "symbols", {}).get(domain)
    inside = ", ".join([*([symbol] if symbol and symbol != domain else []), *sizes])
    return f"{domain} ({inside})" if inside else domain


def _some(names: tuple[str, ...], whole: bool) -> str:
    shown = names if whole else names[:CLASSES]
    return ", ".join(shown) + (", ..." if len(shown) < len(names) else "")


def _origin(name: str, cls: Any) -> str:
    if not hasattr(cls, "fetch"):
        return "made from what is installed; nothing to download"
    if getattr(cls, "downloads", ()):
        return f"python run.py data fetch {name} --root DIR"
    return f"by hand: python run.py data fetch {name} --root DIR says how"
