"""Our numbers beside the published ones, against the same sums in numpy."""

import zlib

import numpy as np
import pytest
from fake_cells import made

from da.engine.result import DEFAULT_SCORE, Evaluation
from da.grids import plan as plans
from da.grids.grid_file import read_grid
from da.grids.store import Store
from da.reports import published_report
from da.reports.published_comparison import Line, classes, compare, other_images
from da.reports.published_ranges import distance, inside, ranges, tolerance
from da.reports.references import config, read
from da.reports.runs import load_runs
from da.reports.statistics import summary

EPOCHS = 4
VISDA = ["aeroplane", "bicycle", "bus", "car", "horse", "knife", "motorcycle", "person", "plant",
         "skateboard", "train", "truck"]  # fmt: skip
GROUP = ("DANN", "bn", "published", "")


def planned(name, seeds, methods=("DANN",)):
    grid = read_grid(config(name), {"methods": list(methods), "seeds": seeds})
    return plans.plan(grid, list(grid.tasks), "python run.py reproduce x", "tune")


def finished(store, plan, draw, without=()):
    """Results with predictions drawn by ``draw(cell)``; gives accuracies of the classes, sizes of
    the classes and scores without labels, ``(epochs, classes)``, ``(classes,)`` and ``(epochs,)``,
    by task and seed."""
    found = {}
    for cell in plan.cells:
        if (cell.task, cell.seed) in without:
            continue
        accuracies, sizes, scores = found[cell.task, cell.seed] = draw(cell)
        stream = {"cross_entropy": 0.3, "n": int(sizes.sum())}
        # In another order than they are published in: they are matched by name.
        names = VISDA[::-1] if len(sizes) == len(VISDA) else [f"c{k}" for k in range(len(sizes))]
        there = sizes > 0
        evaluations = []
        for epoch, score in enumerate(scores):
            shown = accuracies[epoch]
            test = stream | {
                "accuracy": (shown * sizes).sum() / sizes.sum(),
                "class_mean": shown[there].mean(),
                "per_class": {
                    name: float(a) if k else None
                    for name, a, k in zip(names, shown, there, strict=True)
                },
            }
            others = {"accuracy": 0.5, "class_mean": 0.5, "label_free": {DEFAULT_SCORE: score}}
            streams = {f"{d}/{s}": stream | others for d in ("source", "target")
                       for s in ("validation", "test")}  # fmt: skip
            forms = {"": streams | {"target/test": test}}
            evaluations.append(Evaluation(epoch=epoch, step=epoch + 1, forms=forms))
        result = made(cell).model_copy(update={"evaluations": evaluations})
        store.begin(cell)
        store.finish(cell, result, keep=False)
    return found


def drawn(classes, absent=()):
    random = np.random.default_rng(2)

    def draw(cell):
        sizes = random.integers(5, 2000, classes)
        sizes[list(absent)] = 0
        return random.random((EPOCHS, classes)), sizes, random.normal(size=EPOCHS)

    return draw


def chosen(accuracies, sizes, scores):
    """The epochs of the three selections: the oracle's is the best mean over samples."""
    samples = accuracies @ sizes / sizes.sum()
    return {"last": EPOCHS - 1, "label-free": scores.argmax(), "oracle": samples.argmax()}


def agrees(ours, values):
    values = 100 * np.array(values)
    return (ours.n, ours.mean, ours.std) == (
        len(values),
        pytest.approx(values.mean(), abs=1e-9),
        pytest.approx(values.std(ddof=1), abs=1e-9),
    )


