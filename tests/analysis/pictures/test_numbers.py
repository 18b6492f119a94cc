"""The numbers of the pictures are those of other implementations."""

import html

import numpy as np
import pytest
import torch
from long_cases import rest_long
from made_up_networks import network, subject
from refusing import refused
from sklearn.linear_model import LogisticRegression
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_confusion_matrix,
)

from da.analysis.pictures import (
    a_distance,
    calibration,
    class_accuracy,
    confusion,
    mmd,
    tsne,
    wrong,
)
from da.analysis.pictures.a_distance import proxy_a_distances
from da.analysis.pictures.calibration import measure_reliability
from da.analysis.pictures.drawing import write_picture
from da.analysis.pictures.tsne import embed
from da.ops.intervals import wilson_interval


def test_the_calibration_error_is_torchmetrics_and_its_bins_hold_every_image():
    random = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(500, 5, generator=random, dtype=torch.float64)
    labels = torch.randint(5, (500,), generator=random)
    found = measure_reliability(logits.softmax(1).numpy(), labels.numpy())
    theirs = multiclass_calibration_error(logits.softmax(1), labels, 5, n_bins=15, norm="l1")
    assert found.error == pytest.approx(theirs.item(), rel=1e-5)
    assert found.counts.sum() == 500
    assert np.isnan(found.accuracy[0])  # below 1/5 no largest probability can lie
    p = logits.softmax(1).max(1).values.numpy()
    right = (logits.argmax(1) == labels).numpy()
    own = (p > 13 / 15) & (p <= 14 / 15)
    assert found.counts[13] == own.sum()
    assert found.accuracy[13] == pytest.approx(right[own].mean())
    assert found.confidence[13] == pytest.approx(p[own].mean())


def test_edges_of_bins_and_perfect_and_hopeless_networks():
    sure = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert measure_reliability(sure, np.array([0, 1])).error == 0
    hopeless = measure_reliability(sure, np.array([1, 0]))
    assert hopeless.error == 1
    assert hopeless.counts.tolist() == [0] * 14 + [2]
    half = measure_reliability(np.full((4, 2), 0.5), np.array([0, 0, 1, 1]), bins=2)
    assert half.counts.tolist() == [4, 0]  # (0, 1/2] holds its upper edge
    assert half.error == 0


