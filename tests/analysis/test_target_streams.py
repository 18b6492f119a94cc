"""Streams of target images: each image once, in the order and the mixture that was asked for."""

import numpy as np
import pytest
import torch
from scipy import stats

from da.analysis.target_streams import (
    NOT_SCORED,
    LoadedImages,
    Mixture,
    order_by_class,
    order_by_dirichlet,
    order_of,
    pick_endlessly,
    split_batch,
    stream,
)

LABELS = np.repeat(np.arange(10), 60)


class AsNumbers:
    """A transform that leaves images as they are."""

    def evaluate(self, images):
        return (images if isinstance(images, torch.Tensor) else torch.stack(images)).float()


def domain(first, count, as_list=False):
    """Images of one pixel, which is their number."""
    images = torch.arange(first, first + count).reshape(count, 1, 1, 1)
    return LoadedImages(list(images) if as_list else images, np.arange(count) % 3, AsNumbers())


@pytest.mark.parametrize("value", ["iid", "sorted", "0.1", "10"])
def test_every_order_has_each_image_once_and_depends_on_its_key(value):
    orders = [order_of(value, LABELS, key) for key in (1, 1, 2)]
    assert all(np.array_equal(np.sort(order), np.arange(len(LABELS))) for order in orders)
    assert np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])


def test_sorted_is_one_class_after_another_in_an_order_by_chance():
    labels = LABELS[order_by_class(LABELS, 5)]
    assert (np.diff(labels) != 0).sum() == 9
    firsts = {tuple(LABELS[order_by_class(LABELS, key)][::60]) for key in range(4)}
    assert len(firsts) == 4
    # With classes that are absent, as in a few images.
    assert (np.diff(LABELS[LABELS > 6][order_by_class(LABELS[LABELS > 6], 5)]) != 0).sum() == 2


def test_a_small_concentration_puts_a_class_into_few_places():
    def entropy(concentration):
        """Of the classes in a window of 30, mean over windows and keys."""
        windows = [
            np.bincount(LABELS[order][start : start + 30], minlength=10)
            for key in range(5)
            for order in [order_by_dirichlet(LABELS, concentration, key)]
            for start in range(0, 600, 30)
        ]
        return np.mean([stats.entropy(window) for window in windows])

    iid = np.mean([
        stats.entropy(np.bincount(LABELS[order_of("iid", LABELS, k)][:30], minlength=10))
        for k in range(50)
    ])  # fmt: skip
    means = [entropy(c) for c in (0.01, 0.1, 1.0, 1000.0)]
    assert means == sorted(means)
    assert means[0] < 1.0
    assert means[-1] == pytest.approx(iid, abs=0.1)


@pytest.mark.parametrize("as_list", [False, True])
def test_a_stream_shows_each_target_image_once_with_its_share_of_others(as_list):
    target, others = domain(0, 50, as_list), [domain(1000, 7), domain(2000, 30)]
    order = order_of("iid", target.labels, 3)
    batches = list(stream(target, order, 16, Mixture(others, 4), 0.25))
    own = [b.images[: (b.labels != NOT_SCORED).sum()].flatten().int() for b in batches]
    assert [len(x) for x in own] == [12, 12, 12, 12, 2]
    assert torch.equal(torch.cat(own), torch.from_numpy(order).int())
    mixed = [b.images[len(x) :].flatten().int() for b, x in zip(batches, own, strict=True)]
    assert [len(x) for x in mixed] == [4, 4, 4, 4, 1]
    assert (torch.cat(mixed) >= 1000).all()
    counts = [((x >= 1000) & (x < 2000)).sum().item() for x in mixed[:4]]
    assert counts == [2, 2, 2, 2]  # in equal parts
    first = torch.cat(mixed)
    small = first[first < 2000]
    assert len(set(small[:7].tolist())) == 7  # none twice before all were seen
    for batch in batches:
        scored = batch.labels != NOT_SCORED
        assert torch.equal(
            batch.labels[scored], torch.from_numpy(target.labels[batch.indices[scored].numpy()])
        )


def test_without_a_share_there_is_nothing_else():
    target = domain(0, 10)
    for mixture, share in ((None, 0.5), (Mixture([domain(1000, 5)], 0), 0.0)):
        batches = list(stream(target, np.arange(10), 4, mixture, share))
        assert [len(b.images) for b in batches] == [4, 4, 2]
    assert split_batch(4, 0.99) == (1, 3)


def test_parts_of_a_mixture_follow_one_another():
    mixture = Mixture([domain(0, 5), domain(100, 9), domain(200, 20)], 7)
    whole = torch.cat(mixture.part(0, 40)).flatten().tolist()
    parts = [torch.cat(mixture.part(a, b - a)).flatten().tolist() for a, b in ((0, 7), (7, 40))]
    assert sorted(whole) == sorted(parts[0] + parts[1])
    assert mixture.part(5, 0) == []
    assert mixture.available == 15


def test_picks_start_again_when_none_is_left():
    picks = pick_endlessly(1, 4, 10)
    assert [sorted(picks[i : i + 4].tolist()) for i in (0, 4)] == [[0, 1, 2, 3]] * 2
    assert len(picks) == 10
    assert len(pick_endlessly(1, 4, 0)) == 0
