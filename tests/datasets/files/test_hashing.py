import hashlib
import json
import os
import time

import pytest

from da.errors import UserError
from datasets.files import content_hashes as module
from datasets.files.content_hashes import content_hashes


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    for name in "abc":
        (tmp_path / "set" / name).write_bytes(name.encode() * 9)
    return tmp_path / "set"


def index(root):
    return next((root.parent / "cache/da/hashes").glob("*.json"))


def kept(root):
    """What is known of files from then on."""
    return json.loads(index(root).read_text())["files"]


def test_they_are_of_the_contents_in_order(root):
    expected = [hashlib.sha256(name.encode() * 9).hexdigest() for name in "cab"]
    assert content_hashes(root, list("cab")) == expected


def test_files_are_read_again_only_where_they_changed(root, monkeypatch):
    time.sleep(2.1)
    first = content_hashes(root, list("abc"))
    assert set(kept(root)) == set("abc")
    (root / "b").write_bytes(b"B" * 9)
    os.utime(root / "b", (1, 1))
    read = []
    monkeypatch.setattr(module, "_hash", lambda root, path: read.append(path) or "new")
    assert content_hashes(root, list("abc")) == [first[0], "new", first[2]]
    assert read == ["b"]


def test_what_was_just_written_is_not_kept_however_long_the_others_take(root, monkeypatch):
    whole = module._hash

    def slow(root, path):
        time.sleep(0.8)
        return whole(root, path)

    monkeypatch.setattr(module, "_hash", slow)
    content_hashes(root, list("abc"))
    assert kept(root) == {}


def test_a_broken_index_is_made_again_with_one_line(root, caplog):
    time.sleep(2.1)
    first = content_hashes(root, list("abc"))
    whole = index(root).read_text()
    edited = whole.replace('"a": [9', '"a": [8')
    assert edited != whole
    for broken in (edited, whole[:-9], "[1, 2]", '{"a": 5}', '{"files": 5}'):
        index(root).write_text(broken)
        caplog.clear()
        assert content_hashes(root, list("abc")) == first
        (record,) = caplog.records
        assert f"{index(root)} is broken (it" in record.getMessage()
        assert index(root).read_text() == whole


def test_a_changed_hash_in_the_index_is_never_believed(root):
    time.sleep(2.1)
    first = content_hashes(root, list("abc"))
    index(root).write_text(index(root).read_text().replace(first[1], "0" * 64))
    assert content_hashes(root, list("abc")) == first


def test_where_nothing_can_be_kept_files_are_hashed_each_time(root, monkeypatch):
    (root.parent / "cache").write_bytes(b"a file")
    first = content_hashes(root, list("abc"))
    (root / "a").write_bytes(b"A" * 9)
    assert content_hashes(root, list("abc"))[1:] == first[1:]
    assert content_hashes(root, list("abc"))[0] != first[0]


def test_a_file_that_is_gone_is_named(root):
    (root / "b").unlink()
    with pytest.raises(UserError, match=r"b' can't be read: No such file"):
        content_hashes(root, list("abc"))