def errors_of_halves(source, target, seed, splits=40):
    """Another linear classifier, weights by hand-made halves of each domain."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(splits):
        parts = [np.array_split(random.permutation(x), 2) for x in (source, target)]
        seen, held = ([part[i] for part in parts] for i in range(2))
        model = LogisticRegression(C=0.01).fit(
            np.concatenate(seen), np.repeat([0, 1], list(map(len, seen)))
        )
        wrong = [np.mean(model.predict(x) != k) for k, x in enumerate(held)]
        found.append(2 * (1 - 2 * np.mean(wrong)))
    return found


@pytest.mark.parametrize("gap", [0.0, 1.0, 2.0])
def test_the_a_distance_is_that_of_the_best_linear_classifier(gap):
    from scipy.stats import norm

    random = np.random.default_rng(0)
    source, target = random.normal(size=(2, 300, 3)).astype(np.float32)
    target[:, 0] += gap
    found = proxy_a_distances(source, target, seed=0, splits=4)
    bayes = 2 * (1 - 2 * norm.sf(gap / 2))  # of two Gaussians: half of each lies beyond gap / 2
    assert found.mean() == pytest.approx(bayes, abs=0.15)
    assert found.mean() == pytest.approx(np.mean(errors_of_halves(source, target, 1)), abs=0.1)
    assert np.array_equal(found, proxy_a_distances(source, target, seed=0, splits=4))
    assert 0 < found.std() < 0.2


def test_domains_apart_have_a_distance_of_2_in_every_division():
    random = np.random.default_rng(0)
    source = random.normal(size=(8, 2)).astype(np.float32)
    assert proxy_a_distances(source, source + 100, 3, splits=4).tolist() == [2.0] * 4


def test_the_picture_of_the_a_distance_holds_mean_deviation_and_error():
    shown = subject(most=16)
    networks = [network(shown, "bn"), network(shown, "wa", seed=1, gap=0.0)]
    picture = a_distance.draw(networks, shown)
    for one in networks:
        own = [row for row in picture.rows if row["network"] == one.name]
        values = [row["a_distance"] for row in own]
        assert own[0]["mean"] == pytest.approx(np.mean(values))
        assert own[0]["deviation"] == pytest.approx(np.std(values, ddof=1))
        assert [2 * (1 - 2 * row["error"]) for row in own] == pytest.approx(values)
        assert {row["images"] for row in own} == {16}


def test_confusion_and_class_accuracy_are_torchmetrics():
    shown = subject(classes=5, images=43)
    one = network(shown, sure=1.0)
    logits, labels = torch.from_numpy(one.target.logits), torch.from_numpy(one.target.labels)
    rows = confusion.draw([one], shown).rows
    theirs = multiclass_confusion_matrix(logits, labels, 5)
    assert [row["count"] for row in rows] == theirs.flatten().tolist()
    shares = (theirs / theirs.sum(1, keepdim=True)).flatten().tolist()
    assert [row["share"] for row in rows] == pytest.approx(shares)
    assert [row["true"] for row in rows[:5]] == [shown.data.classes[0]] * 5
    picture = class_accuracy.draw([one], shown)
    theirs = multiclass_accuracy(logits, labels, 5, average=None)
    assert [row["accuracy"] for row in picture.rows] == pytest.approx(theirs.tolist())
    for row in picture.rows:
        assert (row["low"], row["high"]) == wilson_interval(row["accuracy"], row["images"])
    assert picture.headline[1] == f"{100 * theirs.mean():.1f}"


def test_classes_that_the_target_lacks_have_no_share():
    shown = subject(classes=6, images=30)
    one = network(shown)
    there = one.target.labels
    there[there == 2] = 3
    rows = confusion.draw([one], shown).rows
    assert {row["share"] for row in rows if row["true"] == shown.data.classes[2]} == {None}
    classes = [row["class"] for row in class_accuracy.draw([one], shown).rows]
    assert classes == [name for i, name in enumerate(shown.data.classes) if i != 2]


def test_wrong_images_come_surest_first_and_say_who_else_is_wrong():
    shown = subject(classes=4, images=60)
    networks = [network(shown, "bn", sure=1.0), network(shown, "wa", seed=1, sure=1.0)]
    rows = wrong.draw(networks, shown).rows
    for one in networks:
        own = [row for row in rows if row["network"] == one.name]
        p = torch.from_numpy(one.target.logits).double().softmax(1)
        missed = [i for i in range(60) if p[i].argmax() != one.target.labels[i]]
        missed.sort(key=lambda i: -p[i].max().item())
        assert [row["image"] for row in own] == [f"{i}.png" for i in missed]
        assert own[0]["confidence"] == pytest.approx(p[missed[0]].max().item())
        assert own[0]["true"] != own[0]["predicted"]
    images = [{r["image"] for r in rows if r["network"] == name} for name in ("bn", "wa")]
    both = {row["image"] for row in rows if row["wrong_in"] == "bn; wa"}
    assert both == images[0] & images[1]
    assert both


def test_a_network_without_a_mistake_has_an_empty_table_with_a_header():
    shown = subject()
    perfect = network(shown, sure=1e4)
    perfect.target.logits[np.arange(40), perfect.target.labels] = 1e9
    picture = wrong.draw([perfect], shown)
    assert picture.rows == []
    assert picture.header[0] == "network"


def test_images_without_labels_among_others_are_not_scored():
    shown = subject(classes=4, images=40)
    one = network(shown)
    one.target.labels[:10] = -1
    for module in (confusion, class_accuracy):
        rows = module.draw([one], shown).rows
        assert sum(row.get("count", row.get("images")) for row in rows) == 30
    assert sum(row["images"] for row in calibration.draw([one], shown).rows) == 30


def test_the_map_keeps_neighbours_together_and_is_the_same_every_time():
    random = np.random.default_rng(0)
    features = np.concatenate([random.normal(c, 0.1, (20, 5)) for c in (0, 5, 10)])
    found = embed(features.astype(np.float32), 0)
    assert np.array_equal(found, embed(features.astype(np.float32), 0))
    middles = np.array([found[20 * i : 20 * i + 20].mean(0) for i in range(3)])
    nearest = np.linalg.norm(found[:, None] - middles, axis=2).argmin(1)
    assert nearest.tolist() == np.repeat([0, 1, 2], 20).tolist()


@pytest.mark.parametrize("features", [np.zeros((16, 4)), np.ones((16, 1)), np.eye(16)[:, :1]])
def test_features_that_hardly_vary_have_a_map_too(features):
    assert np.isfinite(embed(features.astype(np.float32), 0)).all()


def test_no_layer_to_compare_domains_at_is_said_in_one_line():
    shown = subject()
    nothing = network(shown, "mlp", layers=0)
    said = refused(lambda: mmd.draw([network(shown), nothing], shown))
    assert said == "mmd: the network 'mlp' has no layer at which domains can be compared"


PICTURES = [class_accuracy, confusion, wrong, tsne, calibration, mmd]


@pytest.mark.parametrize("module", rest_long(PICTURES, [class_accuracy, wrong]))
def test_names_with_dollars_are_drawn_as_they_are(module, tmp_path):
    shown = subject(classes=3, images=24, shared="a$_b$")
    named = ("x$^y$", "a$b", "c$\\frac$")
    shown.data.classes = named
    shown.data.source = "in$_$side"
    networks = [network(shown, "bn$_{$"), network(shown, "wa", seed=1)]
    files = write_picture(module.draw(networks, shown), tmp_path / "picture")
    text = html.unescape(next(f for f in files if f.suffix == ".svg").read_text())
    assert "in$_$side" in text
    assert "a$_b$" in text
    if module in (confusion, class_accuracy):
        assert "$\\frac$" in text
