import logging
import multiprocessing
import os
import random
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from datasets.files.array_cache import folder, kept


class Maker:
    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return {"images": np.arange(5000, dtype=np.uint8).reshape(10, 500), "labels": np.arange(10)}


def equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def test_made_once(tmp_path):
    make = Maker()
    first, checksum = kept(tmp_path / "x" / "a.npz", make)
    again, same = kept(tmp_path / "x" / "a.npz", make)
    assert make.calls == 1
    assert equal(first, again)
    assert checksum == same
    assert [p.name for p in (tmp_path / "x").iterdir()] == ["a.npz"]


def _cut(data):
    return data[: len(data) // 2]


def _empty(data):
    return b""


def _flip(data):
    """Changes one pixel inside the archive, and its CRC with it, so that only SHA-256 can tell."""
    import io

    with np.load(io.BytesIO(data)) as stored:
        arrays = {k: stored[k].copy() for k in stored.files}
    arrays["images"][3, 7] ^= 1
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def _other(data):
    import io

    out = io.BytesIO()
    np.savez(out, something=np.ones(3))
    return out.getvalue()


@pytest.mark.parametrize("damage", [_cut, _empty, _flip, _other])
def test_a_broken_file_is_made_again_with_one_line(tmp_path, caplog, damage):
    path, make = tmp_path / "a.npz", Maker()
    first, _ = kept(path, make)
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        again, _ = kept(path, make)
    assert make.calls == 2
    assert equal(first, again)
    (record,) = caplog.records
    assert "a.npz is broken" in record.getMessage()
    assert "\n" not in record.getMessage()
    caplog.clear()
    kept(path, make)
    assert (make.calls, caplog.records) == (2, [])


def test_a_flipped_bit_is_made_good_or_changes_nothing(tmp_path):
    path, chance = tmp_path / "a.npz", random.Random(0)
    first, _ = kept(path, Maker())
    whole = path.read_bytes()
    made = 0
    for _ in range(200):
        flipped = bytearray(whole)
        flipped[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        make = Maker()
        again, _ = kept(path, make)
        assert equal(first, again)
        made += make.calls
    assert made > 150  # the rest are times and the like, which nothing reads


def test_where_nothing_can_be_written_the_data_are_made_in_memory(tmp_path, caplog):
    (tmp_path / "file").write_text("not a folder")
    make = Maker()
    arrays, _ = kept(tmp_path / "file" / "a.npz", make)
    assert equal(arrays, Maker()())
    assert "made in memory" in caplog.text


def test_leftovers_of_killed_processes_are_removed_when_old(tmp_path):
    old, young = tmp_path / ".a.npz.1.tmp", tmp_path / ".a.npz.2.tmp"
    for left in (old, young):
        left.write_bytes(b"")
    os.utime(old, (time.time() - 7200,) * 2)
    kept(tmp_path / "a.npz", Maker())
    assert {p.name for p in tmp_path.iterdir()} == {"a.npz", young.name}


def _reader(root):
    for i in range(20):
        arrays, _ = kept(root / f"{i}.npz", lambda: {"x": np.arange(500_000)})
        assert (arrays["x"] == np.arange(500_000)).all()


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_several_processes_at_once(tmp_path, capfd):
    context = multiprocessing.get_context("fork")
    runs = [context.Process(target=_reader, args=(tmp_path,)) for _ in range(4)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
    assert [run.exitcode for run in runs] == [0] * 4
    assert "broken" not in capfd.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(f"{i}.npz" for i in range(20))


def test_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert folder(None) == tmp_path / "da"
    assert folder("~/x") == Path.home() / "x"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert folder(None) == Path.home() / ".cache" / "da"
