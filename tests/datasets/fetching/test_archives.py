import contextlib
import gzip
import io
import os
import pty
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
from datasets.fetching import archives
from datasets.fetching.archives import is_archive, unpack_archive

ROOT = Path(__file__).parents[3]
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
        unpack_archive(archive)
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
    folder = unpack_archive(archive)
    assert folder == tmp_path / "a set.unpacked"
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert {k: v for k, v in found.items() if not k.startswith(".")} == FILES
    (folder / "list.txt").write_bytes(b"touched")
    assert unpack_archive(archive) == folder
    assert (folder / "list.txt").read_bytes() == b"touched"
    pack(archive, {"other.txt": b"x"})
    assert not (unpack_archive(archive) / "list.txt").exists()


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
    refused(archive, "'evil', which is a link or device", "unpack it by hand")


LINKS = {"inner": "1.jpg", "../up": "amazon/1.jpg", "round": "round", "folder": "../amazon"}


@pytest.mark.parametrize("name", LINKS)
@pytest.mark.parametrize("suffix", ["tar.gz", "zip"])
def test_a_link_to_a_file_of_the_archive_is_a_copy_and_others_are_refused(tmp_path, suffix, name):
    archive = tmp_path / f"x.{suffix}"
    place = str(Path(os.path.normpath(f"amazon/{name}")))
    if suffix == "zip":
        with zipfile.ZipFile(archive, "w") as out:
            info = zipfile.ZipInfo(place)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            out.writestr(info, LINKS[name])
            out.writestr("amazon/", "")
            out.writestr("amazon/1.jpg", b"one")
            out.writestr("z.txt", b"last")
    else:
        with tarfile.open(archive, "w:gz") as out:
            folder = tarfile.TarInfo("amazon")
            folder.type = tarfile.DIRTYPE
            info = tarfile.TarInfo(place)
            info.type, info.linkname = tarfile.SYMTYPE, LINKS[name]
            files = {"amazon/1.jpg": b"one", "z.txt": b"last"}
            hard = tarfile.TarInfo("hard")
            hard.type, hard.linkname = tarfile.LNKTYPE, "amazon/1.jpg"
            for item in (info, folder, *files, hard):
                content = files.get(item, b"")
                if isinstance(item, str):
                    item = tarfile.TarInfo(item)
                    item.size = len(content)
                out.addfile(item, io.BytesIO(content))
    if name in ("round", "folder"):
        refused(archive, f"'{place}', which is a link or device")
        return
    folder = unpack_archive(archive)
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    assert (folder / place).read_bytes() == (folder / "amazon" / "1.jpg").read_bytes() == b"one"
    assert (folder / "z.txt").read_bytes() == b"last"
    if suffix != "zip":
        assert (folder / "hard").read_bytes() == b"one"


@pytest.mark.parametrize("target", ["/etc/passwd", "../../etc/passwd"])
def test_links_in_a_zip_that_lead_outside_are_refused(tmp_path, target):
    archive = tmp_path / "x.zip"
    with zipfile.ZipFile(archive, "w") as out:
        info = zipfile.ZipInfo("evil")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        out.writestr(info, target)
    refused(archive, "'evil', which is a link or device")


def test_what_programs_on_windows_and_macos_add_is_no_file(tmp_path):
    names = (
        "set\\",
        "set\\mug\\",
        "set\\mug\\1.jpg",
        "__MACOSX/set/mug/._1.jpg",
        "set/mug/._1.jpg",
    )
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as out:
        for name in names:
            info = zipfile.ZipInfo()
            info.filename = name  # the constructor would mend it
            out.writestr(info, b"" if name.endswith("\\") else b"content")
    folder = unpack_archive(tmp_path / "x.zip")
    found = [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()]
    assert sorted(found) == [".unpacked.json", "set/mug/1.jpg"]
    pack(tmp_path / "y.tar", {"._set": b"x", "set/._1.jpg": b"x", "set/1.jpg": b"y"})
    found = [p.name for p in unpack_archive(tmp_path / "y.tar").rglob("*") if p.is_file()]
    assert sorted(found) == [".unpacked.json", "1.jpg"]


def test_what_python_cannot_unpack_is_to_be_unpacked_by_hand(tmp_path):
    archive = pack(tmp_path / "x.zip", {"a.jpg": b"one" * 100})
    whole = archive.read_bytes()
    start, central = whole.index(b"PK\3\4"), whole.index(b"PK\1\2")
    for place, value, words in ((6, 1, "is encrypted"), (8, 9, "a way that Python can't unpack")):
        changed = bytearray(whole)
        changed[start + place] |= value
        changed[central + place + 2] |= value
        archive.write_bytes(changed)
        refused(archive, words, "7z x")


