"""report.tex: tables that a page holds, and captions that state what they rest on."""

import re
import shutil
import subprocess

import pytest
from made_grids import TASKS, fill, made_grid

from da.reports.formats.latex import MOST_ROWS, Latex
from da.reports.report import build


@pytest.fixture
def tex(tmp_path):
    def make(**settings):
        plan, _ = fill(tmp_path, made_grid(**settings), lambda cell: 0.5 + cell.seed / 9)
        return Latex().render(build(tmp_path, plan))

    return make


def test_many_methods_become_several_tables_that_a_page_holds(tex):
    names = [f"M{number}" for number in range(12)]
    text = tex(methods={name: {} for name in names}, seeds=(0, 1))
    tables = re.findall(r"\\begin\{table\}.*?\\end\{table\}", text, re.DOTALL)
    assert len(tables) == 2 * 3
    assert all(table.count(r" \\") - 1 <= MOST_ROWS for table in tables)
    assert [re.findall(r"Part (\d of \d)", table) for table in tables] == [
        ["1 of 2"],
        ["2 of 2"],
    ] * 3
    labels = re.findall(r"\\label\{(.*?)\}", text)
    assert labels[:2] == ["tab:published-last-1", "tab:published-last-2"]
    assert len(set(labels)) == 6
    assert re.findall(r"^(M\d+) &", "\n".join(tables[:2]), re.MULTILINE) == names


def test_a_long_sweep_is_divided_between_its_values_and_names_its_method_once_in_a_table(tex):
    text = tex(sweep={"batch_size": tuple(range(1, 13))}, seeds=(0, 1))
    first, second = text.split(r"\begin{table}")[1:3]
    assert "batch\\_size 10 &" in first
    assert "batch\\_size 11 &" in second
    for table in (first, second):
        assert len(re.findall(r"^M &", table, re.MULTILINE)) == 1


def test_a_caption_states_selection_seeds_scope_and_test(tex):
    text = tex(tasks=TASKS[:1])
    assert "Part" not in text
    caption = re.findall(r"\\caption\{(.*)\}", text)[0]
    for words in (
        "published learning rate, last: the last epoch.",
        "deviation over 3 seeds; bold: the highest mean",
        "The normaliser covers backbone, bottleneck and critic.",
        r"beyond the 95~\% interval of the difference paired over seeds, on these tasks "
        "(Student's t).",
    ):
        assert words in caption
    assert r"\label{tab:published-last}" in text


LATEX = shutil.which("pdflatex")


@pytest.mark.long
@pytest.mark.skipif(LATEX is None, reason="no LaTeX: install the distribution's package")
def test_latex_makes_pages_of_it_and_nothing_is_too_large(tex, tmp_path):
    (tmp_path / "report.tex").write_text(
        tex(
            methods={f"M{number}": {} for number in range(12)},
            tasks=(*TASKS, r"a_%&#$\{^~é😀->b<|>"),
        ),
        encoding="utf-8",
    )
    (tmp_path / "main.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs,graphicx}"
        r"\begin{document}\input{report}\end{document}"
    )
    done = subprocess.run(
        [str(LATEX), "-interaction=nonstopmode", "-halt-on-error", "main.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Output written" in done.stdout
    assert "too large" not in done.stdout
    assert "Overfull" not in done.stdout
