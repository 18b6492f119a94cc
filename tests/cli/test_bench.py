"""The benchmarks run and print their ratios; how large they are is not for a test to say."""

import csv
from pathlib import Path

import pytest
import torch

import run
from da.benchmarks import norms as bench_norms
from da.benchmarks import step as bench_step
from da.benchmarks.norms import Case, Variant, naive_alignment
from da.cli import bench
from da.norms.weight_align import layers

ALL = list(bench_norms.VARIANTS)
TINY = "--networks digits_resnet@16 --batches 2 --precisions float32 --seconds 0.1"


@pytest.mark.parametrize(
    "words", ["norms", "step", "data", "statistics", "conversion --data Digits --weights w.pth"]
)
def test_a_file_in_the_way_is_refused_before_anything_is_measured(refused_words, tmp_path, words):
    (tmp_path / "taken").touch()
    said = refused_words("bench", *words.split(), "--out", "taken/below")
    assert said == "out: 'taken' is a file; name a folder"


def test_bench_norms_prints_and_saves_a_row_per_case(capsys, tmp_path):
    words = f"bench norms {TINY} --networks digits_resnet@8 --batches 1,2 --seconds 0.01".split()
    assert run.main([*words, "--norms", "wa,gn,wa naive", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    report = (tmp_path / "report.md").read_text()
    rows = [line for line in report.splitlines() if line.startswith("| dig")]
    assert len(rows) == 2
    assert all(line in out for line in rows)
    assert "bench norms --networks" in report
    table = list(csv.DictReader((tmp_path / "table.csv").open()))
    # Batch norm has no statistics of one image's maps of one pixel.
    assert [line.count("–") for line in rows] == [4, 1]
    for line in table:
        if line["bn training ms"]:
            assert float(line["bn training / bn"]) == 1
            assert float(line["wa training ms"]) > 0
        assert float(line["wa inference / none"]) > 0
        assert int(line["wa rounds"]) >= 3


def test_bench_norms_has_a_row_for_every_normaliser(tmp_path):
    words = f"bench norms {TINY} --seconds 0.01 --norms".split()
    assert run.main([*words, "all", "--out", str(tmp_path)]) == 0
    report = (tmp_path / "report.md").read_text()
    second = report.split("| normaliser |")[1].splitlines()
    rows = [[cell.strip() for cell in line.split("|")] for line in second if line.startswith("| d")]
    assert [row[4] for row in rows] == ["bn", "none", *(n for n in ALL if n not in ("bn", "none"))]
    titles = report.split("| normaliser |")[1].splitlines()[0].split("|")[:-1]
    assert [title.strip() for title in titles[2::3]] == ["training / torch", "inference / torch"]
    for name, *cells in (row[4:-1] for row in rows):
        over_torch = cells[2:6:3]
        assert all(float(cell) > 0 for i, cell in enumerate(cells) if i not in (2, 5))
        assert all((cell != "–") == (name in bench_norms.KERNELS) for cell in over_torch)


@pytest.mark.parametrize("name", bench_norms.KERNELS)
def test_the_reference_of_a_normaliser_computes_the_same_by_torchs_own_layers(name):
    case = Case("digits_resnet", 32, "float32", 4)
    ours, by_hand = (Variant(n, case, "cpu", compiled=False) for n in (name, f"torch {name}"))
    files = {type(module).__module__ for module in by_hand.model.modules()}
    assert not any(file.startswith("da.norms") for file in files)
    torch.testing.assert_close(ours.loss(), by_hand.loss())


def saved_bytes(case, name):
    return Variant(name, case, "cpu", compiled=False).bytes_for_backward()


def test_the_kept_bytes_are_those_of_the_floor_and_one_aligned_weight():
    case = Case("digits_resnet", 32, "float32", 4)
    model = Variant("wa", case, "cpu", compiled=False).model
    aligned = [m for m in model.modules() if isinstance(m, layers.Aligned)]
    one = sum(4 * m.weight.numel() for m in aligned)
    extra = saved_bytes(case, "wa") - saved_bytes(case, "none")
    # Besides ŵ: mean, deviation and the scaled g of each filter.
    filters = 4 * sum(len(m.weight) for m in aligned)
    assert one <= extra <= one + 3 * filters
    assert saved_bytes(case, "wa naive") - saved_bytes(case, "none") > 2.5 * one
    assert saved_bytes(case, "wa") < saved_bytes(case, "bn")


@pytest.mark.long
@pytest.mark.parametrize(("network", "most"), [("resnet18", 0.61), ("resnet50", 0.52)])
def test_wa_keeps_little_more_than_half_of_what_batch_norm_keeps(network, most):
    case = Case(network, 224, "float32", 32)
    assert saved_bytes(case, "wa") / saved_bytes(case, "bn") <= most


@pytest.mark.parametrize("name", ["bn", "none", "wa", "wa naive", "wa+bn", "gn"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_variant_infers_what_it_was_trained_to(name, precision):
    variant = Variant(name, Case("digits_resnet", 16, precision, 4), "cpu", compiled=False)
    before = [p.detach().clone() for p in variant.model.parameters()]
    variant.train()
    changed = [
        not torch.equal(a, b) for a, b in zip(before, variant.model.parameters(), strict=True)
    ]
    assert sum(changed) > len(changed) / 2
    variant.infer()
    fresh = Variant(name, Case("digits_resnet", 16, "float32", 4), "cpu", compiled=False)
    fresh.model.eval()
    torch.testing.assert_close(fresh.folded(fresh.images), fresh.model(fresh.images))


def test_the_naive_variant_is_another_computation_of_the_same_weight():
    fused, weight = layers.align, torch.randn(4, 3, 3, 3)
    with naive_alignment():
        assert layers.align is layers.naive_align
        naive = layers.align(weight)
    assert layers.align is fused
    torch.testing.assert_close(naive, fused(weight))


@pytest.mark.parametrize(
    "line",
    [
        "bench nroms",
        "bench norms --seconds x",
        f"bench norms {TINY} --batches 0",
        f"bench norms {TINY} --networks resnet18",
        f"bench norms {TINY} --networks resnte18@32",
        f"bench norms {TINY} --norms b",
        f"bench norms {TINY} --precisions float16",
        f"bench norms {TINY} --threads 0",
        "bench norms --device gpu",
    ],
)
def test_bad_options_are_one_line(line, capsys):
    assert run.main(line.split()) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_help_lists_the_benchmarks(capsys):
    assert run.main(["bench"]) == 2
    with pytest.raises(SystemExit):
        run.main(["bench", "--help"])
    shown = capsys.readouterr().out
    files = sorted(Path(bench.__file__).parent.glob("_bench_*.py"))
    assert len(files) >= 4
    for file in files:
        assert f"  {file.stem.removeprefix('_bench_')} " in shown


@pytest.mark.long
def test_bench_step_prints_and_saves_its_tables(capsys, tmp_path):
    words = "--backbone digits_resnet --size 32 --batch 2 --steps 1 --rounds 1 --threads 1"
    words += " --eval-rounds 2 --overhead-rounds 1 --overhead-steps 1"
    more = ["--out", str(tmp_path)]
    assert run.main(["bench", "step", *words.split(), *more]) == 0
    report = (tmp_path / "report.md").read_text()
    assert report in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    flags, evaluation, overhead = rows[:5], rows[5:7], rows[7:]
    assert [(row["loop"], row["rounds"]) for row in evaluation] == [("bn", "2"), ("wa", "2")]
    for row in evaluation:
        assert float(row["ms per image trained on"]) > 0
        assert float(row["share of an image trained on"]) > 0
    assert "| normaliser | ms trained | ms evaluated | evaluated / trained |" in report
    assert [row["loop"] for row in flags] == ["plain loop", *list(bench_step.FLAGS)[:4]]
    assert float(flags[0]["times as fast"]) == 1
    assert all(float(row["ms"]) > 0 for row in rows)
    assert [row["loop"] for row in overhead] == ["plain loop", "fit", "ablate", "steps alone"] * 2
    assert float(overhead[0]["added ms"]) == float(overhead[4]["added ms"]) == 0


def test_both_loops_of_bench_step_train_the_same(tmp_path):
    """The same parts from the same weights end in the same weights: identical maths."""
    batches = bench_step.random_batches(4, 32)
    module = bench_step.DANN(num_classes=10, lr=bench_step.LR, decay="all")
    module.prepare()
    network = bench_step.PlainDANN("digits_resnet")
    network.load_state_dict(
        {name.removeprefix("network."): v for name, v in module.state_dict().items()}
    )
    bench_step.run_plain_loop(network, bench_step.ClockedBatches(batches, 5))
    clocked = bench_step.ClockedBatches(batches, 5)
    bench_step.run_framework(module, bench_step.PremadeData(clocked, 4), "32-true", "fit", tmp_path)
    assert len(clocked.costs()) == 3
    for (name, p), q in zip(module.named_parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--steps 0", "--steps: expected a whole number from 1, got 0"),
        ("--batch 1", "--batch: expected a whole number from 2, got 1"),
        ("--rounds 0 --overhead-rounds 0 --eval-rounds 0", "nothing would be measured"),
        ("--backbone resnet5", "unknown backbone 'resnet5'"),
        ("--threads none", "--threads: "),
    ],
)
def test_bench_step_refuses_what_means_nothing_in_one_line(words, text, capsys):
    assert run.main(["bench", "step", *words.split()]) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1


def test_bench_data_compares_with_image_folder(capsys, tmp_path):
    words = [
        "bench",
        "data",
        "--images",
        "32",
        "--batch",
        "4",
        "--workers",
        "0",
        "--rounds",
        "1",
        "--out",
    ]
    assert run.main([*words, str(tmp_path)]) == 0
    table = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert [row["loader"] for row in table] == ["ImageFolder", "with the cache", "without a cache"]
    assert all(float(row["epoch 2"]) > 0 for row in table)
    assert float(table[0]["ratio 2"]) == 1
    said = capsys.readouterr().out
    assert "| 0 | with the cache |" in said
    assert said.count("building a cache of 16") == 2
