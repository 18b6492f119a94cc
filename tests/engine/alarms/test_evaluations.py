from dataclasses import replace

import numpy as np
import pytest
import torch
from alarming_methods import Forgetting, Inflating
from short_runs import digits, fit, small

from da.engine.alarms.evaluations import (
    Evaluated,
    feature_scale,
    judge_evaluations,
    most_predicted,
)
from da.engine.alarms.watch import Watch
from da.methods.entropy_minimisation import EntropyMinimisation
from da.types import Predictions

WELL = Evaluated(10, 1, "7", 0.3, 0.1, 0.7, 0.95, True)


def raised(*changes, last=False):
    seen = [
        replace(WELL, **{"step": 100 * (i + 1), "epoch": i + 1} | change)
        for i, change in enumerate(changes)
    ]
    return [verdict.name for verdict in judge_evaluations(seen, last)]


def test_the_most_predicted_class_and_its_share_agree_with_counting():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 5, generator=generator)
    logits[:, 3] += 1
    labels = torch.randint(0, 5, (30,), generator=generator)
    target = Predictions(logits, None, torch.zeros(40, 2))
    source = Predictions(torch.zeros(30, 5), labels, torch.zeros(30, 2))
    predicted = logits.numpy().argmax(axis=1)
    values, counts = np.unique(predicted, return_counts=True)
    label, share, source_share = most_predicted(target, source)
    assert label == values[counts.argmax()] == 3
    assert share == counts.max() / 40
    assert source_share == pytest.approx((labels.numpy() == 3).mean())


def test_the_scale_is_the_root_mean_square():
    features = torch.randn(7, 3, generator=torch.Generator().manual_seed(1)) * 5
    expected = np.sqrt((features.double().numpy() ** 2).mean())
    assert feature_scale(Predictions(features, None, features)) == pytest.approx(expected, rel=1e-6)
    assert feature_scale(Predictions(features, None, features[:, :0])) == 0


def test_one_class_must_last_or_be_the_end():
    one = {"share": 0.99}
    assert raised({}, one) == []
    assert raised({}, one, last=True) == ["one-class"]
    assert raised(one) == raised() == []
    assert raised(one, last=True) == ["one-class"]
    assert raised({}, one, one) == ["one-class"]
    assert raised(one, {}, one) == []
    assert raised({"share": 0.94}, {"share": 0.94}, last=True) == []


def test_at_the_end_one_evaluation_tells_only_where_the_source_is_learnt():
    one = {"share": 0.99}
    assert raised(one | {"source_accuracy": 0.3}, last=True) == []
    assert raised({}, one | {"source_accuracy": 0.3}, last=True) == []
    assert raised(one | {"source_accuracy": 0.5}, last=True) == ["one-class"]
    # Where it lasts it is said whatever the source: both domains may collapse together.
    unlearnt = one | {"source_accuracy": 0.1}
    assert raised(*[unlearnt] * 2, last=True) == ["one-class"]
    assert raised(*[unlearnt | {"step": 6}] * 2, last=True) == []  # it has merely not begun


@pytest.mark.parametrize("norm", ["bn", "wa"])
def test_a_quick_look_of_a_few_steps_has_not_collapsed(norm):
    watch = trained(EntropyMinimisation, steps=3, epochs=1, norm=norm, lr=0.3)
    assert watch.alarms == []
    (only,) = watch._evaluations
    assert (
        only.share > 0.3
    )  # one class has most, as in untrained networks; of the source it has 0.1
    assert not only.has_learnt


def test_a_class_that_is_nearly_all_of_the_source_may_be_of_the_target():
    assert raised({"share": 0.96, "source_share": 0.9}, last=True) == []
    assert raised({"share": 0.99, "source_share": 0.9}, last=True) == ["one-class"]
    assert raised({"share": 0.96, "source_share": 0.5}, last=True) == ["one-class"]
    # Few images, as with limit_val_batches, are of one class where files lie class by class.
    assert raised({"share": 1.0, "source_share": 1.0}, last=True) == []


def test_features_grow_without_bound_from_twenty_times_their_first_scale():
    assert raised({"scale": 0.7}, {"scale": 10.0}, {"scale": 19.0}) == []
    assert raised({"scale": 0.7}, {"scale": 21.0}) == ["growing-features"]
    assert raised({"scale": 0.7}, {"scale": 30.0}, {"scale": 25.0}) == []  # not any more
    assert raised({"scale": 40.0}, {"scale": 700.0}) == []
    assert raised({"scale": 1e-6}, {"scale": 2.0}) == []
    assert raised({"scale": 2e4}) == ["growing-features"]
    assert raised({"scale": float("inf")}) == ["growing-features"]


def test_the_source_falls_where_it_stays_well_below_its_best():
    low = {"source_accuracy": 0.84}
    assert raised({}, low) == []
    assert raised({}, low, low) == ["falling-source"]
    assert raised({}, low, last=True) == []
    assert raised({}, {"source_accuracy": 0.86}, {"source_accuracy": 0.86}) == []
    assert raised({}, low, {}, low) == []
    without = low | {"adapts": False}  # source-only, or a stage that has no source
    assert raised({}, without, without) == []
    assert raised(low, {}, {}) == []  # it rises


def trained(kind, steps=20, epochs=6, clip=None, **options):
    watch = Watch()
    module = small(kind, **{"backbone": "lenet", "lr": 0.05} | options)
    data = digits(batch_size=16, steps_per_epoch=steps)
    fit(
        module,
        data,
        epochs=epochs,
        callbacks=[watch],
        limit_val_batches=1.0,
        gradient_clip_val=clip,
    )
    watch.finish()
    return watch


def test_entropy_alone_collapses_the_target_to_one_class():
    watch = trained(EntropyMinimisation, diversity=0.0, trade_off=30.0)
    alarms = [alarm for alarm in watch.alarms if alarm.name == "one-class"]
    assert len(alarms) == 1
    now = watch._evaluations[alarms[0].epoch - 1]
    assert now.is_one_class
    assert f"are predicted as '{now.label}', which is 10.0 % of the source" in alarms[0].text


def test_a_loss_that_rewards_large_features_blows_them_up():
    watch = trained(Inflating, steps=4, clip=2.0, norm="wa")
    (alarm,) = [alarm for alarm in watch.alarms if alarm.name == "growing-features"]
    first, now = watch._evaluations[0], watch._evaluations[alarm.epoch - 1]
    assert now.scale > 20 * max(first.scale, 1.0)
    assert f"was {first.scale:.3g} after step 4 and is {now.scale:.3g} now" in alarm.text


@pytest.mark.long
def test_a_source_that_is_unlearnt_falls():
    watch = trained(Forgetting, clip=5.0, backbone="digits_resnet")
    (alarm,) = [alarm for alarm in watch.alarms if alarm.name == "falling-source"]
    assert alarm.epoch > 3
    assert f"was {100 * max(e.source_accuracy for e in watch._evaluations):.1f} %" in alarm.text


def test_a_run_that_goes_well_raises_nothing():
    watch = trained(EntropyMinimisation, backbone="digits_resnet")
    assert watch.alarms == []
    assert len(watch._evaluations) == 6
    assert watch._evaluations[-1].source_accuracy > 0.5
