import io
import os
import signal
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from da.errors import UserError
from datasets import archives
from datasets.archives import is_archive, unpacked

ROOT = Path(__file__).parents[2]
FILES = {"amazon/mug/1.jpg": b"one", "amazon/mug/2.jpg": b"two" * 1000, "list.txt": b""}


def pack(path, files=FILES):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
            for name, content in files.items():
                out.writestr(name, content)
        return path
    mode = {".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz", ".tar": "w"}
    with tarfile.open(path, mode[path.suffix]) as out:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    return path


def refused(archive, *words):
    before = sorted(archive.parent.rglob("*"))
    with pytest.raises(UserError) as caught:
        unpacked(archive)
    text = str(caught.value)
    assert "\n" not in text
    assert f"'{archive}'" in text
    for word in words:
        assert word in text, text
    after = [p for p in archive.parent.rglob("*") if not p.name.endswith(".lock")]
    assert sorted(after) == [p for p in before if not p.name.endswith(".lock")]
    return text


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"])
def test_all_files_are_unpacked_beside_the_archive_and_once(tmp_path, suffix):
    archive = pack(tmp_path / f"a set.{suffix}")
    folder = unpacked(archive)
    assert folder == tmp_path / "a set.unpacked"
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert {k: v for k, v in found.items() if not k.startswith(".")} == FILES
    (folder / "list.txt").write_bytes(b"touched")
    assert unpacked(archive) == folder
    assert (folder / "list.txt").read_bytes() == b"touched"
    pack(archive, {"other.txt": b"x"})
    assert not (unpacked(archive) / "list.txt").exists()


@pytest.mark.parametrize(
    "name", ["../out.txt", "a/../../out.txt", "/tmp/out.txt", "C:\\out.txt", "..\\out.txt"]
)
@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_nothing_is_written_outside(tmp_path, name, suffix):
    (tmp_path / "in").mkdir()
    archive = pack(tmp_path / "in" / f"x.{suffix}", {"good.txt": b"", name: b"evil"})
    if suffix == "zip" and name.startswith("C:"):
        with zipfile.ZipFile(archive) as file:
            name = file.namelist()[1]
    refused(archive, "which lies outside of its folder")
    assert not (tmp_path / "out.txt").exists()
    assert not (tmp_path / "in" / "out.txt").exists()


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_are_refused(tmp_path, kind):
    archive = tmp_path / "x.tar"
    with tarfile.open(archive, "w") as out:
        info = tarfile.TarInfo("evil")
        info.type = kind
        info.linkname = "/etc/passwd"
        out.addfile(info)
    refused(archive, "'evil', which is a link or device")


def test_links_in_a_zip_are_refused(tmp_path):
    archive = tmp_path / "x.zip"
    with zipfile.ZipFile(archive, "w") as out:
        info = zipfile.ZipInfo("evil")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        out.writestr(info, "/etc/passwd")
    refused(archive, "'evil', which is a link or device")


def test_bombs_are_refused(tmp_path, monkeypatch):
    archive = pack(tmp_path / "x.zip", {"zeros": bytes(30 * 2**20)})
    refused(archive, "more than 200 times its size")
    monkeypatch.setattr(archives, "MOST_FILES", 2)
    refused(pack(tmp_path / "x.zip"), "more than 2 files")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 2**28 + 100}))
    monkeypatch.setattr(archives, "MOST_FILES", 20)
    refused(pack(tmp_path / "x.zip"), "does not fit on the disk")


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_broken_archives_are_refused(tmp_path, suffix):
    rng = np.random.default_rng(0)
    archive = pack(tmp_path / f"x.{suffix}", {"a": rng.bytes(9000), "b": rng.bytes(9000)})
    archive.write_bytes(archive.read_bytes()[:9000])
    refused(archive, "can't be unpacked", "get it again")
    archive.write_bytes(b"<html>quota exceeded</html>")
    refused(archive, "can't be unpacked")
    archive.write_bytes(b"")
    refused(archive, f"'{archive}'")


