import errno
import logging
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from da.errors import UserError
from datasets.files.decoding import Reading
from datasets.files.image_cache import CachedImages, cached
from datasets.files.image_sets import FileImages

ROOT = Path(__file__).parents[3]
RNG = np.random.default_rng(0)


def warnings_of(caplog):
    """What was said of damage; news of building is logged, too, where a command shows it."""
    return [record for record in caplog.records if record.levelname == "WARNING"]


def tree(root, count=6):
    root.mkdir()
    for i in range(count):
        pixels = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((40 + i, 30), Image.Resampling.BICUBIC)
        image.save(root / f"{i}.jpg")
    return root


@pytest.fixture
def root(tmp_path):
    return tree(tmp_path / "images")


def listed(root, **reading):
    paths = sorted(path.name for path in root.glob("*.jpg"))
    labels = np.arange(len(paths)) % 2
    return FileImages(root, paths, labels, ("a", "b"), Reading(16, **reading))


def equal(a, b):
    indices = np.arange(len(a))
    pairs = zip(a.images(indices), b.images(indices), strict=True)
    return len(a) == len(b) and all(x.equal(y) for x, y in pairs)


def bins(place):
    return sorted(path.name for path in place.glob("*.bin"))


@pytest.mark.parametrize("keep_aspect", [False, True])
def test_it_holds_the_very_pixels(root, tmp_path, keep_aspect):
    files = listed(root, keep_aspect=keep_aspect)
    kept = cached(files, tmp_path / "c")
    assert isinstance(kept, CachedImages)
    assert equal(kept, files)
    assert kept.labels.tolist() == files.labels.tolist()
    assert (kept.classes, kept.fingerprint()) == (files.classes, files.fingerprint())
    again = pickle.loads(pickle.dumps(kept))  # as workers get it
    assert equal(again, files)
    assert len(pickle.dumps(kept)) < 4000


def test_images_are_decoded_once(root, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "datasets")
    files = listed(root)
    cached(files, tmp_path / "c")
    said = caplog.text
    caplog.clear()
    assert "building a cache of 6 decoded images, 0.00 GB, in" in said
    assert "--data.cache false" in said
    monkeypatch.setattr("datasets.files.image_cache.read_image", None)
    assert len(cached(files, tmp_path / "c").images(np.arange(6))) == 6
    assert caplog.text == ""


def test_a_changed_file_is_noticed_and_the_old_cache_removed(root, tmp_path):
    place = tmp_path / "c"
    cached(listed(root), place)
    before = bins(place)
    Image.new("RGB", (30, 20), "red").save(root / "3.jpg")
    kept = cached(listed(root), place)
    assert equal(kept, listed(root))
    assert len(bins(place)) == 1
    assert bins(place) != before


def test_the_content_counts_and_not_the_time(root, tmp_path):
    place = tmp_path / "c"
    cached(listed(root), place)
    before = bins(place)
    os.utime(root / "2.jpg", (1, 1))
    cached(listed(root), place)
    assert bins(place) == before
    # The same size and time, but other content, within the resolution of the clock.
    content = bytearray((root / "2.jpg").read_bytes())
    content[-20] ^= 1
    (root / "2.jpg").write_bytes(content)
    kept = cached(listed(root), place)
    assert equal(kept, listed(root))
    assert bins(place) != before


def test_a_change_is_noticed_whose_time_is_set_back(root, tmp_path):
    for path in root.iterdir():
        os.utime(path, (1, 1))
    time.sleep(2.1)  # what was hashed is kept from then on
    before = cached(listed(root), tmp_path / "c").fingerprint()
    content = bytearray((root / "2.jpg").read_bytes())
    content[-20] ^= 1
    (root / "2.jpg").write_bytes(content)
    os.utime(root / "2.jpg", (1, 1))
    kept = cached(listed(root), tmp_path / "c")
    assert equal(kept, listed(root))
    assert kept.fingerprint() != before


def test_two_encodings_do_not_remove_each_other(root, tmp_path):
    place = tmp_path / "c"
    exact = cached(listed(root), place)
    cached(listed(root), place, limit_gb=1e-9)
    assert len(bins(place)) == 2
    assert equal(exact, listed(root))


