"""What the README and the documents say is what the repository does."""

import ast
import importlib
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in (
        *(ROOT / name for name in ("README.md", "CHANGELOG.md")),
        *sorted((ROOT / "docs").glob("*.md")),
    )
}
#: Those that speak of the repository as it is, and not of what was.
PRESENT = [page for page in PAGES if page != "CHANGELOG.md"]
FENCE = (
    r"<!-- recipe: (\S+) -->\n```python\n(.*?)```.*?"
    r"<!-- recipe command -->\n```bash\n(.*?)\n```"
)
RECIPES = re.findall(FENCE, PAGES["docs/extending.md"], flags=re.DOTALL)

#: What the top level may hold; results lie in docs/results.
TOP_LEVEL = {"da", "datasets", "configs", "tests", "docs", ".ci"} | {
    *("run.py", "pyproject.toml", "MANIFEST.in", ".gitignore"),
    *("README.md", "LICENSE", "CITATION.cff", "CHANGELOG.md"),
}


def command(name: str) -> str:
    blocks = re.findall(rf"<!-- command: {name} -->\n```bash\n(.*?)\n```", README, re.DOTALL)
    assert len(blocks) == 1
    return blocks[0]


def rows(text: str) -> list[list[str]]:
    """The cells of a Markdown table's lines, without the line of dashes."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if not set("".join(row)) <= set(":-")]


def between(page: str, start: str) -> str:
    return PAGES[page].split(f"<!-- {start} -->")[1].split("<!-- end -->")[0]


def test_the_two_commands_are_one_line_each_with_their_own_setup():
    for name in ("ablate", "tests"):
        assert "\n" not in command(name)
        assert command(name).startswith("python3 -m venv .venv && .venv/bin/pip install")


def test_the_readme_is_one_page_with_a_picture():
    assert len(README.splitlines()) <= 150
    assert len(re.findall(r"^!\[", README, re.MULTILINE)) == 1


def test_the_top_level_holds_nothing_else():
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a checkout: nothing says which files belong to the repository")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    assert listed.returncode == 0, listed.stderr
    top = {name.partition("/")[0] for name in listed.stdout.splitlines()}
    assert top - TOP_LEVEL == set()
    assert TOP_LEVEL - top == set()


def test_there_is_a_recipe_for_each_kind():
    kinds = [Path(path).parent.as_posix() for path, _, _ in RECIPES]
    assert kinds == ["da/methods", "da/norms", "da/networks/backbones", "datasets"]


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """A copy of the repository with all recipes in it."""
    place = tmp_path_factory.mktemp("copy")
    for part in ("da", "datasets", "tests"):
        shutil.copytree(ROOT / part, place / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("run.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / part, place / part)
    for path, text, _ in RECIPES:
        assert not (place / path).exists(), "a recipe is a new file"
        (place / path).write_text(text)
    return place


@pytest.mark.long
def test_the_recipes_run_as_printed(copy):
    """One after the other in one process, since each start of one loads PyTorch."""
    lines = []
    for path, _, line in RECIPES:
        words = line.split()
        assert words[:2] == ["python", "run.py"]
        lines.append([*words[2:], "--out", f"runs/{Path(path).stem}"])
    code = f"import run\nfor line in {lines!r}:\n    assert run.main(line) == 0, line"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=copy,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for path, _, _ in RECIPES:
        assert (copy / "runs" / Path(path).stem / "result.json").exists()


def test_the_training_from_python_runs_as_printed(tmp_path, monkeypatch, capsys):
    (text,) = re.findall(r"<!-- script -->\n```python\n(.*?)```", PAGES["docs/usage.md"], re.S)
    (tmp_path / "script.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    runpy.run_path("script.py", run_name="__main__")
    assert 0 < float(capsys.readouterr().out.split()[-1]) < 1
    assert (tmp_path / "runs" / "python" / "result.json").exists()


@pytest.mark.long
def test_the_contract_suite_and_the_rules_of_the_house_cover_the_recipes(copy):
    names = "MaximumSquares or rms or plain or Bars or maximum_squares or root_mean_square or bars"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-k", names),
            *("tests/contracts", "tests/test_architecture.py"),
        ],
        cwd=copy,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize(
    "folder",
    [
        "digits",
        "digits_default_cpu",
        "digits_seven_seeds",
        "office_caltech10",
        "office_caltech10_controls",
        "depthwise",
        "learning_rate",
        "methods",
        "methods_office_caltech10",
        "selection",
        "target_statistics",
        "target_statistics_office_caltech10",
        "batch_size",
        "normalisers",
        "normalisers_of_domains",
        "normalisers_office_caltech10",
        "normalisers_of_domains_office_caltech10",
        "normaliser_target_statistics",
        "normaliser_of_domains_target_statistics",
        "normaliser_scope",
        "normaliser_batch_size",
        "normaliser_of_domains_batch_size",
        "deep",
        "adversarial",
        "norms",
        "norms/gpu",
        "norms/kernels",
        "data",
        "statistics",
    ],
)
def test_the_results_shown_are_those_of_the_report(folder):
    """Every line of a table among the results is in the committed report, word for word."""
    report = (ROOT / "docs" / "results" / folder / "report.md").read_text().splitlines()
    section = between("docs/results.md", f"results: {folder}")
    lines = [line for line in section.splitlines() if line.startswith("|")]
    assert len(lines) > 5
    assert [line for line in lines if line not in report] == []


def test_the_readme_shows_the_averages_of_the_report():
    """Every number of the README's table stands in the report, under its method and its name."""
    report = (ROOT / "docs" / "results" / "digits" / "report.md").read_text()
    header, *lines = rows(between("README.md", "averages: digits"))
    assert [line[0] for line in lines] == ["SourceOnly", "DANN", "EntropyMinimisation"]
    for method, *shown in lines:
        part = report.split(f"## {method}, tuned learning rate\n")[1]
        last = part.split("### last: ")[1].split("\n### ")[0]
        averages: dict[str, str] = {}
        for row in rows(last):
            if row[0] == "task":  # a table begins
                names = row
            elif row[0].removesuffix(", on these tasks") == header[0]:
                averages |= dict(zip(names, row, strict=True))
        assert shown == [averages[name] for name in header[1:]], method