def test_large_headers_and_long_names(tmp_path):
    long = "/".join(["ä" * 60] * 4) + ".jpg"
    with (
        zipfile.ZipFile(tmp_path / "x.zip", "w") as out,
        out.open(long, "w", force_zip64=True) as f,
    ):
        f.write(b"one")
    assert (unpack_archive(tmp_path / "x.zip") / long).read_bytes() == b"one"
    headers = {"comment": "of all that follow"}
    with tarfile.open(
        tmp_path / "y.tar", "w", format=tarfile.PAX_FORMAT, pax_headers=headers
    ) as out:
        info = tarfile.TarInfo(long)
        info.size = 3
        out.addfile(info, io.BytesIO(b"one"))
    assert (unpack_archive(tmp_path / "y.tar") / long).read_bytes() == b"one"


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


@pytest.mark.parametrize("suffix", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
@pytest.mark.parametrize("place", range(10, 20_000, 2000))
def test_archives_with_other_bytes_in_them_are_refused(tmp_path, suffix, place):
    rng = np.random.default_rng(0)
    archive = pack(tmp_path / f"x.{suffix}", {"a": rng.bytes(10_000), "b": bytes(9000) * 3})
    content = bytearray(archive.read_bytes())
    content[place % len(content)] ^= 0x55
    archive.write_bytes(content)
    if place > 10 or suffix == "tar.xz":
        refused(archive, "can't be unpacked", "get it again")


def test_the_checksum_of_gzip_is_compared(tmp_path):
    pack(tmp_path / "x.tar", {"a": b"same " * 100})
    content = tmp_path.joinpath("x.tar").read_bytes()
    stored = bytearray(gzip.compress(content, 0))  # a changed byte is still a valid stream
    stored[stored.index(b"same same")] ^= 1
    (tmp_path / "x.tar.gz").write_bytes(stored)
    refused(tmp_path / "x.tar.gz", "can't be unpacked", "get it again")


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
    refused(pack(tmp_path / "z.zip", {"a": b"", "a/b": b""}), "holds 'a/b' twice, as a file and a")
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
from da.ops.log_output import show_log
from datasets.fetching.archives import unpack_archive
show_log("datasets")
if len(sys.argv) > 2:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    print("done", unpack_archive(Path(sys.argv[1])))
except Exception as error:
    print(type(error).__name__, error)
"""


def start(archive, *limit, stderr=subprocess.PIPE):
    words = [PROGRAM.format(root=str(ROOT)), str(archive), *map(str, limit)]
    return subprocess.Popen(
        [sys.executable, "-c", *words], stdout=subprocess.PIPE, stderr=stderr, text=True
    )


def test_two_processes_unpack_it_once(tmp_path):
    archive = pack(tmp_path / "x.tar", {f"{i}.jpg": bytes(100) for i in range(3000)})
    found = [process.communicate()[0] for process in [start(archive), start(archive)]]
    assert all("done" in out for out in found), found
    assert sum("unpacking" in out for out in found) == 1
    assert len(list((tmp_path / "x.unpacked").glob("*.jpg"))) == 3000


def test_how_far_it_is_is_shown_as_a_bar_or_as_lines(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    archive = pack(tmp_path / "x.tar", {f"{i}": bytes(10**7) for i in range(20)})
    ours, theirs = pty.openpty()
    process = start(archive, stderr=theirs)
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while block := os.read(ours, 1000):
            said += block
    assert "done" in process.communicate()[0]
    os.close(ours)
    assert b"unpacking x.tar" in said
    assert b"/200.0 MB" in said
    archive.touch()
    out, err = start(archive).communicate()
    assert out.splitlines()[-1].startswith("done")
    assert err == ""
    lines = out.splitlines()[1:-1]
    assert [line[: len("unpacking x.tar: 64")] for line in lines] == [
        "unpacking x.tar: 64",
        "unpacking x.tar: 12",
    ]
    assert all(line.endswith(" of 191 MB") for line in lines)


def test_what_a_killed_process_left_is_removed_whatever_it_is_called(tmp_path):
    archive = pack(tmp_path / "set[1].zip")
    (tmp_path / ".set[1].unpacked.part-abc").mkdir()
    assert (unpack_archive(archive) / "list.txt").exists()
    assert not list(tmp_path.glob(".*.part-*"))


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
    folder = unpack_archive(archive)
    assert folder.is_relative_to(tmp_path / "cache")
    assert (folder / "list.txt").exists()
    other = tmp_path / "other" / "x.zip"  # of the same name, size and time
    other.parent.mkdir()
    other.write_bytes(archive.read_bytes())
    os.utime(other, ns=(archive.stat().st_atime_ns, archive.stat().st_mtime_ns))
    monkeypatch.setattr(os, "access", lambda p, mode: p not in (tmp_path, other.parent))
    assert unpack_archive(other) != folder


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
    assert len(list(unpack_archive(archive).glob("*.jpg"))) == len(files)
    assert not list(tmp_path.glob(".x.unpacked.part-*"))
