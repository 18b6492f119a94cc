import errno
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_cells import ENVIRONMENT

from da.ops.files import exclusive_lock, write_atomically

ALONE = """
import sys, time
from pathlib import Path
from da.ops.files import exclusive_lock
with exclusive_lock(Path(sys.argv[1]), lambda: print("waits", flush=True)):
    print("in", flush=True)
    {work}
"""


def start(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )


@pytest.mark.parametrize("content", ["ŵ", b"\0\1", memoryview(b"abc")])
def test_content_of_each_kind_is_written_whole(tmp_path, content):
    path = tmp_path / "new" / "f"
    write_atomically(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else bytes(content))
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [p.name for p in path.parent.iterdir()] == ["f"]


@pytest.mark.parametrize("where", ["open", "fsync"])
def test_a_folder_that_cannot_be_synced_costs_nothing(tmp_path, monkeypatch, where):
    whole_open, whole_sync = os.open, os.fsync

    def refuse_open(path, *rest, **options):
        if Path(path).is_dir():
            raise PermissionError(errno.EACCES, "as on Windows")
        return whole_open(path, *rest, **options)

    def refuse_sync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "as on some network file systems")
        whole_sync(descriptor)

    name, refuse = ("os.open", refuse_open) if where == "open" else ("os.fsync", refuse_sync)
    monkeypatch.setattr(name, refuse)
    write_atomically(tmp_path / "f", "x")
    assert (tmp_path / "f").read_text() == "x"


def test_a_folder_whose_disk_fails_is_said(tmp_path, monkeypatch):
    whole = os.fsync

    def fail(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, "Input/output error")
        whole(descriptor)

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        write_atomically(tmp_path / "f", "x")


def test_leftovers_of_killed_writers_go_when_old(tmp_path):
    old, young, other = (tmp_path / name for name in (".f[1].a.tmp", ".f[1].b.tmp", ".g.c.tmp"))
    for left in (old, young, other):
        left.write_bytes(b"")
    for left in (old, other):
        os.utime(left, (time.time() - 7200,) * 2)
    write_atomically(tmp_path / "f[1]", "x")
    assert {p.name for p in tmp_path.iterdir()} == {"f[1]", young.name, other.name}


def test_the_second_waits_and_says_so_until_the_first_is_out(tmp_path):
    first = start(ALONE.format(work="sys.stdin.read()"), tmp_path / "new" / "lock")
    assert first.stdout.readline() == "in\n"
    second = start(ALONE.format(work=""), tmp_path / "new" / "lock")
    assert second.stdout.readline() == "waits\n"
    time.sleep(0.3)
    assert second.poll() is None
    first.communicate()
    assert second.communicate()[0] == "in\n"
    assert second.returncode == 0


def test_the_kernel_frees_the_lock_of_a_killed_process(tmp_path):
    first = start(ALONE.format(work="sys.stdin.read()"), tmp_path / "lock")
    first.stdout.readline()
    first.send_signal(signal.SIGKILL)
    first.communicate()
    said = []
    with exclusive_lock(tmp_path / "lock", lambda: said.append("waits")):
        assert not said


def test_only_one_of_many_is_in_at_a_time(tmp_path):
    (tmp_path / "count").write_text("0")
    work = (
        "path = Path(sys.argv[2]); n = int(path.read_text()); time.sleep(.05);"
        "path.write_text(str(n + 1))"
    )
    many = [start(ALONE.format(work=work), tmp_path / "lock", tmp_path / "count") for _ in range(6)]
    for process in many:
        process.communicate()
    assert (tmp_path / "count").read_text() == "6"


def test_where_no_lock_can_be_made_it_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"), exclusive_lock(tmp_path / "file" / "lock"):
        pass


def test_an_error_inside_frees_the_lock(tmp_path):
    with pytest.raises(KeyError), exclusive_lock(tmp_path / "lock"):
        raise KeyError
    with exclusive_lock(tmp_path / "lock", lambda: pytest.fail("still held")):
        pass
