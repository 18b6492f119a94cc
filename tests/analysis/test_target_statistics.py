"""What is measured of a trained network, against the forms that every evaluation has."""

import pytest
import torch
from refusing import refused

from da.analysis.target_statistics import StudiedNetwork, measure, trained_network
from da.engine.spec import RunSpec
from da.engine.training import train
from da.grids.statistics_study import Questions

#: In one batch, so that statistics do not depend on how images are cut into batches.
DATA = {"eval_batch_size": 2000}
ASKED = Questions(
    images=(1, 16, "all"),
    mixture={"source": (0, 0.5), "others": (0.5,)},
    label_shift=("iid", 0.1, "sorted"),
    adapters={"BatchStatistics": {"single_images": True}, "TENT": {"single_images": True}},
    batch_size=16,
    statistics_images=16,
    draws=2,
    test_images=60,
)


def spec_of(norm):
    method = "DANN" if norm == "dsbn" else "SourceOnly"  # dsbn needs images of the target
    return RunSpec(
        data="Digits", data_args=DATA, source="rendered", target="optical", method=method,
        norm=norm, model_args={"bottleneck": 16}, lr=0.05, batch_size=16, epochs=1,
        steps_per_epoch=12, seed=0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folders and results of short trainings, by normaliser."""
    made = {}
    for norm in ("bn", "wa", "dsbn"):
        folder = tmp_path_factory.mktemp(norm)
        made[norm] = folder / "last.ckpt", train(spec_of(norm), folder)
    return made


def answers(trained, norm, asked=ASKED):
    cell, (path, _) = spec_of(norm), trained[norm]
    shown = []
    found = measure(cell, path.parent, shown.append, asked.model_dump(), {cell.id: str(path)})
    assert shown == sorted(shown)
    assert all(0 <= part < 1 for part in shown)
    return found


def test_statistics_of_all_images_are_the_form_that_evaluation_has(trained):
    every = Questions(images=("all",))
    for norm in ("bn", "wa"):
        found, result = answers(trained, norm, every), trained[norm][1]
        forms = result.evaluations[-1].forms
        assert found.trained == pytest.approx(forms[""]["target/test"].accuracy)
        assert found.images["test"] == forms[""]["target/test"].n
        assert found.statistics == (norm == "bn")
        if norm == "bn":
            (one,) = found.measured
            assert one.accuracy == pytest.approx(forms["target-stats"]["target/test"].accuracy)
        else:
            assert found.measured == []  # nothing changes: it is not measured


def test_every_value_is_measured_and_what_is_one_condition_has_one_accuracy(trained):
    found = answers(trained, "bn")
    places = {(m.question, m.other, m.value, m.way, m.draw): m.accuracy for m in found.measured}
    assert len(places) == len(found.measured) == 3 * (2 * 8 + 1)
    assert {m.n for m in found.measured} == {60}
    for way in ("reestimated", "BatchStatistics", "TENT"):
        for draw in range(2):
            same = [
                places["images", "", "16", way, draw],
                places["mixture", "source", "0", way, draw],
                places["label_shift", "", "iid", way, draw],
            ]
            assert len(set(same)) == 1
    assert len(set(places.values())) > 4  # of a network near chance, on 60 images
    # Again the same, whatever else is asked.
    fewer = ASKED.model_copy(update={"images": (16,), "mixture": {}, "label_shift": ()})
    again = answers(trained, "bn", fewer).measured
    assert len(again) == 6
    assert all(one in found.measured for one in again)


def test_a_network_without_statistics_changes_only_by_what_is_learnt(trained):
    found = answers(trained, "wa")
    assert {m.way for m in found.measured} == {"TENT"}
    assert len(found.measured) == 2 * 8 + 1


def test_statistics_of_each_domain_are_those_of_the_batch_and_are_not_re_estimated(trained):
    asked = Questions(
        images=(2, 32),
        adapters={"BatchStatistics": {"single_images": True}, "TENT": {"single_images": True}},
        draws=1,
        test_images=60,
    )
    found = answers(trained, "dsbn", asked)
    assert found.statistics
    assert {m.way for m in found.measured} == {"BatchStatistics", "TENT"}
    of_batch = {m.value: m.accuracy for m in found.measured if m.way == "BatchStatistics"}
    assert len({found.trained, *of_batch.values()}) == 3


def test_the_statistics_are_of_the_images_that_are_asked_for(trained):
    cell = spec_of("bn")
    module, data = trained_network(cell, str(trained["bn"][0]))
    network = StudiedNetwork.of(cell, module, data, ASKED)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    sizes = {}
    collect = network._statistics_images

    def noted(order, number, mixture, share):
        batches = list(collect(order, number, mixture, share))
        labels = network.train.labels[order[: number - round(share * number)]]
        sizes[len(sizes)] = sum(len(x) for x, _ in batches), len(set(labels))
        assert all(told[0] == ("target", len(x)) for x, told in batches)
        return iter(batches)

    network._statistics_images = noted
    for place in (
        ("images", "", "1", "reestimated", 0),
        ("images", "", "all", "reestimated", 0),
        ("mixture", "source", "0.5", "reestimated", 0),
        ("mixture", "others", "0.5", "reestimated", 0),
        ("label_shift", "", "sorted", "reestimated", 0),
    ):
        network.accuracy(*place)
    counts = list(sizes.values())
    assert [count for count, _ in counts] == [1, len(network.train), 16, 16, 16]
    assert counts[1][1] == 10
    assert counts[4][1] == 1  # 16 images, sorted: one class
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_a_checkpoint_of_another_training_is_refused(trained):
    cell = spec_of("bn").model_copy(update={"lr": 0.1})
    path = str(trained["bn"][0])
    refused(lambda: trained_network(cell, path), "is of another training", "remove it")
