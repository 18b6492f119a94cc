import pytest
import torch
from alarming_methods import FarTarget, SoftmaxOfOne
from short_runs import digits, fit, small

from da.engine.alarms.critics import PERFECT_WINDOWS, START, Critic
from da.engine.alarms.watch import Watch
from da.engine.components import available_methods
from da.methods.dann import DANN

METHODS = available_methods()


def heard(means, progress=1.0):
    """What the windows of a critic raise, one by one; ``progress`` may be one for each."""
    critic = Critic()
    verdicts = []
    for i, mean in enumerate(means):
        for value in (mean - 0.01, mean + 0.01):
            critic.add(torch.tensor(value))
        at = progress[i] if isinstance(progress, list) else progress
        verdicts.append(critic.end_window("critic/accuracy", at))
    return [verdict and verdict.name for verdict in verdicts]


def test_a_critic_is_at_chance_where_its_first_windows_all_are():
    assert heard([0.5, 0.52, 0.48, 0.59]) == [None] * 3 + ["critic-at-chance"]
    # It learnt, and was fooled: which is what an adversarial method is for.
    assert heard([0.9, *[0.5] * 12]) == [None] * 13
    assert heard([0.5, 0.61, *[0.5] * 12]) == [None] * 14
    assert heard([0.57, 0.56, 0.56, 0.56]) == [None] * 4  # it learns a little, all the time
    assert heard([0.5] * (START - 1)) == [None] * (START - 1)  # too short to tell


def test_a_critic_is_perfect_where_enough_windows_in_a_row_are():
    raised = [None] * (PERFECT_WINDOWS - 1) + ["critic-perfect"]
    assert heard([0.995] * PERFECT_WINDOWS) == raised
    assert heard([0.995] * (PERFECT_WINDOWS - 1) + [0.98] + [0.995] * 3) == [None] * 7
    # Before the reversal has grown a critic is meant to be ahead.
    assert heard([0.995] * 8, [0.01 * i for i in range(8)]) == [None] * 8
    assert heard([0.995] * 6, [0.1, 0.1, 0.2, 0.3, 0.4, 0.5])[-1] == "critic-perfect"


def test_the_numbers_are_the_means_of_the_windows():
    critic = Critic()
    for window in range(START):
        for value in (0.4 + 0.05 * window, 0.4):
            critic.add(torch.tensor(value))
        verdict = critic.end_window("critic/accuracy", 0.1)
    assert verdict.about == "critic/accuracy"
    assert "43.8 % over its first 200 steps" in verdict.text
    assert "never more than 47.5 % over 50" in verdict.text
    assert critic.end_window("critic/accuracy", 0.1) is None  # nothing was heard since


def trained(kind, steps, **options):
    watch = Watch()
    module = small(kind, backbone="lenet", lr=0.05, **options)
    fit(module, digits(batch_size=8, steps_per_epoch=steps), callbacks=[watch])
    return watch


@pytest.mark.usefixtures("short_windows")
def test_a_critic_without_a_gradient_is_at_chance_from_the_start():
    alarms = {alarm.name: alarm for alarm in trained(SoftmaxOfOne, 21).alarms}
    assert set(alarms) == {"critic-at-chance", "loss-without-gradient"}
    alarm = alarms["critic-at-chance"]
    assert (alarm.step, alarm.epoch, alarm.about) == (20, 1, "critic/accuracy")
    assert alarm.text.startswith("50.0 % over its first 20 steps")
    assert alarms["loss-without-gradient"].about == "loss/domain"


def test_a_critic_that_nothing_fools_is_perfect():
    alarms = [alarm for alarm in trained(FarTarget, 300).alarms if alarm.name == "critic-perfect"]
    assert [alarm.step for alarm in alarms] == [250]
    assert "100.0 % or more for 200 steps" in alarms[0].text


@pytest.mark.long
def test_a_critic_that_learns_and_is_fooled_raises_nothing():
    watch = trained(DANN, 260, trade_off=0.3)  # at 1 it learns hardly more than chance here
    assert watch.alarms == []
    assert max(watch._critics["critic/accuracy"].first) > 0.6


@pytest.mark.parametrize("name", [name for name, kind in METHODS.items() if kind.critics])
def test_every_critic_that_a_method_names_is_heard(name):
    watch = trained(METHODS[name], 6)
    assert set(watch._critics) == set(METHODS[name].critics)
    assert all(critic.count == 2 for critic in watch._critics.values())  # steps 0 and 5
