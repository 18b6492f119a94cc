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


NAMED = ("bn.ckpt", "wa.ckpt")


def test_other_images_are_refused_by_the_names_of_the_checkpoints():
    one = subject(images=40)
    refuse_other_images(one, subject(images=40), NAMED)
    other = subject(images=41)
    refused(lambda: refuse_other_images(one, other, NAMED), "'bn.ckpt' and 'wa.ckpt'", "the source")


def test_images_of_other_content_are_refused_though_names_and_labels_agree():
    one, other = subject(), subject(brightest=254)
    assert one.data.set_of("target", "test").names(range(9)) == [f"{i}.png" for i in range(9)]
    refused(lambda: refuse_other_images(one, other, NAMED), "of the source", "--data.source")


def test_domains_of_other_names_are_other_images():
    one, other = subject(), subject()
    other.data.domain_of = lambda role: {"source": "clean", "target": "blurred"}[role]
    refused(lambda: refuse_other_images(one, other, NAMED), "of the target")