def test_both_means_and_the_twelve_classes_of_visda(tmp_path):
    store, plan, references = Store(tmp_path), planned("visda", [0, 1, 2]), read("visda")
    absent = 4
    found = finished(store, plan, drawn(12, [absent]))
    runs = load_runs(store, plan)
    lines = compare(plan, runs, references)
    assert [(line.metric, line.reference.value) for line in lines] == [
        ("class_mean", 79.5),
        ("accuracy", 74.9),
    ]
    there = np.arange(12) != absent
    best = []
    for selection in ("last", "label-free", "oracle"):
        both = {"class_mean": [], "accuracy": []}
        for accuracies, sizes, scores in found.values():
            epoch = chosen(accuracies, sizes, scores)[selection]
            both["class_mean"].append(accuracies[epoch, there].mean())
            both["accuracy"].append(np.repeat(accuracies[epoch], sizes).mean())
            best.append(accuracies[:, there].mean(axis=1).argmax() == epoch)
        for line in lines:
            assert agrees(line.ours[selection], both[line.metric])
    assert not all(best[-3:])  # the epoch is not that of the best mean over classes
    shown = classes(plan, runs, references)
    theirs = [93.5, 74.3, 83.4, 50.7, 87.2, 90.2, 89.9, 76.1, 88.1, 91.4, 89.7, 39.8]
    assert [(line.name, line.published) for line in shown] == list(zip(VISDA, theirs, strict=True))
    for line in shown:
        label = VISDA[::-1].index(line.name)
        values = [a[chosen(a, n, s)["oracle"], label] for a, n, s in found.values()]
        assert line.ours is None if label == absent else agrees(line.ours, values)


def test_tasks_and_the_average_of_office31_with_one_cell_missing(tmp_path):
    references = read("office31")
    draw = drawn(31)
    for without in ((), [("dslr->amazon", 1)]):
        store, plan = Store(tmp_path / str(len(without))), planned("office31", [0, 1, 2])
        found = finished(store, plan, draw, without)
        *tasks, average = compare(plan, load_runs(store, plan), references)
        by_seed = {0: [], 1: [], 2: []}
        for line in tasks:
            values = []
            for seed, means in by_seed.items():
                if (line.task, seed) in found:
                    accuracies, sizes, scores = found[line.task, seed]
                    epoch = chosen(accuracies, sizes, scores)["oracle"]
                    values.append(accuracies[epoch] @ sizes / sizes.sum())
                    means.append(values[-1])
            if len(values) == 3:
                assert agrees(line.compared, values)
                expected = 100 * np.mean(values) - line.reference.value
                assert line.difference == pytest.approx(expected)
            else:
                assert (line.compared, line.difference, line.inside) == (None, None, None)
        if without:
            assert average.label == "average (5 of 6 tasks)"
            assert (average.compared, average.inside) == (None, None)
        else:
            assert agrees(average.compared, [np.mean(means) for means in by_seed.values()])
            assert average.reference.value == 86.1


def line_of(values, published=91.4):
    """DANN on A→W, with our accuracies at the oracle epoch."""
    theirs = next(r for r in read("office31") if (r.method, r.label) == ("DANN", "A→W"))
    assert theirs.value == published
    ours = dict.fromkeys(("last", "label-free")) | {"oracle": summary(values)}
    return Line(GROUP, theirs.task, theirs.label, "accuracy", theirs, ours, 3, 3)


@pytest.mark.parametrize(
    ("values", "band", "inside"),
    [
        ([91.4], 1.5, True),
        ([89.9], 1.5, True),  # as far as is allowed
        ([92.9], 1.5, True),
        ([89.8], 1.5, False),
        ([90.0, 90.2, 90.4], 1.5, True),  # errors of 0.1: the points decide
        ([89.0, 89.2, 89.4], 1.5, False),
        ([84.0, 88.0, 92.0], 8 / np.sqrt(3), True),  # 2 x 4 / sqrt(3) = 4.62
        ([82.0, 86.0, 90.0], 8 / np.sqrt(3), False),
    ],
)
def test_the_band_is_two_standard_errors_and_no_less_than_a_point_and_a_half(values, band, inside):
    line = line_of(values)
    if len(values) > 1:
        error = np.std(values, ddof=1) / np.sqrt(len(values))
        assert line.band == pytest.approx(max(2 * error, 1.5))
    assert line.band == pytest.approx(band)
    assert line.inside is inside
    said = published_report.verdict(line)
    assert said.startswith(f"{'inside' if inside else 'OUTSIDE'} (±{band:.1f}")
    assert ("one seed: error unknown" in said) == (len(values) == 1)


