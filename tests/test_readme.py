"""The README's recipes and figures are what the repository does."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
FENCE = (
    r"<!-- recipe: (\S+) -->\n```python\n(.*?)```.*?"
    r"<!-- recipe command -->\n```bash\n(.*?)\n```"
)
RECIPES = re.findall(FENCE, README, flags=re.DOTALL)


def command(name: str) -> str:
    found = re.findall(rf"<!-- command: {name} -->\n```bash\n(.*?)\n```", README, re.DOTALL)
    assert len(found) == 1
    return found[0]


def test_the_two_commands_are_one_line_each_with_their_own_setup():
    for name in ("ablate", "tests"):
        assert "\n" not in command(name)
        assert command(name).startswith("python3 -m venv .venv && .venv/bin/pip install")


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
        (place / path).write_text(text)
    return place


@pytest.mark.parametrize("recipe", RECIPES, ids=[Path(r[0]).stem for r in RECIPES])
def test_a_recipe_runs_as_printed(recipe, copy):
    path, _, line = recipe
    words = line.split()
    assert words[:2] == ["python", "run.py"]
    done = subprocess.run(
        [sys.executable, *words[1:], "--out", f"runs/{Path(path).stem}"],
        cwd=copy,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (copy / "runs" / Path(path).stem / "result.json").exists()


@pytest.mark.long
def test_the_contract_suite_covers_the_recipes(copy):
    names = "BNM or frn or plain or Bars"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tests/contracts", "-k", names],
        cwd=copy,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("folder", ["digits", "batch_size", "deep", "norms", "data"])
def test_the_results_shown_are_those_of_the_report(folder):
    """Every line of a table in the README's results is in the committed report, word for word."""
    report = (ROOT / "docs" / "results" / folder / "report.md").read_text().splitlines()
    section = README.split(f"<!-- results: {folder} -->")[1].split("<!-- end -->")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    assert len(lines) > 5
    assert [line for line in lines if line not in report] == []


def test_pictures_and_links_exist():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
