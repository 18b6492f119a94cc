"""The benchmark runs and prints its ratios; how large they are is not for a test to say."""

import pytest
import torch

import run
from da.norms import aligned


def test_bench_norms_prints_every_variant_with_its_ratio(capsys):
    words = ["bench", "norms", "--rounds", "1", "--batch", "2", "--size", "16"]
    assert run.main(words) == 0
    out = capsys.readouterr().out
    for name in ("bn", "no normaliser", "wa", "wa, naive", "wa+bn", "gn"):
        assert f"│ {name} " in out
    assert "1.00" in out


def test_the_naive_variant_is_another_computation_of_the_same_weight():
    from da.commands.bench import naive_alignment

    fused, weight = aligned.align, torch.randn(4, 3, 3, 3)
    with naive_alignment():
        assert aligned.align is aligned.naive_align
        naive = aligned.align(weight)
    assert aligned.align is fused
    torch.testing.assert_close(naive, fused(weight))


@pytest.mark.parametrize("line", ["bench nroms", "bench norms --batch 0", "bench norms --rounds x"])
def test_bad_options_are_one_line(line, capsys):
    assert run.main(line.split()) == 2
    assert capsys.readouterr().err.count("\n") == 1