def test_the_written_table_is_that_of_the_numbers(tmp_path):
    store, plan, references = Store(tmp_path), planned("office31", [0, 1]), read("office31")
    found = finished(store, plan, drawn(31))
    lines = compare(plan, load_runs(store, plan), references)
    values = []
    for accuracies, sizes, scores in (found["amazon->webcam", seed] for seed in (0, 1)):
        epoch = chosen(accuracies, sizes, scores)["oracle"]
        values.append(100 * accuracies[epoch] @ sizes / sizes.sum())
    text = published_report.markdown(plan, lines, [])
    mean, std = np.mean(values), np.std(values, ddof=1)
    row = next(row for row in text.splitlines() if row.startswith("| A→W | "))
    assert row.startswith("| A→W | mean over samples | 91.4 | oracle | ")
    assert f"| {mean:.1f} ± {std:.1f} (2) | {mean - 91.4:+.1f} | " in row


def test_a_target_of_another_number_of_images_is_said(tmp_path):
    store, plan = Store(tmp_path), planned("office31", [0])
    finished(store, plan, drawn(31), without={("dslr->webcam", 0)})
    first, missing, *_ = load_runs(store, plan)
    count = first.result.evaluations[-1].forms[""]["target/test"].n

    def said(images):
        return other_images(plan.model_copy(update={"images": images}), [missing, first])

    assert said({}) == said({"webcam": count}) == said({"dslr": 1}) == []
    (text,) = said({"webcam": count + 1})
    assert f"target 'webcam' was tested on {count:,} images, published are {count + 1:,}" in text
    assert f"OTHER IMAGES: {text}." in published_report.markdown(plan, [], [], [text])


# The range over sources.


def test_gains_over_our_own_source_only_stand_beside_those_of_every_source(tmp_path):
    store = Store(tmp_path)
    plan, references = planned("office31", [0, 1, 2], ["SourceOnly", "DANN"]), read("office31")
    values = {}

    def draw(cell):
        random = np.random.default_rng(
            zlib.crc32(f"{cell.method} {cell.task} {cell.seed}".encode())
        )
        sizes, accuracies = random.integers(5, 90, 31), random.random((EPOCHS, 31))
        epoch = (accuracies @ sizes).argmax()
        values[cell.method, cell.task, cell.seed] = accuracies[epoch] @ sizes / sizes.sum()
        return accuracies, sizes, random.normal(size=EPOCHS)

    finished(store, plan, draw)
    shown = ranges(plan, load_runs(store, plan), references)
    assert [(x.group[0], x.task) for x in shown] == [
        (method, task) for method in ("SourceOnly", "DANN") for task in [*plan.tasks, "average"]
    ]
    base, dann = shown[6], shown[13]
    # As papers, code bases and their READMEs have it.
    assert sorted(base.values) == [76.1, 77.4, 79.3, 79.5, 80.1, 82.0, 82.9]
    assert sorted(dann.values) == [78.2, 82.2, 83.9, 86.1, 86.6]
    assert sorted(dann.gains) == [0.8, 1.9, 6.1, 6.5, 6.6]
    assert base.gains == []
    assert base.our_gain is None
    matrix = {
        method: np.array([[values[method, t, s] for t in plan.tasks] for s in (0, 1, 2)])
        for method in ("SourceOnly", "DANN")
    }
    assert agrees(dann.ours, matrix["DANN"].mean(1))
    assert agrees(dann.our_gain, (matrix["DANN"] - matrix["SourceOnly"]).mean(1))
    task = shown[7]
    assert agrees(task.our_gain, (matrix["DANN"] - matrix["SourceOnly"])[:, 0])
    assert task.gains == pytest.approx([91.4 - 75.8, 90.4 - 77.9])

    text = published_report.markdown(plan, [], [], (), shown)
    assert "76.1 to 82.9 (7)" in text
    assert "+0.8 to +6.6 (5)" in text
    assert "83.9, gain +1.9 (DeepDA of jindongwang/transferlearning; oracle, separate fo" in text
    assert "82.2, gain +6.1 (benchmark README of thuml/Transfer-Learning-Library; quoted" in text
    rows = [r for r in published_report.range_rows(shown) if r["task"] == "average"]
    assert {(r["method"], r["published"], r["forward"]) for r in rows} >= {
        ("DANN", 86.1, "joint"),
        ("DANN", 83.9, "separate"),
        ("SourceOnly", 82.9, ""),
    }


