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


def kept(root):
    """What is known of files from then on."""
    return json.loads(next((root.parent / "cache/da/hashes").glob("*.json")).read_text())


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
