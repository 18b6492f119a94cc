import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from da.errors import UserError
from datasets.files.benchmark import Benchmark
from datasets.files.checking import check_files, probe_files, unreadable
from datasets.files.decoding import Reading
from datasets.files.image_sets import FileImages
from datasets.folder import Folder

ROOT = Path(__file__).parents[3]


def picture(path, mode="RGB", size=(9, 7), key=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(key).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return path


@pytest.fixture
def root(tmp_path):
    """Two domains of two classes, three images each."""
    for n, domain in enumerate(("a", "b")):
        for k, label in enumerate(("cat", "dog")):
            for i in range(3):
                picture(tmp_path / "set" / domain / label / f"{i}.png", key=100 * n + 10 * k + i)
    return tmp_path / "set"


def spoil(root):
    """One file of every kind that can't be read; gives their names with a word of the reason."""
    whole = picture(root / "a/cat/cut.jpg", size=(64, 64)).read_bytes()
    (root / "a/cat/cut.jpg").write_bytes(whole[: len(whole) // 2])
    whole = picture(root / "a/cat/cut.png", size=(64, 64)).read_bytes()
    (root / "a/cat/cut.png").write_bytes(whole[: len(whole) // 2])
    (root / "a/dog/none.jpg").write_bytes(b"")
    (root / "a/dog/page.jpg").write_text("<!DOCTYPE html><p>quota exceeded")
    (root / "b/cat/link.jpg").symlink_to("/nonexistent/1.jpg")
    (root / "b/cat/noise.jpg").write_bytes(bytes(range(128, 256)))
    return {
        "a/cat/cut.jpg": "cut short or damaged",
        "a/cat/cut.png": "cut short or damaged",
        "a/dog/none.jpg": "empty (zero bytes)",
        "a/dog/page.jpg": "no image but text ('<!DOCTYPE html>",
        "b/cat/link.jpg": "link to '/nonexistent/1.jpg', which does not exist",
        "b/cat/noise.jpg": "no image, or its beginning is damaged",
    }


@pytest.mark.parametrize("more", [0, 80])
def test_every_bad_file_is_named_with_its_reason(root, more):
    wanted = spoil(root)
    for i in range(more):  # with so many it takes processes
        (root / f"a/dog/more{i}.png").hardlink_to(root / "a/dog/0.png")
    report = check_files(Folder, str(root), 2, show=False)
    assert len(report.bad) == len(wanted)
    for path, reason in wanted.items():
        (line,) = [line for line in report.bad if f"'{root / path}'" in line]
        assert reason in line
        assert "\n" not in line
    # The images beside them are looked at all the same.
    assert sum(part.kinds["colour"] for part in report.parts) == 12 + more


def test_without_decoding_it_finds_what_the_file_system_knows(root):
    spoil(root)
    report = check_files(Folder, str(root), decode=False, show=False)
    assert [line.split("'")[1].rpartition("/")[2] for line in report.bad] == [
        "none.jpg",
        "link.jpg",
    ]
    assert not report.duplicates()


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "setuid") or os.getuid() != 0, reason="needs root to drop")
def test_a_file_that_may_not_be_read(root):
    (root / "a/cat/0.png").chmod(0)
    for part in (root, *root.parents):
        if part.stat().st_mode & 0o055 != 0o055:
            part.chmod(part.stat().st_mode | 0o055)
    code = (
        "import os, sys; from pathlib import Path\n"
        "from datasets.files.image_probe import probe_image, touched\n"
        "from datasets.files.decoding import Reading; os.setuid(65534)\n"
        "path = Path(sys.argv[1])\n"
        "print(probe_image(path, Reading(8)).problem, touched(path), sep=chr(10))"
    )
    command = [sys.executable, "-c", code, str(root / "a/cat/0.png")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["no permission to read it"] * 2


def test_indices_and_reasons(root):
    (root / "a/cat/1.png").write_bytes(b"")
    files = FileImages(root, ["a/cat/0.png", "a/cat/1.png"], np.zeros(2, int), ("cat",), Reading(8))
    path = root / "a/cat/1.png"
    expected = {1: f"image '{path}' can't be read: it is empty (zero bytes)"}
    assert unreadable(files, show=False) == expected


def test_kinds_sizes_and_rotation(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(root / "a/cat/grey.png", "L", (50, 20))
    picture(root / "a/cat/palette.gif", "P")
    picture(root / "a/cat/clear.png", "RGBA")
    picture(root / "a/cat/print.jpg", "CMYK")
    picture(root / "a/cat/turned.jpg", size=(5, 90), exif=exif)
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8)).save(root / "a/cat/deep.png")
    part = check_files(Folder, str(root), show=False).parts[0]
    assert not part.bad
    found = {"grey": 1, "palette": 1, "alpha": 1, "CMYK": 1, "16-bit": 1, "colour": 7}
    assert part.kinds == found
    assert (part.smallest, part.largest, part.turned) == ((5, 7), (50, 90), 1)


def test_equal_files_in_two_domains_are_a_note(root):
    (root / "b/dog/9.png").write_bytes((root / "a/cat/1.png").read_bytes())
    report = check_files(Folder, str(root), show=False)
    (line,) = report.duplicates()
    assert line == "1 images are the same in a and b, such as 'a/cat/1.png' and 'b/dog/9.png'"
    assert not report.problems()


def test_other_classes_and_files_that_are_passed_over(root):
    picture(root / "b/horse/0.png")
    (root / "b/cat/Thumbs.db").write_bytes(b"x")
    (root / "b/cat/._0.png").write_bytes(b"x")
    report = check_files(Folder, str(root), show=False)
    (problem,) = report.problems()
    assert "only in a: none; only in b: horse" in problem
    assert [part.listing.passed_over.total() for part in report.parts] == [0, 2]
    assert not report.bad


class Pets(Benchmark):
    title = "Pets"
    domains = ("a", "b")
    classes = ("dog", "cat")
    counts: ClassVar = {"a": 6, "b": 7}
    class_counts: ClassVar = {"b": (3, 4)}


def test_counts_are_compared_with_the_published(root):
    report = check_files(Pets, str(root), decode=False, show=False)
    assert report.problems() == [
        "b: 6 images, published are 7",
        "b: classes of another size: cat 3 (published 4)",
    ]
    (root / "b").rename(root / "other")
    report = check_files(Pets, str(root), decode=False, show=False)
    (problem,) = report.problems()
    assert problem.startswith("b: domain 'b' of Pets is not in ")
    (root / "a").rename(root / "another")
    with pytest.raises(UserError, match="domain 'a' of Pets is not in "):
        check_files(Pets, str(root), show=False)


def test_a_domain_that_no_task_needs_may_be_absent(root):
    class Photos(Pets):
        counts: ClassVar = {}
        class_counts: ClassVar = {}
        domains = ("a", "b", "c")

        @classmethod
        def tasks(cls):
            return ("a→b",)

    report = check_files(Photos, str(root), decode=False, show=False)
    (said,) = report.absent()
    assert said.startswith("c, which no published task needs: domain 'c' of Pets is not in ")
    assert report.problems() == []


def test_the_manifest_is_of_names_labels_and_contents(root):
    def manifests(**options):
        return [part.manifest for part in check_files(Folder, str(root), **options).parts]

    assert manifests(decode=False) == ["", ""]

    before = manifests()
    assert all(len(text) == 64 for text in before)
    picture(root / "b/dog/0.png", size=(30, 30))
    after = manifests()
    assert (after[0], after[1] != before[1]) == (before[0], True)


def test_no_random_number_is_drawn(root):
    import torch

    files = FileImages(root, ["a/cat/0.png"] * 70, np.zeros(70, int), ("cat",), Reading(8))
    before = torch.get_rng_state()
    assert len(list(probe_files(files, 2, False, ""))) == 70
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.long
def test_ctrl_c_stops_it_at_once(tmp_path):
    for label in ("cat", "dog"):
        for domain in "ab":
            whole = picture(tmp_path / f"set/{domain}/{label}/0.jpg", size=(1500, 1500))
            for i in range(1, 100):
                (whole.parent / f"{i}.jpg").hardlink_to(whole)
    command = [sys.executable, "run.py", "data", "check", "Folder", "--workers", "2", "--root"]
    process = subprocess.Popen(
        [*command, tmp_path / "set"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    for _ in range(600):
        if process.poll() is not None or len(children.read_text().split()) > 1:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (130, "interrupted\n")