def test_a_number_of_other_settings_makes_a_range_and_no_verdict_of_its_own(tmp_path):
    """At the selection that its sources share; where they have several, at the last epoch."""
    store, references = Store(tmp_path), read("office31")
    plan = planned("office31", [0], ["MCD", "SHOT"])
    finished(store, plan, drawn(31))
    runs = load_runs(store, plan)
    lines = compare(plan, runs, references)
    assert {line.reference for line in lines} == {None}
    assert {published_report.verdict(line) for line in lines} == {"no number of these settings"}
    shown = ranges(plan, runs, references)
    assert {(x.group[0], x.selection) for x in shown} == {("MCD", "oracle"), ("SHOT", "last")}
    mcd, shot = shown[6], shown[13]
    assert (mcd.values, sorted(shot.values)) == ([85.4], [88.6, 89.0])
    said = "\n".join(published_report.range_tables(shown))
    assert said.count("its classifiers have three layers and dropout") == 1


def test_without_source_only_of_ours_there_is_no_gain(tmp_path):
    store, plan = Store(tmp_path), planned("visda", [0])
    finished(store, plan, drawn(12))
    runs = load_runs(store, plan)
    mean, samples = ranges(plan, runs, read("visda"))
    assert (mean.metric, samples.metric) == ("class_mean", "accuracy")
    # Papers are quoted with the mean over classes, and never with the other.
    assert (mean.values, samples.values) == ([57.4, 79.5], [74.9])
    assert mean.gains == pytest.approx([57.4 - 52.4, 79.5 - 51.7])
    assert mean.our_gain is None
    said = "\n".join(published_report.range_tables([mean, samples]))
    assert "| – | +5.0 to +27.8 (2) | missing |" in said


def test_an_average_over_some_of_the_tasks_has_no_range(tmp_path):
    grid = read_grid(config("office31"), {"methods": ["DANN"], "seeds": [0]})
    plan = plans.plan(grid, list(grid.tasks)[:2], "python run.py reproduce x", "tune")
    store = Store(tmp_path)
    finished(store, plan, drawn(31))
    shown = ranges(plan, load_runs(store, plan), read("office31"))
    assert [x.task for x in shown] == list(grid.tasks)[:2]


@pytest.mark.parametrize(
    ("values", "published", "beyond", "within"),
    [
        ([80.0, 80.0], [78.2, 86.6], 0.0, True),
        ([76.7, 76.7], [78.2, 86.6], 1.5, True),
        ([76.6, 76.6], [78.2, 86.6], 1.6, False),
        ([88.5, 88.5], [78.2, 86.6], 1.9, False),
        ([84.6, 92.4], [78.2, 86.6], 1.9, True),  # two standard errors are 7.8
        ([88.5, 88.5], [86.6], 1.9, False),
        ([88.5, 88.5], [], None, None),
        ([], [86.6], None, None),
    ],
)
def test_outside_is_beyond_the_range_by_more_than_the_tolerance(values, published, beyond, within):
    ours = summary(values) if values else None
    assert distance(ours, published) == (None if beyond is None else pytest.approx(beyond))
    assert inside(ours, published) is within
    if ours:
        assert tolerance(ours) >= 1.5
