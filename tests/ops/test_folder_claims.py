import signal
import subprocess
import sys

import pytest
from fake_cells import ENVIRONMENT
from refusing import refused

from da.errors import UserError
from da.ops.folder_claims import (
    CLAIM,
    claim_folder,
    claim_new_folder,
    claimed_by,
    give_up_folder,
    hold_folder,
)

RACER = """
import sys
from pathlib import Path
from da.ops.folder_claims import claim_folder, claim_new_folder
print("ready", flush=True); sys.stdin.readline()
for round in range(int(sys.argv[2])):
    folder = Path(sys.argv[1]) / str(round)
    if sys.argv[3] == "new":
        print(claim_new_folder(folder, "run").name)
        continue
    try:
        claim_folder(folder / "run"); print("mine")
    except FileExistsError:
        print("taken")
"""
ROUNDS = 200


def race(root, way, many=4):
    """What each of many processes got in each round, all started at one moment."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(root), str(ROUNDS), way],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        for _ in range(many)
    ]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("\n")
        racer.stdin.flush()
    return list(zip(*(racer.communicate()[0].splitlines() for racer in racers), strict=True))


def test_exactly_one_of_many_processes_gets_a_folder(tmp_path):
    rounds = race(tmp_path, "one")
    assert len(rounds) == ROUNDS
    assert all(sorted(got) == ["mine", "taken", "taken", "taken"] for got in rounds)


def test_each_of_many_processes_gets_a_folder_of_its_own(tmp_path):
    rounds = race(tmp_path, "new")
    assert len(rounds) == ROUNDS
    assert all(sorted(got) == ["run", "run-2", "run-3", "run-4"] for got in rounds)


def test_a_folder_with_something_in_it_is_never_claimed(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.ckpt").write_text("x")
    with pytest.raises(FileExistsError):
        claim_folder(tmp_path / "run")
    assert claimed_by(tmp_path / "run") is None
    assert claim_new_folder(tmp_path, "run") == tmp_path / "run-2"
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError):
        claim_folder(tmp_path / "file")


def test_an_empty_folder_is_claimed_once_and_says_by_whom(tmp_path):
    (tmp_path / "run").mkdir()
    code = "import sys, os; from pathlib import Path; from da.ops.folder_claims import *\n"
    code += "claim_folder(Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    first = subprocess.Popen([sys.executable, "-c", code, tmp_path / "run"], env=ENVIRONMENT)
    assert first.wait() == -signal.SIGKILL
    with pytest.raises(FileExistsError):  # nobody mixes a run with what a killed one left
        claim_folder(tmp_path / "run")
    assert claimed_by(tmp_path / "run").startswith(f"process {first.pid} on ")


def test_a_claim_is_given_up_only_where_nothing_was_written(tmp_path):
    folder = claim_folder(tmp_path / "a" / "b")
    give_up_folder(folder)
    assert not folder.exists()
    claim_folder(folder)
    with hold_folder(folder, "x"):
        pass
    give_up_folder(folder)
    assert not folder.exists()
    claim_folder(folder)
    (folder / "config.json").write_text("{}")
    give_up_folder(folder)
    assert {path.name for path in folder.iterdir()} == {CLAIM, "config.json"}
    give_up_folder(tmp_path / "absent")


def test_where_no_folder_can_be_made_it_is_said_and_not_tried_for_ever(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        claim_new_folder(tmp_path / "file", "run")


HOLDER = """
import sys
from pathlib import Path
from da.ops.folder_claims import hold_folder
with hold_folder(Path(sys.argv[1]), "x"):
    print("held", flush=True); sys.stdin.read()
"""


def hold(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=ENVIRONMENT,
    )
    assert process.stdout.readline() == b"held\n"
    return process


def enter(folder):
    with hold_folder(folder, "name another"):
        pass


@pytest.mark.parametrize("end", ["kill", "communicate"])
def test_a_held_folder_is_refused_with_the_holder_until_it_ends(tmp_path, end):
    holder = hold(tmp_path / "run")
    for _ in range(2):  # who tries to lock must not take the holder's name away
        refused(lambda: enter(tmp_path / "run"), f"in use by process {holder.pid} on ", "name anot")
    getattr(holder, end)()
    holder.wait()
    enter(tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} <= {".lock"}


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*; name another"):
        enter(tmp_path / "file")