@pytest.mark.parametrize("place", [1024, 1100])
def test_a_tar_that_is_cut_between_its_files_is_refused(tmp_path, place):
    archive = pack(tmp_path / "x.tar", {"a": b"1", "b": b"2", "c": b"3"})
    archive.write_bytes(archive.read_bytes()[:place])
    refused(archive, "can't be unpacked", "get it again")


def test_a_name_that_comes_twice_and_an_empty_archive_are_refused(tmp_path):
    archive = tmp_path / "x.tar"
    with tarfile.open(archive, "w") as out:
        for _ in range(2):
            out.addfile(tarfile.TarInfo("a.jpg"), io.BytesIO())
    refused(archive, "holds 'a.jpg' twice")
    refused(pack(tmp_path / "y.zip", {}), "holds no files")


def test_what_is_no_archive_is_refused(tmp_path):
    for name, words in (("x.rar", "by hand"), ("x.jpg", "is no archive")):
        (tmp_path / name).write_bytes(b"")
        refused(tmp_path / name, words)
    assert is_archive(tmp_path / "A.TAR.GZ")
    assert not is_archive(tmp_path / "a.gz.txt")


def test_a_users_folder_is_not_removed(tmp_path):
    archive = pack(tmp_path / "x.zip")
    (tmp_path / "x.unpacked").mkdir()
    (tmp_path / "x.unpacked" / "mine.txt").write_text("")
    refused(archive, "is in the way")
    assert (tmp_path / "x.unpacked" / "mine.txt").exists()


PROGRAM = """
import resource, signal, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from datasets.archives import unpacked
if len(sys.argv) > 2:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    print("done", unpacked(Path(sys.argv[1])))
except Exception as error:
    print(type(error).__name__, error)
"""


def start(archive, *limit):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(root=str(ROOT)), str(archive), *map(str, limit)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_unpack_it_once(tmp_path):
    archive = pack(tmp_path / "x.tar", {f"{i}.jpg": bytes(100) for i in range(3000)})
    found = [process.communicate()[0] for process in [start(archive), start(archive)]]
    assert all("done" in out for out in found), found
    assert sum("unpacking" in out for out in found) == 1
    assert len(list((tmp_path / "x.unpacked").glob("*.jpg"))) == 3000


def test_a_full_disk_leaves_nothing(tmp_path):
    archive = pack(tmp_path / "x.tar", {"a": bytes(100), "b": bytes(200_000)})
    out, _ = start(archive, 50_000).communicate()
    assert "UserError" in out
    assert "File too large" in out
    assert {p.name for p in tmp_path.iterdir()} == {"x.tar", ".x.unpacked.lock"}


@pytest.mark.skipif(os.name != "posix", reason="a read-only folder needs permissions of POSIX")
def test_where_nothing_can_be_written_it_goes_to_the_cache(tmp_path, monkeypatch):
    archive = pack(tmp_path / "x.zip")
    real = os.access
    monkeypatch.setattr(os, "access", lambda p, mode: p != tmp_path and real(p, mode))  # root may
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = unpacked(archive)
    assert folder.is_relative_to(tmp_path / "cache")
    assert (folder / "list.txt").exists()


@pytest.mark.long
def test_a_killed_run_is_never_taken_for_complete(tmp_path):
    files = {f"{i}.jpg": bytes(2000) for i in range(20_000)}
    archive = pack(tmp_path / "x.tar", files)
    rng = np.random.default_rng(0)
    cut = 0
    for _ in range(10):
        process = start(archive)
        while process.poll() is None and not list(tmp_path.glob(".x.unpacked.part-*")):
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 1.0))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        target = tmp_path / "x.unpacked"
        if target.exists():
            assert len(list(target.glob("*.jpg"))) == len(files)
            archive.touch()
        else:
            cut += 1
    assert cut
    assert len(list(unpacked(archive).glob("*.jpg"))) == len(files)
    assert not list(tmp_path.glob(".x.unpacked.part-*"))
