"""Pages of the site that are no files of docs/: the README, the list of changes, modules, sources.

A link that leads out of docs/ leads to the module's page where it is to code, and else to a page
that shows the file or lists the folder. A link to something that does not exist is an error.
"""

from __future__ import annotations

import ast
import os
import re
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
PACKAGES = ("da", "datasets")

LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")
"""The target of a link in Markdown and what follows it in the page, if it is no address."""

AT_THE_TOP = {"README.md": "index.md", "CHANGELOG.md": "changes.md", "docs/README.md": "index.md"}
"""Pages of the site that lie elsewhere in the repository."""

FENCES = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that are made of files outside of docs/."""
    sources = {f.src_uri: (ROOT / "docs" / f.src_uri) for f in files.documentation_pages()}
    pages = {AT_THE_TOP[name]: (ROOT / name) for name in ("README.md", "CHANGELOG.md")}
    for page, path in pages.items():
        text = path.read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    modules = documented_modules()
    for name in modules:
        text = f"# {name}\n\n::: {name}\n"
        files.append(File.generated(config, f"api/{name}.md", content=text))
    lines = [f"- [{name}]({name}.md): {summary}" for name, summary in modules.items()]
    listed = "\n".join(["# Python", "", "Every public module, from its docstrings.", "", *lines])
    files.append(File.generated(config, "api/index.md", content=f"{listed}\n"))
    linked: set[str] = set()
    for path in {**sources, **pages}.values():
        if path.suffix == ".md":
            linked |= {target for target in links(path) if is_source(target)}
    for target in sorted(linked):
        files.append(File.generated(config, f"{shown_at(target)}", content=shown(target)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Has links lead to the pages of the site."""
    name = page.file.src_uri
    at = {site: repository for repository, site in reversed(AT_THE_TOP.items())}
    inside = at.get(name, f"docs/{name}")
    if name.startswith(("api/", "source/")):
        return markdown

    def on_site(found: re.Match[str]) -> str:
        target = resolved(inside, found[1])
        place = page_of(target)
        return os.path.relpath(place, PurePosixPath(name).parent) + (found[2] or "")

    return outside_of_code(markdown, lambda text: LINK.sub(on_site, text))


def outside_of_code(markdown: str, change: Any) -> str:
    """A page with its text changed and its blocks of code as they are."""
    blocks = FENCES.findall(markdown)
    texts = FENCES.split(markdown)
    changed = [change(text) for text in texts]
    return "".join(a + b for a, b in zip(changed, [*blocks, ""], strict=True))


def links(path: Path) -> list[str]:
    """What a page links to, as paths in the repository."""
    inside = path.relative_to(ROOT).as_posix()
    text = FENCES.sub("", path.read_text(encoding="utf-8"))
    return [resolved(inside, target) for target, _ in LINK.findall(text)]


def resolved(page: str, target: str) -> str:
    """A link's target as a path in the repository.

    Raises:
        PluginError: there is no such file.
    """
    path = Path(os.path.normpath(ROOT / PurePosixPath(page).parent / target))
    if not path.exists() or not path.is_relative_to(ROOT):
        raise PluginError(f"{page}: a link leads to '{target}', which does not exist")
    return path.relative_to(ROOT).as_posix()


def page_of(target: str) -> str:
    """Where on the site a file or folder of the repository is shown."""
    if target in AT_THE_TOP:
        return AT_THE_TOP[target]
    if target.startswith("docs/") and (ROOT / target).is_file():
        return target.removeprefix("docs/")
    module = target.removesuffix(".py").replace("/", ".")
    if target.split("/")[0] in PACKAGES and module in documented_modules():
        return f"api/{module}.md"
    return shown_at(target)


def is_source(target: str) -> bool:
    """Whether a file or folder has a page that shows it as it is."""
    return page_of(target) == shown_at(target)


def shown_at(target: str) -> str:
    """The page that shows a file or folder as it is."""
    return f"source/{target}.md"


def shown(target: str) -> str:
    """A page with a file's text, or with the names in a folder."""
    path = ROOT / target
    if path.is_dir():
        names = sorted(p.name for p in path.iterdir() if not p.name.startswith(("_", ".")))
        return "\n".join([f"# {target}", "", *(f"- `{name}`" for name in names)]) + "\n"
    kind = {".py": "python", ".yaml": "yaml", ".cff": "yaml"}.get(path.suffix, "text")
    return f"# {target}\n\n````{kind}\n{path.read_text(encoding='utf-8')}````\n"


@cache
def documented_modules() -> dict[str, str]:
    """The public modules by their dotted names, each with its first line."""
    found = {}
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            if not any(part.startswith("_") for part in parts):
                text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
                found[".".join(parts)] = text.partition("\n")[0]
    return found
