"""The benchmark of conversion runs and prints its table; the baselines are what they say."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import run
from da.benchmarks.conversion import match_moments, measure_simpler_ways, random_pictures
from da.benchmarks.conversion_of_photographs import measure_domain, predict
from da.errors import UserError
from da.norms import WeightAlign
from da.norms.weight_align.layers import Aligned
from datasets.digits import Digits


def test_a_row_for_each_way_and_for_each_layer(capsys: pytest.CaptureFixture[str]) -> None:
    options = "--network mobilenet_v3_small --size 16 --images 20 --threads 1 --baselines --layers"
    assert run.main(["bench", "conversion", *options.split()]) == 0
    out = capsys.readouterr().out.splitlines()
    rows = [line.split(" | ") for line in out if line.startswith("| ")]
    ways = [row for row in rows if row[0] in ("| fitted", "| moments matched", "| only aligned")]
    assert len(ways) == 3
    assert all(0 <= float(row[1].rstrip(" %")) <= 100 for row in ways)
    assert all(float(row[5].split()[0]) > 0 for row in ways)
    assert len([row for row in rows if row[0].startswith("| features.")]) == 22
    assert out[-1].startswith("mobilenet_v3_small, 20 images of 16 × 16;")


@pytest.mark.long
def test_a_network_of_a_file_is_measured_on_every_domain(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed: pip install -e '.[timm]'")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = timm.create_model("mobilenetv2_035", num_classes=20)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    options = ["--data", "Digits", "--size", "32", "--images", "20", "--threads", "1"]
    options += ["--network", "timm/mobilenetv2_035", "--weights", str(tmp_path / "w.pth")]
    options += ["--sources", "optical", "--out", str(tmp_path / "out")]
    assert run.main(["bench", "conversion", *options]) == 0
    shown = capsys.readouterr().out
    (row,) = [line for line in shown.splitlines() if line.startswith("| optical |")]
    report = (tmp_path / "out/report.md").read_text(encoding="utf-8")
    assert row in report
    assert f"`python run.py bench conversion {' '.join(options)}`" in report
    with (tmp_path / "out/table.csv").open(encoding="utf-8") as file:
        there, *others, together = csv.DictReader(file)
    assert (there["measured_on"], together["measured_on"]) == ("optical", "others")
    assert {one["measured_on"] for one in others} == set(Digits.domains) - {"optical"}
    assert there["images"] == "20"
    assert int(together["count"]) == sum(int(one["count"]) for one in others)
    for one in (there, *others):
        share = int(one["equal"]) / int(one["count"])
        assert float(one["low"]) <= float(one["kept"]) == pytest.approx(share, abs=1e-4)
        assert float(one["high"]) >= share
    # Of 52 convolutions 17 are depthwise and one sees the image; two more may stay plain.
    assert (there["layers"], there["of_layers"]) == ("32", "52")
    assert "| 32 of 52 (61.5 %) |" in row


@torch.no_grad()
def test_what_is_kept_is_counted_on_images_that_were_not_converted_on() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4)),
    ).eval()
    images = {
        "a": torch.rand(60, 3, 8, 8),
        "b": torch.randn(40, 3, 8, 8),
        "c": torch.rand(9, 3, 8, 8),
    }
    wanted = {name: predict(model, x) for name, x in images.items()}
    wanted["b"] = (wanted["b"] + 1) % 4  # none is kept where another is compared with
    wanted["a"][:30] = -1  # those converted on don't count
    row = measure_domain(model, images, wanted, "a", 30, WeightAlign(exclude="0", min_channels=4))
    assert (row.images, row.held_out.images) == (30, 30)
    assert row.held_out.share > 0.8
    assert [(kept.domain, kept.images) for kept in row.others] == [("b", 40), ("c", 9)]
    assert row.others[0].share < 0.2
    assert row.together.images == 49
    assert row.together.equal == sum(kept.equal for kept in row.others)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--network resnet19", "unknown network 'resnet19'; did you mean 'resnet18'?"),
        ("--images 5", "--images: expected at least 20, got 5"),
        ("--threads 0", "--threads: expected at least 1, got 0"),
        ("--data Digits", "--weights: expected the file of a whole network, which --data needs"),
        ("--data Digits --weights a --sources x", "unknown source 'x'"),
        ("--weights a --min-channels 2", "--weights, --min-channels: would have no effect without"),
        ("--root a", "--root: would have no effect without --data; leave it out"),
        ("--sources a", "--sources: would"),
        ("--min-weights 0", "--min-weights: would"),
        ("--exclude a", "--exclude: would"),
        ("--out a", "--out: would"),
        (
            "--data Digits --weights a --baselines --layers",
            "--baselines, --layers: would have no effect with --data; leave it out",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(options: str, message: str) -> None:
    from da.cli import _bench_conversion

    with pytest.raises(UserError) as error:
        _bench_conversion.main(["--images", "20", "--size", "8", *options.split()])
    assert str(error.value).startswith(message)


def test_pictures_have_structure_at_every_scale() -> None:
    images = random_pictures(20, 32)
    assert images.shape == (20, 3, 32, 32)
    assert abs(float(images.mean())) < 1e-5
    assert float(images.std()) == pytest.approx(1, abs=1e-3)
    assert torch.equal(images, random_pictures(20, 32))
    coarse, fine = (
        float(nn.functional.avg_pool2d(images, side).var() - rest)
        for side, rest in ((8, 0.0), (2, float(nn.functional.avg_pool2d(images, 8).var())))
    )
    assert coarse > 0.2
    assert fine > 0.2


@torch.no_grad()
def outputs(model: nn.Module, images: Tensor, names: list[str]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda layer, taken, given, name=name: found.update({name: given.clone()})
        )
        for name in names
    ]
    model(images)
    for handle in handles:
        handle.remove()
    return found


def test_matched_moments_are_those_of_the_original() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)),
    )
    images = random_pictures(32, 16)
    model(images)
    model.eval()
    converted = match_moments(model, images)
    aligned = [n for n, m in converted.named_modules() if isinstance(m, Aligned)]
    assert aligned == ["0", "3"]
    found, wanted = outputs(converted, images, aligned), outputs(model, images, ["1", "4"])
    for mine, theirs in zip(found.values(), wanted.values(), strict=True):
        torch.testing.assert_close(mine.mean((0, 2, 3)), theirs.mean((0, 2, 3)), atol=1e-4, rtol=0)
        torch.testing.assert_close(mine.std((0, 2, 3)), theirs.std((0, 2, 3)), rtol=1e-3, atol=0)
    rows = measure_simpler_ways(model, images, [random_pictures(10, 16, seed=1)])
    assert [row.way for row in rows] == ["moments matched", "only aligned"]
    assert rows[0].error < rows[1].error