def test_what_the_readme_names_can_be_named():
    from da.adapters.base import adapters
    from da.data_sets import data_sets
    from da.engine.components import available_methods
    from da.networks.backbones.base import backbone_families
    from da.norms import normaliser_names
    from da.selection.base import available_scores

    known = {
        "method": available_methods(),
        "normaliser": normaliser_names(),
        "backbone": {*backbone_families(), "timm/NAME"},
        "data set": data_sets(),
        "label-free score": available_scores(),
        "adapter of a checkpoint": adapters(),
    }
    table = README.split("## What can be named")[1].split("\n## ")[0]
    _, *lines = rows(table)
    assert [line[0] for line in lines] == list(known)
    for kind, option, texts in lines:
        shown = re.findall(r"`([^`]+)`", texts)
        assert shown, kind
        assert [name for name in shown if name not in known[kind]] == [], option


def test_every_method_score_and_adapter_has_its_line():
    from da.adapters.base import adapters
    from da.engine.components import available_methods
    from da.selection.base import available_scores

    found = {"Methods": available_methods(), "Scores without target labels": available_scores()}
    found["Adapters of a trained network"] = adapters()
    page = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
    for title, known in found.items():
        section = page.split(f"## {title}\n")[1].split("\n## ")[0]
        _, *lines = rows(section)
        named = [name for line in lines for name in re.findall(r"`(\w+)`", line[0])]
        assert sorted(named) == sorted(known), title


def test_every_normaliser_has_its_line_and_its_paragraph():
    from da.norms import normaliser, normaliser_names

    page = (ROOT / "docs/normalisers.md").read_text(encoding="utf-8")
    _, *lines = rows(page.split("## Whose statistics\n")[1].split("\n## ")[0])
    table = {name: line for line in lines for name in re.findall(r"`([^`]+)`", line[0])}
    assert sorted(table) == sorted(normaliser_names())
    for name, line in table.items():
        assert "+" in name or f"\n`{name}`" in page.split("\n## Of the batch")[1], name
        if line[3] in ("yes", "no"):
            assert (line[3] == "no") == normaliser(name).mixes_domains, name


def test_the_keys_of_a_grid_are_documented():
    from da.grids.grid import Grid

    _, *lines = rows(between("docs/comparing.md", "keys: grid"))
    named = [key for line in lines for key in re.findall(r"`(\w+)`", line[0])]
    assert sorted(named) == sorted(Grid.model_fields)


def anchors(text: str) -> set[str]:
    """What a page's headings are called in links, as GitHub has it."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES)
def test_pictures_and_links_exist(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path.read_text()), target


@pytest.mark.parametrize("page", PRESENT)
def test_files_and_commands_that_are_named_exist(page):
    text = PAGES[page]
    new = {path for path, _, _ in RECIPES}
    named = re.findall(r"(?<![\w/.])((?:da|datasets|configs|tests|docs)/[\w/.\-]*\w)", text)
    assert [path for path in named if path not in new and not (ROOT / path).exists()] == []
    commands = {path.stem for path in (ROOT / "da" / "cli").glob("[a-z]*.py")}
    used = set(re.findall(r"run\.py ([a-z]+)", text))
    assert used <= commands


def imports(text: str) -> list[tuple[str, str]]:
    """What the blocks of Python import of this library."""
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    nodes = [node for block in blocks for node in ast.walk(ast.parse(block))]
    return [
        (node.module, alias.name)
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module and not node.level
        for alias in node.names
        if node.module.split(".")[0] == "da"
    ]


@pytest.mark.parametrize("page", [page for page in PAGES if imports(PAGES[page])])
def test_what_is_imported_exists(page):
    for module, name in imports(PAGES[page]):
        assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


@pytest.mark.parametrize("page", PRESENT)
def test_modules_that_are_named_exist(page):
    for name in re.findall(r"(?<![\w.])da(?:\.[a-z_]+)+(?:\.[A-Z]\w+)?", PAGES[page]):
        *parts, last = name.split(".")
        path = ROOT.joinpath(*parts, last)
        if path.is_dir() or path.with_suffix(".py").is_file():
            continue
        assert hasattr(importlib.import_module(".".join(parts)), last), name


def test_the_citation_names_this_software_and_weightalign():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0"
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert version is not None
    assert citation["version"] == version[1]
    assert f"## [{version[1]}]" in PAGES["CHANGELOG.md"]
    titles = [reference["title"] for reference in citation["references"]]
    assert titles == ["WeightAlign: Normalizing Activations by Weight Alignment"]
