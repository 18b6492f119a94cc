import hashlib

import numpy as np
import pytest
import torch

from da.ops.seeding import derive_seed, permutation, seeded, uniforms


def test_derived_seeds_are_the_same_on_every_machine():
    digits = hashlib.sha256(b"0\x1frendered->optical\x1fsource").hexdigest()[:16]
    assert derive_seed(0, "rendered->optical", "source") == int(digits, 16) // 2
    assert derive_seed("0", "a") == derive_seed(0, "a")


def test_parts_are_kept_apart():
    assert (
        len(
            {
                derive_seed("ab", "c"),
                derive_seed("a", "bc"),
                derive_seed("abc"),
                derive_seed("c", "ab"),
            }
        )
        == 4
    )


def test_a_permutation_depends_on_key_and_cycle_alone():
    first = permutation(5, 0, 100)
    np.random.default_rng().random(7)
    assert np.array_equal(first, permutation(5, 0, 100))
    assert np.array_equal(np.sort(first), np.arange(100))
    assert not np.array_equal(first, permutation(5, 1, 100))
    assert not np.array_equal(first, permutation(6, 0, 100))


def _scalar(key, cycle, index, draw):
    """SplitMix64's finaliser in Python integers."""

    def mix(x):
        mask = 2**64 - 1
        x = (x + 0x9E3779B97F4A7C15) & mask
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    state = mix(key)
    for part in (cycle, index, draw):
        state = mix(state ^ part)
    return (state >> 11) / 2**53


def test_uniforms_agree_with_integers():
    key, cycles, indices = derive_seed("k"), np.array([0, 3, 7]), np.array([11, 0, 152_000])
    ours = uniforms(key, cycles, indices, 5)
    for row in range(3):
        for draw in range(5):
            expected = _scalar(key, int(cycles[row]), int(indices[row]), draw)
            assert ours[row, draw] == expected


def test_uniforms_belong_to_the_sample_not_to_the_batch():
    indices = np.arange(50)
    whole = uniforms(1, np.zeros(50, np.int64), indices, 3)
    part = uniforms(1, np.zeros(4, np.int64), indices[[40, 3, 3, 9]], 3)
    assert np.array_equal(part, whole[[40, 3, 3, 9]])


def test_uniforms_are_uniform_and_uncorrelated():
    u = uniforms(derive_seed("test"), np.repeat([0, 1], 10_000), np.tile(np.arange(10_000), 2), 4)
    assert u.min() >= 0
    assert u.max() < 1
    # 20,000 draws per column: 5 standard deviations of a mean of uniforms are 0.0102.
    assert np.abs(u.mean(0) - 0.5).max() < 0.0102
    for column in u.T:
        assert np.abs(np.histogram(column, 10, (0, 1))[0] - 2000).max() < 5 * 43
    between = np.corrcoef(u.T) - np.eye(4)
    assert np.abs(between).max() < 5 / np.sqrt(20_000)
    assert abs(np.corrcoef(u[:10_000, 0], u[10_000:, 0])[0, 1]) < 5 / np.sqrt(10_000)


def test_seeded_leaves_the_global_state_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with seeded(0, "a"):
        first = torch.rand(3)
    assert torch.equal(before, torch.get_rng_state())
    with seeded(0, "a"):
        assert torch.equal(first, torch.rand(3))
    with seeded(1, "a"):
        assert not torch.equal(first, torch.rand(3))


def test_seeded_leaves_the_generators_of_other_devices_alone(monkeypatch):
    """They aren't put back afterwards: a training would draw the same dropout twice."""
    asked = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", asked.append)
    with seeded(0):
        pass
    assert not asked
    torch.manual_seed(0)  # what seeds all of them, so that this test can fail
    assert asked == [0]


def test_seeded_restores_the_state_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError), seeded(0):
        torch.rand(-1)
    assert torch.equal(before, torch.get_rng_state())
