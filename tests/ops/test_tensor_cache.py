import logging
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from da.ops.tensor_cache import CachedTensors, digest_tensors, read_or_make

STATE = {
    "a": torch.arange(6.0).view(2, 3).t(),  # not contiguous
    "b": torch.tensor(3),
    "c": torch.ones(2, 3, 4, 4).bfloat16().to(memory_format=torch.channels_last),
    "d": torch.zeros(0, 3),
}
SHAPES = {name: value.shape for name, value in STATE.items()}


class Maker:
    def __init__(self, state=STATE):
        self.state = state
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return CachedTensors(self.state, {"error": 0.25, "name": "ŵ"})


def equal(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(v, other[k]) and v.dtype == other[k].dtype for k, v in one.items()
    )


def test_made_once(tmp_path):
    make, path = Maker(), tmp_path / "new" / "a.safetensors"
    first, read = read_or_make(path, SHAPES, make)
    again, read_again = read_or_make(path, SHAPES, make)
    assert (make.calls, read, read_again) == (1, False, True)
    assert equal(first.tensors, STATE)
    assert equal(again.tensors, STATE)
    assert first.report == again.report == {"error": 0.25, "name": "ŵ"}
    assert sorted(path.parent.iterdir()) == [path.with_suffix(".lock"), path]


def test_tensors_that_share_their_memory(tmp_path):
    state = {"a": STATE["a"], "b": STATE["a"]}
    path, shapes = tmp_path / "a.safetensors", {k: v.shape for k, v in state.items()}
    read_or_make(path, shapes, Maker(state))
    assert equal(read_or_make(path, shapes, Maker())[0].tensors, state)


def test_a_changed_report_or_other_shapes_are_broken(tmp_path, caplog):
    path = tmp_path / "a.safetensors"
    read_or_make(path, SHAPES, Maker())
    path.write_bytes(path.read_bytes().replace(b"0.25", b"0.15"))
    make = Maker()
    with caplog.at_level(logging.WARNING):
        found, read = read_or_make(path, SHAPES, make)
        assert (found.report["error"], read) == (0.25, False)
        assert "its checksum does not match" in caplog.text
        read_or_make(path, {**SHAPES, "e": torch.Size([1])}, make)
    assert "it is of another network" in caplog.text
    assert make.calls == 2


def test_a_flipped_bit_is_made_good(tmp_path, caplog):
    path, chance = tmp_path / "a.safetensors", random.Random(0)
    read_or_make(path, SHAPES, Maker())
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        caplog.clear()
        found, read = read_or_make(path, SHAPES, Maker())
        assert equal(found.tensors, STATE)
        assert found.report == {"error": 0.25, "name": "ŵ"}
        assert not read
        (record,) = caplog.records
        assert "is broken (" in record.getMessage()
        assert "\n" not in record.getMessage()


def test_a_place_where_nothing_can_be_written_costs_a_line(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    path = tmp_path / "file" / "a.safetensors"
    with caplog.at_level(logging.WARNING):
        found, read = read_or_make(path, SHAPES, Maker())
    assert not read
    assert equal(found.tensors, STATE)
    assert f"{path} can't be written (" in caplog.text


def test_many_at_once(tmp_path):
    path = tmp_path / "a.safetensors"
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: read_or_make(path, SHAPES, Maker()), range(32)))
    assert all(equal(one.tensors, STATE) for one, _ in found)
    assert read_or_make(path, SHAPES, Maker())[1]
    assert sorted(tmp_path.iterdir()) == [path.with_suffix(".lock"), path]


@pytest.mark.parametrize(
    "other",
    [
        {"x": torch.zeros(2, 2)},
        {"y": torch.zeros(4)},
        {"x": torch.zeros(4, dtype=torch.int32)},
        {"x": torch.tensor([0.0, 0.0, 0.0, -0.0])},
        {"x": torch.zeros(4), "y": torch.zeros(0)},
    ],
)
def test_a_digest_is_of_names_types_shapes_and_bits(other):
    assert digest_tensors(other) != digest_tensors({"x": torch.zeros(4)})
    assert digest_tensors(other) == digest_tensors(
        {k: v.clone() for k, v in reversed(other.items())}
    )
    assert digest_tensors(other, 1) != digest_tensors(other, 2)