def test_other_readings_have_caches_of_their_own(root, tmp_path):
    place = tmp_path / "c"
    for reading in ({}, {"keep_aspect": True}, {"exif": True}, {"alpha": "white"}):
        cached(listed(root, **reading), place)
    assert len(bins(place)) == 4


def test_large_sets_are_re_encoded(root, tmp_path):
    files = listed(root)
    kept = cached(files, tmp_path / "c", limit_gb=1e-9)
    assert kept.encoded
    pixels, exact = (torch.stack(list(x.images(np.arange(6)))).float() for x in (kept, files))
    assert 0 < (pixels.mean(1) - exact.mean(1)).abs().mean() < 8  # colours are kept more coarsely
    assert kept.fingerprint() != files.fingerprint()


def test_a_broken_cache_is_made_again(root, tmp_path, caplog):
    files, place = listed(root), tmp_path / "c"
    cached(files, place)
    data = place / bins(place)[0]
    data.write_bytes(data.read_bytes()[:-1])
    assert equal(cached(files, place), files)
    assert "is broken (its size is another)" in caplog.text
    data.with_suffix(".npz").write_text("{")
    assert equal(cached(files, place), files)


def flip_bits(place, share=(0, 1)):
    """Inverts a part of the file of pixels."""
    data = place / bins(place)[0]
    content = bytearray(data.read_bytes())
    begin, end = (round(len(content) * part) for part in share)
    content[begin:end] = bytes(byte ^ 255 for byte in content[begin:end])
    data.write_bytes(content)
    return data


@pytest.mark.parametrize("limit_gb", [8, 1e-9])
def test_damaged_images_are_made_again_from_their_files_with_one_line(
    root, tmp_path, caplog, limit_gb
):
    files, place = listed(root), tmp_path / "c"
    whole = cached(files, place, limit_gb).images(np.arange(6))
    content = (place / bins(place)[0]).read_bytes()
    whole = [image.clone() for image in whole]
    data = flip_bits(place, (0.25, 0.75))
    kept = cached(files, place, limit_gb)
    for _ in range(2):
        assert all(map(torch.equal, kept.images(np.arange(6)), whole))
    (record,) = warnings_of(caplog)
    assert f"'{data}' is damaged at '" in record.getMessage()
    assert data.read_bytes() == content  # and so the next run finds nothing
    caplog.clear()
    assert all(map(torch.equal, cached(files, place, limit_gb).images(np.arange(6)), whole))
    assert not warnings_of(caplog)


def test_one_flipped_bit_is_noticed(root, tmp_path, caplog):
    files, place = listed(root), tmp_path / "c"
    cached(files, place)
    data = place / bins(place)[0]
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    assert equal(cached(files, place), files)
    assert len(warnings_of(caplog)) == 1


def test_a_damaged_image_without_its_file_is_refused_by_name(root, tmp_path):
    files, place = listed(root), tmp_path / "c"
    cached(files, place)
    data = flip_bits(place)
    kept = cached(files, place)
    (root / "3.jpg").unlink()
    words = f"image '{root / '3.jpg'}' can't be read: its copy in '{data}' is damaged, and its file"
    with pytest.raises(UserError, match=re.escape(f"{words} is no help: ")):
        kept.images(np.array([3]))
    Image.new("RGB", (30, 20), "red").save(root / "3.jpg")
    with pytest.raises(UserError, match=re.escape(f"{words} gives other pixels by now; remove")):
        kept.images(np.array([3]))
    data.unlink()  # as it says
    assert equal(cached(listed(root), place), listed(root))


