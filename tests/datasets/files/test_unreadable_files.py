import json

import numpy as np
import pytest
from PIL import Image

from datasets.files import unreadable_files as module
from datasets.files.decoding import Reading
from datasets.files.image_sets import FileImages
from datasets.files.unreadable_files import without_unreadable


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Four images, the second of which is cut."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for i in range(4):
        Image.new("RGB", (20 + i, 20)).save(tmp_path / f"{i}.png")
    whole = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(whole[: len(whole) // 2])
    names = [f"{i}.png" for i in range(4)]
    return FileImages(tmp_path, names, np.arange(4) % 2, ("a", "b"), Reading(8))


def test_what_can_be_decoded_is_kept_and_looked_at_once(files, monkeypatch, caplog):
    assert without_unreadable(files, "x").paths == ("0.png", "2.png", "3.png")
    monkeypatch.setattr(module, "unreadable", None)
    assert without_unreadable(files, "x").paths == ("0.png", "2.png", "3.png")
    assert "broken" not in caplog.text


def test_a_broken_list_is_made_again_with_one_line(files, tmp_path, caplog):
    expected = without_unreadable(files, "x").paths
    (kept,) = (tmp_path / "cache/da/unreadable").iterdir()
    whole = kept.read_text()
    edited = json.dumps({**json.loads(whole), "unreadable": [0]})
    for broken in (edited, whole[:-5], "[0]", '{"unreadable": [0]}'):
        kept.write_text(broken)
        caplog.clear()
        assert without_unreadable(files, "x").paths == expected
        assert caplog.text.count("is broken (it") == 1
        assert kept.read_text() == whole
