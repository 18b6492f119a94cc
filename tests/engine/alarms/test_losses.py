import pytest
import torch
from alarming_methods import Detached, HeadOnly, Late
from short_runs import digits, fit, small

from da.engine.alarms.losses import has_gradient
from da.engine.alarms.watch import Watch
from da.methods.base import Method
from da.methods.dann import DANN
from da.methods.mcd import MCD
from da.methods.source_only import SourceOnly

pytestmark = pytest.mark.usefixtures("short_windows")


def trained(kind, steps=21, batch_size=4, fitting=None, **options):
    watch = Watch()
    module = small(kind, **{"backbone": "lenet", "lr": 0.05} | options)
    data = digits(batch_size=batch_size, steps_per_epoch=steps)
    fit(module, data, callbacks=[watch], **(fitting or {}))
    return watch


@pytest.mark.parametrize(
    ("kind", "about", "how"),
    [
        (Detached, "loss/distance", "it is detached"),
        (HeadOnly, "loss/head", "its gradient there is zero"),
    ],
)
def test_a_term_that_does_not_reach_the_backbone_is_named(kind, about, how):
    (alarm,) = trained(kind).alarms
    assert (alarm.name, alarm.about, alarm.step) == ("loss-without-gradient", about, 20)
    assert "from step 5 to 20 it has not reached the backbone" in alarm.text
    assert how in alarm.text
    assert "zero itself" not in alarm.text


def test_a_reversal_of_no_strength_is_named_and_so_is_a_weight_of_zero():
    texts = {
        options[0]: [a.text for a in trained(DANN, 26, **dict([options])).alarms]
        for options in (("reversal_maximum", 0.0), ("trade_off", 0.0))
    }
    assert ["its gradient there is zero" in text for text in texts["reversal_maximum"]] == [True]
    named = [text for text in texts["trade_off"] if "zero itself" in text]
    assert len(named) == 1


def test_a_term_that_comes_late_is_not_named():
    watch = trained(Late, 26)
    assert watch.alarms == []
    assert watch._terms["norm"].zero
    assert watch._terms["norm"].reached
    assert trained(Late, 26, until=1.0).alarms[0].about == "loss/norm"


def test_terms_of_updates_that_leave_the_backbone_as_it_is_are_not_tried():
    watch = trained(MCD, 7)
    assert watch.alarms == []
    assert set(watch._terms) == {"task", "balance", "discrepancy"}
    assert all(term.reached for term in watch._terms.values())


@pytest.mark.parametrize("norm", ["wa", "wa+gn"])
def test_averaged_gradients_reach_the_backbone_as_others_do(norm):
    fitting = {"accumulate_grad_batches": 2}
    watch = trained(DANN, 12, backbone="digits_resnet", norm=norm, fitting=fitting)
    assert watch.alarms == []
    assert {name for name, term in watch._terms.items() if term.reached} == {"task", "domain"}


class Frozen(SourceOnly):
    """A backbone that is not trained at all: there is nothing to reach."""

    def build(self):
        self.network.backbone.requires_grad_(False)


def test_a_backbone_that_is_frozen_on_purpose_is_no_alarm():
    watch = trained(Frozen)
    assert watch.alarms == []
    assert watch._terms == {}


def test_a_gradient_is_found_on_any_parameter_and_nothing_is_accumulated():
    module = small(SourceOnly, backbone="lenet")
    module.prepare()
    module._trainer = type("T", (), {"precision_plugin": None})()
    first, last = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    unused = torch.nn.Parameter(torch.ones(2))

    def found(loss, *parameters):
        return has_gradient(loss, parameters, module)

    assert found((first * last).sum(), first, last)
    assert found(first.sum(), first, last)  # not on the last one
    assert not found((0 * first).sum(), first, unused)
    assert not found(last.sum(), first, unused)
    assert not found(torch.ones(()), first)
    assert found((first * torch.inf).sum(), first)
    assert first.grad is None
    assert not module.only_looking


def test_what_only_looks_counts_nothing_elsewhere():
    """The graph may be gone through again, and hooks on it are told that it is not the update."""
    seen = []

    class Hooked(Method):
        def adaptation(self, source, target, batch):
            target.features.register_hook(lambda g: seen.append(self.only_looking))
            return {"square": 1e-3 * target.features.square().mean()}

    trained(Hooked, 52)
    assert seen.count(False) == 52
    assert seen.count(True) == 1
