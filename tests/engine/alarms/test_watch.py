import logging

import pytest
import torch
from alarming_methods import SoftmaxOfOne
from fake_cells import a_cell, made
from long_cases import rest_long
from short_runs import digits, fit, small

from da.engine.alarms.record import Alarm
from da.engine.alarms.watch import Watch
from da.engine.components import available_methods
from da.engine.result import Result
from da.engine.run_folder import read_result, write_result
from da.engine.spec import RunSpec
from da.engine.training import train
from da.methods.base import Method, Stage

METHODS = available_methods()

SPEC = {
    "data": "Digits",
    "source": "rendered",
    "target": "optical",
    "method": "EntropyMinimisation",
    "method_args": {"trade_off": 30.0, "diversity": 0.0},
    "model_args": {"backbone": "lenet", "bottleneck": 16},
    "norm": "wa",
    "lr": 0.05,
    "batch_size": 16,
    "epochs": 5,
    "steps_per_epoch": 20,
    "seed": 0,
    "forms": False,
}


def trained(kind, callbacks, steps=12, **options):
    module = small(kind, backbone="lenet", lr=0.01, **options)
    fit(
        module,
        digits(batch_size=4, steps_per_epoch=steps),
        callbacks=callbacks,
        limit_val_batches=2,
        gradient_clip_val=1.0,
    )
    return module


# One update per batch with a critic, several updates, stages; the others in the long tests.
KINDS = ("DANN", "MCD", "SHOT")


@pytest.mark.parametrize("name", rest_long(METHODS, KINDS))
@pytest.mark.usefixtures("short_windows")
def test_a_training_computes_the_same_bits_with_it_as_without(name):
    alone, watched = (trained(METHODS[name], some, norm="wa") for some in ([], [Watch()]))
    for (key, a), b in zip(alone.state_dict().items(), watched.state_dict().values(), strict=True):
        assert torch.equal(a, b), key
    assert watched.listener is None
    assert watched.before_backward == []


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name, kind in METHODS.items() if kind.critics])
def test_no_method_with_a_critic_raises_an_alarm_in_a_run_that_goes_well(name):
    watch = Watch()
    module = small(METHODS[name], lr=0.05, critic_width=64)  # of 8 it learns by luck
    data = digits(batch_size=16, steps_per_epoch=60)
    fit(module, data, epochs=5, callbacks=[watch], limit_val_batches=1.0, gradient_clip_val=5.0)
    assert watch.finish() == []


@pytest.mark.parametrize("epochs", rest_long([1, 3, 4], [3]))
@pytest.mark.usefixtures("short_windows")
def test_a_resumed_run_raises_the_same_alarms(epochs, tmp_path):
    """The checkpoint lies within a window; no alarm is raised again."""
    data = {"batch_size": 4, "steps_per_epoch": 6}
    whole, half, rest = Watch(), Watch(), Watch()
    made_one = lambda: small(SoftmaxOfOne, backbone="lenet")  # noqa: E731
    fit(made_one(), digits(**data), epochs=5, callbacks=[whole])
    fit(made_one(), digits(**data), tmp_path, epochs=epochs, callbacks=[half])
    fit(made_one(), digits(**data), epochs=5, callbacks=[rest], ckpt_path=tmp_path / "last.ckpt")
    assert [alarm.step for alarm in whole.alarms] == [20, 20]
    assert rest.alarms == whole.alarms
    assert rest._critics["critic/accuracy"].first == whole._critics["critic/accuracy"].first


class AheadOfTheSecond(Method):
    """A critic that is perfect from the middle of the first of two stages on."""

    critics = ("critic/accuracy",)

    def stages(self):
        return Stage("first", until=0.5), Stage("second")

    def adaptation(self, source, target, batch):
        self.log("critic/accuracy", torch.tensor(1.0 if self.batches_done >= 10 else 0.7))
        return {}


@pytest.mark.usefixtures("short_windows")
def test_a_critic_is_heard_anew_in_each_stage_and_judged_by_the_progress_within_it():
    watch = Watch()
    module = small(AheadOfTheSecond, backbone="lenet")
    fit(module, digits(steps_per_epoch=26), epochs=2, callbacks=[watch])
    # Windows of the second stage end with its batches 5, 10, ...; at 5 of 26 it is 0.19 done.
    assert [(alarm.name, alarm.step) for alarm in watch.alarms] == [("critic-perfect", 26 + 25)]
    assert watch._critics["critic/accuracy"].first == [1.0] * 4


@pytest.mark.usefixtures("short_windows")
def test_a_run_that_was_not_watched_from_its_start_says_nothing_of_it(tmp_path):
    data = {"batch_size": 4, "steps_per_epoch": 4}
    made_one = lambda: small(SoftmaxOfOne, backbone="lenet")  # noqa: E731
    fit(made_one(), digits(**data), tmp_path, epochs=1)
    late, again = Watch(), Watch()
    past = tmp_path / "last.ckpt"
    fit(made_one(), digits(**data), tmp_path / "late", epochs=6, callbacks=[late], ckpt_path=past)
    assert len(late._critics["critic/accuracy"].first) == 4
    assert "critic-at-chance" not in {alarm.name for alarm in late.alarms}
    assert late.finish() is None
    past = tmp_path / "late" / "last.ckpt"
    fit(made_one(), digits(**data), epochs=7, callbacks=[again], ckpt_path=past)
    assert again.finish() is None
    ended = Watch()  # nothing is left to be trained
    fit(made_one(), digits(**data), epochs=6, callbacks=[ended], ckpt_path=past)
    assert ended.finish() is None


def test_alarms_are_in_the_result_and_each_is_said_once(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="da"):
        result = train(RunSpec(**SPEC), tmp_path / "run")
    said = [line for line in caplog.messages if line.startswith("alarm: ")]
    assert said == [f"alarm: {alarm}" for alarm in result.alarms]
    assert [alarm.name for alarm in result.alarms] == ["one-class"]
    write_result(tmp_path, result)
    assert read_result(tmp_path).alarms == result.alarms
    # From a checkpoint at its end nothing is trained, and the result is the same.
    with caplog.at_level(logging.WARNING, logger="da"):
        again = train(RunSpec(**SPEC), tmp_path / "run")
    assert again.alarms == result.alarms


def test_a_run_that_goes_well_has_none_in_its_result(tmp_path):
    spec = RunSpec(**{**SPEC, "method_args": {}, "epochs": 2})
    assert train(spec, tmp_path).alarms == []


def test_results_of_before_are_read_and_say_nothing_of_alarms():
    document = made(a_cell()).model_dump(mode="json")
    del document["alarms"]
    assert Result.model_validate(document).alarms is None
    alarm = Alarm(name="one-class", about="target/test", step=3, epoch=1, text="all are cats")
    again = Result.model_validate({**document, "alarms": [alarm.model_dump()]})
    assert again.alarms == [alarm]
    assert str(alarm) == "one-class at step 3 (epoch 1), target/test: all are cats"
