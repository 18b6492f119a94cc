import pytest
from refusing import refused

import run
from da.engine.components import find_method

GOOD = """
from da.methods.base import Method


class Mine(Method):
    '''A method of a user's own.'''
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of a user's own, beside the project: one module is right and three are not."""
    folder = tmp_path / "my_own_parts"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "good.py").write_text(GOOD)
    (folder / "needs.py").write_text("import no_such_package\n")
    (folder / "typo.py").write_text("x = 1\ny = [\n")
    (folder / "raises.py").write_text("import math\n\nmath.nothing\n")
    monkeypatch.syspath_prepend(tmp_path)
    return folder.name


def test_a_class_of_ones_own_is_found_and_a_misspelt_one_answered_with_its_neighbours(package):
    assert find_method(f"{package}.good.Mine").__name__ == "Mine"
    text = refused(lambda: find_method(f"{package}.good.Mina"), "unknown method")
    assert text.endswith(f"did you mean '{package}.good.Mine'? One of: {package}.good.Mine")


def test_a_package_that_python_does_not_find_is_said_to_be_off_its_path():
    text = refused(lambda: find_method("no_such_package.parts.Mine"), "no module 'no_such_package'")
    assert "PYTHONPATH" in text


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("needs", "its module needs 'no_such_package'"),
        ("typo", "its module can't be imported: SyntaxError: '[' was never closed (typo.py, line"),
        ("raises", "AttributeError: module 'math' has no attribute 'nothing' ("),
    ],
)
def test_a_module_that_fails_is_refused_in_one_line_with_its_place(package, module, said):
    text = refused(lambda: find_method(f"{package}.{module}.Mine"), said)
    assert "\n" not in text
    if module == "raises":
        assert text.endswith("raises.py, line 3)")


@pytest.mark.parametrize("option", ["--model", "--data"])
def test_the_command_line_says_so_as_well(package, tmp_path, monkeypatch, capsys, option):
    monkeypatch.chdir(tmp_path)
    assert run.main(["fit", option, f"{package}.typo.Mine"]) == 2
    said = capsys.readouterr().err
    assert "its module can't be imported: SyntaxError" in said
    assert said.count("\n") == 1
