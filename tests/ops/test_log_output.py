import logging
import re
from pathlib import Path

import pytest

from da.ops.log_output import show_log

ROOT = Path(__file__).parents[2]


@pytest.fixture
def package():
    """A logger that no other test has, without its handlers afterwards."""
    log = logging.getLogger("package_of_data")
    yield log
    log.handlers.clear()


def test_news_go_to_standard_output_and_warnings_to_standard_error_once(package, capsys):
    for _ in range(2):
        show_log(package.name)
    logging.getLogger(f"{package.name}.files").info("built")
    logging.getLogger(f"{package.name}.files").warning("broken")
    out, err = capsys.readouterr()
    assert (out, err) == ("built\n", "broken\n")


def test_only_the_command_line_and_what_renders_for_it_print():
    # The terminal's report, the log's own handler, and what a worker says into a cell's log.
    allowed = {"da/ops/log_output.py", "da/reports/terminal.py", "da/grids/executors/worker.py"}
    printing = {
        str(path.relative_to(ROOT))
        for package in ("da", "datasets")
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"^ +print\(", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert {path for path in printing if not path.startswith("da/cli/")} <= allowed
