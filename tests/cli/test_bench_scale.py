"""The benchmark of scales prints what was measured, and refuses what it can't measure."""

import re

import pytest

from da.analysis.initial_scale import (
    STAGES,
    build_network,
    largest_over_smallest,
    measure_scales,
    noise_images,
)
from da.cli._bench_scale import main
from da.errors import UserError


def test_the_table_holds_what_was_measured(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    words = "--networks resnet18 --options he:depth --size 32 --batch 4 --seeds 5"
    assert main(words.split()) == 0
    out = capsys.readouterr().out
    found = measure_scales(
        build_network("resnet18", "wa", 5, residual="depth"),
        noise_images(4, 32, 5),
        STAGES["resnet18"],
        5,
    )
    row = next(line for line in out.splitlines() if "wa he, depth" in line)
    cells = [cell.strip() for cell in row.split("│")[3:-1]]
    assert cells == [
        f"{found.forward[0]:.2g}",
        f"{found.forward[-1]:.2g}",
        f"{largest_over_smallest(found.forward):.1f}",
        f"{found.backward[0]:.2g}",
        f"{largest_over_smallest(found.backward):.1f}",
        f"{largest_over_smallest(found.weights):.1f}",
    ]
    assert "│ bn " in out


def test_images_of_a_data_module(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    words = (
        "--networks resnet18 --options he:zero --size 32 --batch 4 --data datasets.digits.Digits"
    )
    assert main(words.split()) == 0
    out = capsys.readouterr().out
    assert re.search(r"4 images \(rendered\) of 32 × 32", out)
    assert "inf" in next(line for line in out.splitlines() if "wa he, zero" in line)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ("--size 16", "--size: expected at least 32, got 16"),
        ("--options he", "--options: expected gain:residual, such as he:one, got 'he'"),
        ("--options hee:one", "unknown gain 'hee'"),
        ("--networks resnet5", "unknown network 'resnet5'; did you mean 'resnet50'"),
        (
            "--data datasets.digits.Digit",
            "--data: unknown data set 'datasets.digits.Digit'; did you",
        ),
        ("--data Digit", "--data: unknown data set 'Digit'; did you mean 'Digits'"),
        ("--seeds x", "x"),
        ("--sizes 3", "unknown option '--sizes'"),
    ],
)
def test_bad_options_are_one_line(words, match):
    with pytest.raises(UserError, match=match) as error:
        main(words.split())
    assert "\n" not in str(error.value)
