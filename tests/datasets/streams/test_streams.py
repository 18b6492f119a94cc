import numpy as np
import pytest

from datasets.streams.batches import pick_balanced, pick_shuffled


def take(n, count, key=1, first=0):
    return pick_shuffled(key, np.arange(first, first + count), n)


def test_every_sample_comes_once_per_cycle_and_each_cycle_has_its_order():
    picks = take(10, 50)
    passes = picks.indices.reshape(5, 10)
    assert (np.sort(passes, axis=1) == np.arange(10)).all()
    assert len({tuple(row) for row in passes.tolist()}) == 5
    assert np.array_equal(picks.cycles, np.repeat(np.arange(5), 10))


@pytest.mark.parametrize("size", [1, 3, 7, 50])
def test_a_batch_is_a_function_of_its_positions(size):
    whole = take(10, 100)
    for first in (0, 9, 40):
        part = take(10, size, first=first)
        assert np.array_equal(part.indices, whole.indices[first : first + size])
        assert np.array_equal(part.cycles, whole.cycles[first : first + size])


def test_keys_give_different_orders():
    assert not np.array_equal(take(100, 100, key=1).indices, take(100, 100, key=2).indices)


def test_balanced_draws_each_class_equally_and_each_sample_equally_within_it():
    members = [np.array([0, 5]), np.array([1, 2, 3]), np.array([4])]
    picks = pick_balanced(7, np.arange(36), members)
    label = {i: k for k, group in enumerate(members) for i in group.tolist()}
    labels = np.array([label[i] for i in picks.indices.tolist()]).reshape(12, 3)
    assert (np.sort(labels, axis=1) == np.arange(3)).all()
    assert len({tuple(row) for row in labels.tolist()}) > 1
    counts = np.bincount(picks.indices, minlength=6)
    assert counts.tolist() == [6, 4, 4, 4, 12, 6]
    pairs = set(zip(picks.cycles.tolist(), picks.indices.tolist(), strict=True))
    assert len(pairs) == 36, "a sample drawn twice must be augmented in two ways"


def test_balanced_is_a_function_of_the_position():
    members = [np.arange(0, 4), np.arange(4, 30)]
    whole = pick_balanced(3, np.arange(64), members)
    part = pick_balanced(3, np.arange(17, 30), members)
    assert np.array_equal(part.indices, whole.indices[17:30])
