"""Randomness that depends on names and indices alone, never on a global state.

Every stream of random numbers in a run has a name (its seed, its task, its part), and every sample
its own place in that stream. So the same batches come with any number of workers, after a resume,
and for every normaliser of a grid.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def derive_seed(*parts: object) -> int:
    """A seed in ``[0, 2**63)`` from a sequence of names and numbers, the same on every machine.

    >>> task = "rendered->optical"
    >>> derive_seed(0, task, "source") == derive_seed(0, task, "target")
    False
    """
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def permutation(key: int, cycle: int, n: int) -> NDArray[np.int64]:
    """The order of ``n`` samples in one pass (cycle) over a stream, ``(n,)`` int64."""
    return np.random.Generator(np.random.Philox(key=[key, cycle])).permutation(n)


def uniforms(
    key: int, cycles: NDArray[np.int64], indices: NDArray[np.int64], draws: int
) -> NDArray[np.float64]:
    """Random numbers in [0, 1) that belong to samples, not to batches: ``(B, draws)`` float64.

    Row i depends on ``(key, cycles[i], indices[i])`` alone. The generator is a counter run through
    the finaliser of SplitMix64 (Steele, Lea, Flood 2014, Fast splittable pseudorandom number
    generators) once per component; one call serves a whole batch.

    Args:
        key: the seed of the stream, see :func:`derive_seed`.
        cycles: ``(B,)`` int64, the pass over the data in which each sample is drawn.
        indices: ``(B,)`` int64, the samples.
        draws: numbers per sample.
    """
    state = _mix(np.full(len(indices), key, dtype=np.uint64))
    state = _mix(state ^ cycles.astype(np.uint64))
    state = _mix(state ^ indices.astype(np.uint64))
    state = _mix(state[:, None] ^ np.arange(draws, dtype=np.uint64))
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = x + np.uint64(0x9E3779B97F4A7C15)  # wraps around, as intended
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@contextmanager
def seeded(*parts: object) -> Iterator[None]:
    """Runs a block under torch's CPU random state seeded by name, and restores it afterwards.

    The generators of other devices are left alone, which ``torch.manual_seed`` would seed, too.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(*parts))
        yield


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Where torch's generators are, of the CPU and of a CUDA device, ``(N,)`` uint8 each."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Puts torch's generators where they were, see :func:`random_state`."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
