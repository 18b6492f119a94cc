import csv
import re

import numpy as np
import pytest
import torch
from PIL import Image

from da.analysis.activation_figures import (
    COLUMNS,
    InspectedNetwork,
    draw_figure,
    layer_rows,
    save_figure_and_table,
)
from da.analysis.activations import LayerSpreads
from da.ops.moments import Spread


def spread(random, channels):
    return Spread(*map(torch.from_numpy, (random.normal(size=channels), random.random(channels))))


def network(norm="bn", depth=4, seed=0, **given):
    """Layers with moments drawn at random; the last has no normaliser."""
    random = np.random.default_rng(seed)
    layers = []
    for i in range(depth):
        into, out = ({d: spread(random, 3 + i) for d in ("source", "target")} for _ in range(2))
        bare = i == depth - 1 or norm == "wa"
        kind = "" if bare else "BatchNorm2d"
        running = None if bare else spread(random, 3 + i)
        name = f"backbone.blocks.{i}.conv"
        layers.append(LayerSpreads(name, "convolution", kind, into, into if bare else out, running))
    settings = {"name": f"{norm}.ckpt", "task": "a->b", "norm": norm, "method": "DANN", **given}
    return InspectedNetwork(layers=layers, **settings)


def test_a_row_says_what_the_moments_are():
    found = network()
    table = layer_rows(found)
    assert len(table) == 4 * 4 + 3
    for row in table:
        layer = found.layers[row["depth"] - 1]
        assert set(row) == set(COLUMNS)
        of = layer.running if row["of"] == "running" else getattr(layer, row["point"])[row["of"]]
        pair = getattr(layer, row["point"])
        a, b = ({k: v.numpy() for k, v in pair[d]._asdict().items()} for d in pair)
        assert row["layer"] == layer.name
        assert row["channels"] == 2 + row["depth"]
        assert row["mean"] == pytest.approx(of.mean.numpy().mean())
        assert row["mean_spread"] == pytest.approx(of.mean.numpy().std())
        assert row["std"] == pytest.approx(of.std.numpy().mean())
        assert row["std_spread"] == pytest.approx(of.std.numpy().std())
        sigma = np.sqrt((a["std"] ** 2 + b["std"] ** 2) / 2)
        ratio = np.exp(np.log(of.std.numpy() / a["std"]).mean())
        assert row["std_ratio"] == pytest.approx(ratio)
        if row["of"] == "running":
            assert row["gap"] is row["to_running"] is None
            assert row["target_share"] == pytest.approx(layer.target_share)
            continue
        assert row["target_share"] is None
        assert row["gap"] == pytest.approx((np.abs(a["mean"] - b["mean"]) / sigma).mean())
        if layer.running is None or row["point"] == "out":
            assert row["to_running"] is None
        else:
            away = np.abs(of.mean.numpy() - layer.running.mean.numpy()) / sigma
            assert row["to_running"] == pytest.approx(away.mean())


def test_the_files_hold_the_values_and_are_the_same_every_time(tmp_path):
    networks = [network(), network("wa", seed=1)]
    files = save_figure_and_table(tmp_path / "one", networks)
    assert sorted(f.name for f in files) == [f"activations.{e}" for e in ("csv", "png", "svg")]
    for file in save_figure_and_table(tmp_path / "two", networks):
        assert file.read_bytes() == (tmp_path / "one" / file.name).read_bytes()
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == sorted(f.name for f in files)
    with (tmp_path / "one" / "activations.csv").open() as file:
        found = list(csv.DictReader(file))
    expected = [row for n in networks for row in layer_rows(n)]
    assert len(found) == len(expected)
    for text, row in zip(found, expected, strict=True):
        for key, value in row.items():
            if isinstance(value, float):
                assert float(text[key]) == pytest.approx(value, rel=1e-5)
            else:
                assert text[key] == ("" if value is None else str(value))
    svg = (tmp_path / "one" / "activations.svg").read_text()
    assert "bn, DANN</text>" in svg, "text stays text"
    assert "<dc:date>" not in svg
    assert len(svg) < 200_000
    with Image.open(tmp_path / "one" / "activations.png") as picture:
        assert picture.width > 500
        assert len(picture.convert("RGB").getcolors(2**24)) > 100, "the picture is blank"


def lines_of(axis):
    return {
        (line.get_color(), line.get_linestyle()): np.asarray(line.get_ydata(), float)
        for line in axis.get_lines()
    }


def test_the_lines_are_the_values():
    networks = [network(), network("wa", depth=6, seed=1)]
    axes = np.array(draw_figure(networks).axes).reshape(4, 2)
    for column, found in zip(axes.T, networks, strict=True):
        for axis in column:
            low, high = axis.get_ylim()
            assert all(((low <= y) & (y <= high)).all() for y in lines_of(axis).values())
        table = layer_rows(found)

        def of(name, key, point="into", table=table):
            return [r[key] for r in table if (r["of"], r["point"]) == (name, point)]

        deviations, distances, ratios = map(lines_of, column[1:])
        blue, orange, green, black = "#0072B2", "#D55E00", "#009E73", "#000000"
        np.testing.assert_allclose(deviations[blue, "-"], of("source", "std"))
        np.testing.assert_allclose(deviations[orange, "-"], of("target", "std"))
        np.testing.assert_allclose(ratios[orange, "-"], of("target", "std_ratio", "out"))
        np.testing.assert_allclose(ratios[blue, "-"], 1)
        np.testing.assert_allclose(distances[green, "-"], of("source", "gap", "out"))
        if found.norm == "wa":
            assert set(distances) == {(green, "-")}
            assert (black, "--") not in deviations
            assert [text.get_text() for text in column[2].texts] == ["no running statistics"]
        else:
            assert not column[2].texts
            np.testing.assert_allclose(deviations[black, "--"], of("running", "std"))
            away = [value for value in of("target", "to_running") if value is not None]
            np.testing.assert_allclose(distances[orange, ":"], away)


def titles(networks):
    return [axis.get_title() for axis in draw_figure(networks).axes[: len(networks)]]


def test_titles_tell_networks_apart():
    assert titles([network(), network("wa")]) == ["bn, DANN", "wa, DANN"]
    two = [network(name="a/last.ckpt"), network(name="b/last.ckpt"), network("wa")]
    assert titles(two) == ["bn, DANN\na/last.ckpt", "bn, DANN\nb/last.ckpt", "wa, DANN"]
    assert titles([network(), network(task="a->c")]) == ["bn, DANN\na->b", "bn, DANN\na->c"]


def test_the_legend_names_the_domains_where_all_are_the_same():
    def legend(networks):
        return [text.get_text() for text in draw_figure(networks).legends[0].get_texts()]

    assert "source (a)" in legend([network()])
    assert "batch norm's running statistics" in legend([network()])
    assert "source" in legend([network(), network(task="a->c")])
    assert not [text for text in legend([network("wa")]) if "running" in text]


def test_deep_networks_are_named_at_a_few_layers_and_constant_ones_are_drawn(tmp_path):
    deep = network(depth=105)
    assert len(draw_figure([deep]).axes[-1].get_xticks()) <= 16
    dead = network()
    for pair in (dead.layers[0].into, dead.layers[0].out):
        for moments in pair.values():
            moments.std.zero_()
    save_figure_and_table(tmp_path, [dead])
    text = (tmp_path / "activations.csv").read_text()
    assert not re.search("nan|None", text)
