import random
import signal
import subprocess
import sys
import time

import pytest
from fake_cells import ENVIRONMENT, a_cell, made
from refusing import refused

from da.errors import UserError
from da.grids.store import Store
from da.ops.files import write_atomically

WRITER = """
import sys
from pathlib import Path
from da.ops.files import write_atomically
for i in range(10**9):
    write_atomically(Path(sys.argv[1]), str(i % 10) * 200_000)
    if i == 0: print("ready", flush=True)
"""


def start(code, argument, **streams):
    return subprocess.Popen(
        [sys.executable, "-c", code, argument],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=ENVIRONMENT,
        **streams,
    )


def kill_loop(folder, kills):
    path = folder / "result.json"
    chance = random.Random(0)
    for _ in range(kills):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, env=ENVIRONMENT
        )
        process.stdout.readline()
        time.sleep(chance.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
        text = path.read_text()
        assert len(text) == 200_000
        assert len(set(text)) == 1


def test_a_killed_writer_leaves_a_whole_file(tmp_path):
    kill_loop(tmp_path, 3)


@pytest.mark.long
def test_a_killed_writer_leaves_a_whole_file_however_often(tmp_path):
    kill_loop(tmp_path, 60)


def test_a_write_that_fails_keeps_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "f"
    write_atomically(path, "old")
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from da.ops.files import write_atomically\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_atomically(Path(sys.argv[1]), 'x' * 5000)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert "File too large" in done.stderr
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["f"]


DAMAGES = {
    "empty": lambda text: "",
    "cut": lambda text: text[: len(text) // 2],
    "no JSON": lambda text: "\x00\x00",
    "a digit": lambda text: text.replace("0.9", "0.8", 1),
    "other fields": lambda text: '{"run": 1}',
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_result_is_refused_by_name(tmp_path, damage):
    store, cell = Store(tmp_path), a_cell()
    store.begin(cell)
    store.finish(cell, made(cell), keep=False)
    assert store.state(cell) == "done"
    path = store.directory(cell) / "result.json"
    path.write_text(DAMAGES[damage](path.read_text()))
    refused(lambda: store.state(cell), str(path))
    assert path.exists()


def test_a_result_of_another_cell_is_refused_by_name(tmp_path):
    store, cell, other = Store(tmp_path), a_cell(), a_cell(seed=9)
    for item in (cell, other):
        store.begin(item)
        store.finish(item, made(item), keep=False)
    path = store.directory(cell) / "result.json"
    path.write_bytes((store.directory(other) / "result.json").read_bytes())
    refused(lambda: store.result(cell), str(path), f"is of another cell ({other.id})", "remove")


def test_checkpoints_of_finished_cells_go_unless_kept(tmp_path):
    store = Store(tmp_path)
    for keep in (False, True):
        cell = a_cell(seed=int(keep))
        (store.begin(cell) / "last.ckpt").write_text("x")
        (store.directory(cell) / "logs").mkdir()
        store.log(cell).write_text("said")
        store.finish(cell, made(cell), keep=keep)
        assert (store.directory(cell) / "last.ckpt").exists() == keep
        assert (store.directory(cell) / "logs").exists()  # what a logger wrote
        assert store.log(cell).read_text() == "said"


def test_divergence_is_remembered(tmp_path):
    store, cell = Store(tmp_path), a_cell()
    store.begin(cell)
    store.fail(cell, "diverged", "loss is nan")
    assert store.state(cell) == "diverged"
    store.begin(cell)
    assert store.state(cell) == "pending"


def test_a_second_driver_is_refused_with_the_holders_pid(tmp_path):
    code = (
        "import sys; from pathlib import Path; from da.grids.store import Store\n"
        "with Store(Path(sys.argv[1])).lock():\n print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=ENVIRONMENT,
    )
    holder.stdout.readline()
    with (
        pytest.raises(UserError, match=f"in use by process {holder.pid} on .*--out"),
        Store(tmp_path).lock(),
    ):
        pass
    holder.kill()  # no stale lock stays
    holder.wait()
    with Store(tmp_path).lock():
        pass


def test_a_folder_that_cannot_be_made_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"cannot write to .*--out"),
        Store(tmp_path / "file").lock(),
    ):
        pass
