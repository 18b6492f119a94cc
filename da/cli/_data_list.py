"""What `data list` says of the data sets on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from da.installation import program

if TYPE_CHECKING:
    from da.types import DataSet

MOST_NAMED = 12
"""So many classes are named where several sets are listed."""


def describe_all(sets: dict[str, type[DataSet]]) -> str:
    """One paragraph per data set.

    Args:
        sets: classes of data sets by name.
    """
    return "\n".join(line for kind in sets.values() for line in describe(kind))


def describe(kind: type[DataSet], whole: bool = False) -> list[str]:
    """The lines of one set.

    Args:
        kind: its class.
        whole: name all of its classes and tasks.
    """
    summary = (kind.__doc__ or "").partition("\n")[0].rstrip(".")
    lines = [f"{kind.__name__} ({kind.__module__}.{kind.__qualname__}): {summary}"]
    if not kind.domains:
        return [*lines, "  domains and classes are read from the folder given as root"]
    lines.append(f"  domains: {', '.join(_describe_domain(kind, name) for name in kind.domains)}")
    if kind.development is not None:
        lines.append(f"  to tune on: {' -> '.join(kind.development)}")
    lines.append(f"  {len(kind.classes)} classes: {_join(kind.classes, whole)}")
    tasks = kind.tasks()
    lines.append(f"  {len(tasks)} tasks: {_join(tasks, whole)}")
    stated = {"cite": kind.reference, "licence": kind.licence, "published at": kind.homepage}
    lines += [f"  {label}: {' '.join(text.split())}" for label, text in stated.items() if text]
    command = f"{program()} data fetch {kind.__name__} --root DIR"
    origins = {
        "made here": "made from what is installed; nothing to download",
        "downloaded": command,
        "got by hand": f"by hand: {command} says how",
        "the user's": "your own files",
    }
    return [*lines, f"  where from: {origins[kind.origin()]}"]


def _describe_domain(kind: type[DataSet], domain: str) -> str:
    """``amazon (A, 2,817)``; published splits one by one."""
    splits = {key: n for key, n in kind.counts.items() if key.startswith(f"{domain}/")}
    sizes = [f"{kind.counts[domain]:,}"] if domain in kind.counts else []
    sizes += [f"{key.rpartition('/')[2]} {n:,}" for key, n in splits.items()]
    symbol = kind.symbols.get(domain, domain)
    inside = ", ".join([*([symbol] if symbol != domain else []), *sizes])
    return f"{domain} ({inside})" if inside else domain


def _join(names: tuple[str, ...], whole: bool) -> str:
    shown = names if whole else names[:MOST_NAMED]
    return ", ".join(shown) + (", ..." if len(shown) < len(names) else "")
