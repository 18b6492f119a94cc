from dataclasses import replace

import numpy as np
import pytest
from made_up_networks import network, subject
from refusing import refused

from da.analysis.trained_networks import name_networks, refuse_other_images


def named(*facts):
    shown = subject()
    networks = [network(shown) for _ in facts]
    known = [
        replace(one, facts={**one.facts, "checkpoint": f"{i}.ckpt", **given})
        for i, (one, given) in enumerate(zip(networks, facts, strict=True))
    ]
    found, shared = name_networks(known)
    return [one.name for one in found], shared


@pytest.mark.parametrize(
    ("facts", "names", "shared"),
    [
        ([{}, {"norm": "wa"}], ["bn", "wa"], "DANN, seed 0"),
        # Rates are tuned for each normaliser, and named only where nothing else tells.
        ([{}, {"norm": "wa", "lr": 0.5}], ["bn", "wa"], "DANN, seed 0"),
        ([{}, {"lr": 0.5}, {"norm": "wa"}], ["bn, lr 0.1", "bn, lr 0.5", "wa"], "DANN, seed 0"),
        ([{}, {"norm": "wa", "method": "MCD"}], ["bn, DANN", "wa, MCD"], "seed 0"),
        ([{}, {"seed": 1}], ["bn, seed 0", "bn, seed 1"], "DANN"),
        ([{}, {}], ["bn, 0.ckpt", "bn, 1.ckpt"], "DANN, seed 0"),
        ([{"method": None, "seed": None, "lr": None}], ["bn"], ""),
    ],
)
def test_names_say_what_tells_networks_apart(facts, names, shared):
    assert named(*facts) == (names, shared)


def test_picked_images_are_the_same_every_time_of_both_domains_and_never_twice():
    shown = subject(images=40, most=12)
    assert shown.count == 12
    picks = shown.picks("target")
    assert len(set(picks.tolist())) == 12
    assert np.array_equal(picks, subject(images=40, most=12).picks("target"))
    assert not np.array_equal(picks, replace(shown, seed=1).picks("target"))
    assert np.array_equal(subject(images=9).picks("source"), np.arange(9))
    refused(lambda: subject(images=5).count, "split has 5 images", "at least 8")


def test_images_are_shown_as_they_were_before_they_were_normalised():
    shown = subject(images=11)
    images = shown.images(np.array([0, 5, 10]))
    assert images.shape == (3, 8, 8, 3)
    np.testing.assert_allclose(images[:, 0, 0, 0], [0, 0.5, 1], atol=0.01)


def test_networks_with_other_images_are_refused_by_their_names():
    one, other = network(subject(images=40)), network(subject(images=41))
    refuse_other_images(one, network(subject(images=40), "wa"))
    refused(lambda: refuse_other_images(one, other), "'bn.ckpt'", "of the source")


def test_domains_of_other_names_are_other_images():
    one, other = network(subject()), network(subject())
    renamed = replace(other, target=replace(other.target, domain="blurred"))
    refused(lambda: refuse_other_images(one, renamed), "of the target", "--data.source")
