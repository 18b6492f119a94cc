"""YAML of people is read as they mean it; what was made to harm is one line, at once."""

import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from long_cases import rest_long

from da.errors import UserError
from da.ops.yaml12 import parse_yaml, read_yaml

ROOT = Path(__file__).parents[2]


def doubling(depth, width, item):
    """Each line holds the one before it several times."""
    lines = ["a0: &a0 {k: 1}"]
    for level in range(1, depth):
        lines.append(f"a{level}: &a{level} {item(', '.join([f'*a{level - 1}'] * width))}")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("1e-3", 0.001),
        ("010", 10),
        ("0x1f", 31),
        ("00:01:00:00", "00:01:00:00"),
        ("2026-01-02", "2026-01-02"),
        ("1_000", "1_000"),
        ("null", None),
    ],
)
def test_values_are_those_of_yaml_1_2(text, value):
    assert parse_yaml(f"a: {text}") == {"a": value}


def test_anchors_and_merges_of_ordinary_size_are_read():
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: *a") == {
        "a": {"x": 1},
        "b": {"x": 1, "y": 2},
        "c": {"x": 1},
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (doubling(10, 10, lambda parts: f"[{parts}]"), "more than 50000 values"),
        (doubling(9, 10, lambda parts: f"\n  <<: [{parts}]"), "more than 50000 values"),
        ("a: " + "[" * 3000, "more than 50 levels"),
        ("{a: " * 3000, "more than 50 levels"),
        ("- " * 3000, "more than 50 levels"),
        ("a: &x [*x]", "'*x' stands within what it stands for"),
        ("a: [" + "1," * 300_000 + "]", "more than 50000 values"),
        ("a: 1\nb: 2\na: 3", "'a' is given twice"),
        ("a: {b: 1, b: 2}", "'b' is given twice"),
        ("a: " + "9" * 9000, "no number has 9000 digits"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("a: !!timestamp 2026-01-02", "could not determine a constructor"),
        ("a: !!set {x}", "could not determine a constructor"),
        ("a: !!float x", "could not convert"),
        ("? [1]\n: 2", "unhashable key"),
        ("a: *b", "undefined alias"),
        ("a: \0", "special characters"),
        ("a: 1\n---\nb: 2", "another document"),
    ],
    ids=lambda value: value[:20].replace("\n", " ").replace("\0", "nul"),
)
def test_what_is_hostile_or_broken_is_one_line(tmp_path, text, problem):
    (tmp_path / "x.yaml").write_text(text)
    began = time.process_time()
    with pytest.raises(UserError) as caught:
        read_yaml(tmp_path / "x.yaml")
    assert time.process_time() - began < 30  # seconds of parsing
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'x.yaml'}")


def test_a_file_of_100_megabytes_is_refused_by_its_size(tmp_path):
    path = tmp_path / "x.yaml"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    with pytest.raises(UserError, match=r"x\.yaml: expected a file of settings, got .*100,000,000"):
        read_yaml(path)


READ_SETTINGS = [["ablate"], ["tune"], ["fit", "--config"]]


@pytest.mark.parametrize("command", rest_long(READ_SETTINGS, READ_SETTINGS[:1]), ids=" ".join)
def test_every_command_that_reads_settings_refuses_a_bomb_in_one_line(tmp_path, command):
    (tmp_path / "x.yaml").write_text(doubling(12, 10, lambda parts: f"[{parts}]"))
    done = subprocess.run(
        [sys.executable, ROOT / "run.py", *command, "x.yaml"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (3 * 10**9,) * 2),
    )
    assert done.returncode == 2, done.stderr
    assert "more than 50000 values" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not done.stdout