def test_a_cache_that_cannot_be_mended_is_read_around(root, tmp_path, caplog, monkeypatch):
    files, place = listed(root), tmp_path / "c"
    cached(files, place)
    kept, whole = cached(files, place), Path.open
    flip_bits(place)

    def refuse(path, mode="r", *rest, **options):
        if mode == "r+b":
            raise PermissionError(errno.EACCES, "Permission denied")
        return whole(path, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", refuse)
    assert equal(kept, files)
    assert "can't be mended (Permission denied)" in caplog.text


class Batches(torch.utils.data.Dataset):
    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        return self.data.images(np.array([i]))[0].clone()


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_forked_workers_verify_and_mend_images_between_them(root, tmp_path, caplog):
    files, place = listed(root), tmp_path / "c"
    cached(files, place)
    flip_bits(place)
    kept = cached(files, place)
    loader = torch.utils.data.DataLoader(
        Batches(kept), batch_size=None, num_workers=2, multiprocessing_context="fork"
    )
    for _ in range(2):  # the first mends, the second compares
        assert all(map(torch.equal, loader, files.images(np.arange(6))))
    assert kept._seen.flags.tolist() == [1] * 7
    assert equal(kept, files)
    assert not warnings_of(caplog)  # the workers said it


def test_a_spawned_worker_compares_for_itself(root, tmp_path, caplog):
    files, place = listed(root), tmp_path / "c"
    kept = cached(files, place)
    assert equal(kept, files)
    flip_bits(place)
    assert equal(pickle.loads(pickle.dumps(kept)), files)
    assert len(warnings_of(caplog)) == 1


def test_an_unreadable_image_is_named_and_nothing_is_kept(root, tmp_path):
    (root / "4.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"4\.jpg' can't be read"):
        cached(listed(root), tmp_path / "c")
    assert not list((tmp_path / "c").glob("*.tmp")) + bins(tmp_path / "c")


def test_where_nothing_can_be_written_the_files_are_read(root, tmp_path, caplog, monkeypatch):
    (tmp_path / "c").write_text("a file")
    files = listed(root)
    assert cached(files, tmp_path / "c") is files
    assert "no cache of decoded images in" in caplog.text
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    assert cached(files, tmp_path / "d") is files
    assert "GB are free, so images are read from files" in caplog.text


PROGRAM = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {root!r})
import numpy as np
from datasets.files.decoding import Reading
from datasets.files.image_cache import CachedImages, cached
from datasets.files.image_sets import FileImages
from da.ops.log_output import show_log
show_log("datasets")
limit = int(sys.argv[3])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
root = Path(sys.argv[1])
paths = sorted(path.name for path in root.glob("*.jpg"))
files = FileImages(root, paths, np.zeros(len(paths), np.int64), ("a",), Reading(64))
kept = cached(files, Path(sys.argv[2]))
print("kept" if isinstance(kept, CachedImages) else "files", len(kept.images(np.arange(len(kept)))))
"""


def start(root, place, limit=0):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(root=str(ROOT)), str(root), str(place), str(limit)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.long
def test_two_processes_build_it_once(tmp_path):
    root, place = tree(tmp_path / "many", 80), tmp_path / "c"
    found = [process.communicate() for process in [start(root, place), start(root, place)]]
    assert all("kept 80" in out for out, _ in found), found
    assert sum("building" in out for out, _ in found) == 1
    assert len(bins(place)) == 1


@pytest.mark.long
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path):
    root, place = tree(tmp_path / "many", 10), tmp_path / "c"
    out, error = start(root, place, limit=30_000).communicate()
    assert "files 10" in out, error
    assert "no cache of decoded images" in error
    assert not bins(place)
    assert not list(place.glob("*.tmp"))


@pytest.mark.long
def test_a_killed_build_is_never_taken_for_whole(tmp_path):
    root, place = tree(tmp_path / "many", 400), tmp_path / "c"
    rng = np.random.default_rng(1)
    cut = 0
    for _ in range(8):
        process = start(root, place)
        while process.poll() is None and not list(place.glob("*.tmp")):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.4))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        cut += not list(place.glob("*.npz")) or not bins(place)
        for path in (*place.glob("*.bin"), *place.glob("*-*.npz")):
            if "hashes" not in path.name and rng.random() < 0.5:
                path.unlink(missing_ok=True)
    assert cut
    files = FileImages(
        root, sorted(p.name for p in root.glob("*.jpg")), np.zeros(400, np.int64), ("a",),
        Reading(64),
    )  # fmt: skip
    assert equal(cached(files, place), files)
    assert len(bins(place)) == 1
    assert not list(place.glob("*.tmp"))
