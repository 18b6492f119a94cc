"""The notebook runs from top to bottom and shows its pictures; it is kept without what it shows."""

import os
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "notebooks" / "bn_or_wa.ipynb"


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_kept_without_outputs(notebook):
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells
    assert not [cell.source for cell in cells if cell.outputs or cell.execution_count]


@pytest.mark.long
def test_it_runs_and_shows_its_pictures(notebook, tmp_path, monkeypatch):
    from nbclient import NotebookClient

    path = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{path}" if path else str(ROOT))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    place = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=250, kernel_name="python3", resources=place).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in shown) == 5
    said = "".join(output.get("text", "") for output in shown)
    table = said.split("accuracy in percent")[1].splitlines()
    assert [line.split()[0] for line in table[1:5]] == [
        *("bn", "bn@source-stats", "bn@target-stats", "wa"),
    ]
    accuracies = {line.split()[0]: float(line.split()[1]) for line in table[1:5]}
    assert min(accuracies["bn"], accuracies["wa"]) > 60  # of the source: they have learnt
