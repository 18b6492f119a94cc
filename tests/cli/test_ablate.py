"""ablate as real processes, with cells that train nothing: killed, crashed, resumed, refused."""

import csv
import importlib
import json
import os
import pty
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from long_cases import rest_long
from refusing import refused

import run
from da.cli import report, reproduce

PROGRAM = Path(__file__).parents[1] / "fake_cells.py"
ROOT = Path(__file__).parents[2]

GRID = """
data: x.Y
tasks: [a->b]
methods: [M]
norms: [bn, wa]
seeds: [0, 1, 2]
epochs: 3
steps_per_epoch: 10
lr: published
published_lr: 0.01
"""

#: Of which the differences vary over seeds: the fake accuracies grow with the length of a name.
VARYING = GRID.replace("[bn, wa]", "[bn, wa+bn]") + "challenger: wa+bn\nbaselines: bn\n"


class Bench:
    """A folder with a grid and fake cells that behave as told."""

    def __init__(self, folder, behaviour, grid=GRID):
        self.folder = folder
        (folder / "grid.yaml").write_text(grid)
        self.behave(behaviour)

    def behave(self, behaviour):
        (self.folder / "behaviour.json").write_text(json.dumps(behaviour))

    def start(self, *options, command="ablate", config="grid.yaml", **streams):
        return subprocess.Popen(
            [sys.executable, PROGRAM, command, config, "--out", "out", *options],
            cwd=self.folder,
            env={**os.environ, "FAKE_CELLS": str(self.folder), "PYTHONPATH": str(ROOT)},
            text=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **streams},
        )

    def run(self, *options, command="ablate"):
        process = self.start(*options, command=command)
        said, _ = process.communicate(timeout=120)
        return process.returncode, said

    def claims(self):
        """How often each cell was started, by its id."""
        path = self.folder / "claims"
        lines = path.read_text().splitlines() if path.exists() else []
        return Counter(line.split()[0] for line in lines)

    def workers(self):
        return {int(line.split()[2]) for line in (self.folder / "claims").read_text().splitlines()}

    def results(self):
        return len(list((self.folder / "out" / "cells").glob("*/result.json")))

    def until(self, condition):
        for _ in range(1200):
            if condition():
                return
            time.sleep(0.05)
        pytest.fail("waited for a minute")


@pytest.fixture
def bench(tmp_path):
    return lambda behaviour, grid=GRID: Bench(tmp_path, behaviour, grid)


def gone(pid):
    """The process ended; a zombie counts as ended, nobody may be there to reap it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_whole_grid_then_again(bench):
    b = bench({"figures": True})
    code, said = b.run()
    assert code == 0, said
    assert "target accuracy in %" in said
    assert "wa - bn" in said
    assert "WA beats bn" not in said  # of every table
    assert said.splitlines()[-1].startswith("wall time ")
    assert "everything else" in said.splitlines()[-1]
    assert "\x1b" not in said  # piped: plain lines
    assert (b.folder / "out" / "figure.png").stat().st_size > 0
    assert not list((b.folder / "out").glob("cells/*/last.ckpt"))
    log = next((b.folder / "out").glob("cells/*/log.txt")).read_text()
    assert "hello from" in log
    assert "and from C" in log
    b.behave({})
    code, said = b.run("--full")
    assert code == 0
    assert "WA beats bn" in said
    assert set(b.claims().values()) == {1}
    assert len(b.claims()) == 6


@pytest.mark.long
def test_results_of_other_data_are_not_reused(bench):
    b = bench({})
    assert b.run()[0] == 0
    first = set(b.claims())
    b.behave({"data version": 2})
    assert b.run()[0] == 0
    assert b.run()[0] == 0
    assert set(b.claims().values()) == {1}
    assert len(b.claims()) == 12
    b.behave({})
    assert b.run()[0] == 0  # the data as they were: what there was
    assert len(b.claims()) == 12
    assert first < set(b.claims())


def test_each_misfortune_costs_its_cell_alone(bench):
    seeds = GRID.replace("[0, 1, 2]", "[0, 1, 2, 3, 4, 5, 6, 7]").replace("[bn, wa]", "[wa]")
    troubles = ["raise", "exit", "kill", "diverge", "refuse", "wrong", "kill once"]
    b = bench({str(i + 1): trouble for i, trouble in enumerate(troubles)}, seeds)
    code, said = b.run()
    assert code == 1
    assert b.results() == 2  # seed 0, and the one that was killed once
    for text in (
        "seed 1 (batch 32, lr 0.01) [published]: failed (ValueError: boom; log: out/cells/",
        "failed (its process ended with exit code 7, 2 times",
        "failed (its process was killed by SIGKILL (out of memory?), 2 times",
        "diverged (loss is nan at step 3",
        "failed (batch norm needs two samples",
        "failed (invalid result: the result is of cell",
    ):
        assert text in said
    starts = sorted(b.claims().values())
    assert starts == [1, 1, 1, 1, 1, 2, 2, 2]  # only crashes are tried again, once
    logs = [path.read_text() for path in (b.folder / "out").glob("cells/*/log.txt")]
    assert any("Traceback" in log and "boom" in log for log in logs)
    b.behave({})
    code, said = b.run()  # what failed is tried anew, what diverged is not
    assert code == 3
    assert said.count("seed 4 ") == 1  # that it diverged is known, and said at the end alone
    assert b.results() == 7
    assert "(1 of 8)" in said


SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.mark.parametrize(("number", "code"), rest_long(SIGNALS, SIGNALS[:1]))
def test_an_interruption_keeps_what_is_finished(bench, number, code):
    b = bench({"1": 60, "2": 60})
    process = b.start("--workers", "2")
    b.until(lambda: b.results() == 2 and len(b.claims()) == 4)
    process.send_signal(number)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == code, said
    assert "2 of 6 cells are finished and stay" in said
    assert "to go on: python run.py ablate grid.yaml --out out" in said
    assert "what there is, as a partial report: python run.py report out" in said
    assert "Traceback" not in said
    assert all(gone(pid) for pid in b.workers())
    before = b.claims()
    b.behave({})
    assert b.run()[0] == 0
    after = b.claims()
    assert sorted(after.values()) == [1, 1, 1, 1, 2, 2]
    assert sum(after.values()) == sum(before.values()) + 4


@pytest.mark.long
def test_a_killed_driver_takes_its_workers_along_and_is_resumed(bench):
    b = bench({"2": 60})
    process = b.start("--workers", "2")
    b.until(lambda: b.results() == 4 and len(b.claims()) == 6)
    process.kill()
    process.wait()
    process.stdout.close()
    b.until(lambda: all(gone(pid) for pid in b.workers()))
    b.behave({})
    assert b.run()[0] == 0
    assert sorted(b.claims().values()) == [1, 1, 1, 1, 2, 2]
    assert b.results() == 6


@pytest.mark.long
def test_kills_at_any_time_never_run_a_finished_cell_again(bench):
    b = bench({"else": 0.05}, GRID.replace("[0, 1, 2]", str(list(range(20)))))
    finished = set()
    for delay in (0.5, 0.8, 1.1, 1.4, 1.7, 2.0):
        before = b.claims()
        process = b.start("--workers", "2", stdout=subprocess.DEVNULL)
        time.sleep(delay)
        process.kill()
        process.wait()
        b.until(lambda: not (b.folder / "claims").exists() or all(map(gone, b.workers())))
        assert all(b.claims()[cell] == before[cell] for cell in finished)
        finished = {path.parent.name for path in (b.folder / "out").glob("cells/*/result.json")}
    assert b.run()[0] == 0
    assert b.results() == 40


@pytest.mark.parametrize("command", rest_long(["ablate", "dry run", "report"], ["ablate"]))
def test_a_damaged_result_is_refused_by_name_in_one_line(bench, command, monkeypatch):
    b = bench({})
    assert b.run()[0] == 0
    path = next((b.folder / "out").glob("cells/*/result.json"))
    path.write_text(path.read_text()[:500])
    if command == "report":
        monkeypatch.chdir(b.folder)
        refused(lambda: report.main(["out"]), f"out/cells/{path.parent.name}/result.json")
        return
    code, said = b.run(*(["--dry-run"] if command == "dry run" else []))
    assert (code, said.count("\n")) == (2, 1), said
    assert f"out/cells/{path.parent.name}/result.json" in said
    assert "remove that file to train again" in said
    path.unlink()
    assert b.run()[0] == 0
    assert sorted(b.claims().values()) == [1, 1, 1, 1, 1, 2]
    assert b.claims()[path.parent.name] == 2


@pytest.mark.parametrize("command", ["ablate", "tune"])
@pytest.mark.parametrize("what", ["grid.json", "cells/00ff/result.json"])
def test_a_folder_of_an_earlier_version_is_refused_by_name_and_left_alone(bench, what, command):
    b = bench({}, GRID.replace("lr: published", "lr: published\ntuned: tuned.yaml"))
    file = b.folder / "out" / what
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"schema_version": 1, "state": "done", "cell": "00ff"}))
    code, said = b.run(command=command)
    assert (code, said.count("\n")) == (2, 1), said
    assert f"'out/{what}' was written by an earlier version (schema 1)" in said
    assert "name another folder with --out" in said
    assert not b.claims()


def test_report_and_reproduce_refuse_a_grid_of_an_earlier_version(tmp_path):
    (tmp_path / "grid.json").write_text('{"schema_version": 1, "command": "x"}')
    for call in (
        lambda: report.main([str(tmp_path)]),
        lambda: reproduce.main(["office31", "--compare", "--out", str(tmp_path)]),
    ):
        refused(call, f"'{tmp_path / 'grid.json'}' was written by an earlier version", "--out")


def test_a_stored_grid_that_was_changed_is_refused_by_name(bench, monkeypatch):
    b = bench({})
    assert b.run()[0] == 0
    path = b.folder / "out" / "grid.json"
    path.write_text(path.read_text().replace('"lr": 0.01', '"lr": 0.02', 1))
    refused(lambda: report.main([str(b.folder / "out")]), str(path), "checksum")


def test_a_rate_that_the_user_chose_is_called_given(bench):
    b = bench({})
    code, said = b.run("--lr", "0.02")
    assert code == 0, said
    assert ", given learning rate" in said
    assert "published" not in said
    assert "| given | M | bn | 32 | 0.02 |" in (b.folder / "out" / "report.md").read_text()
    code, said = b.run("--lr", "fast")
    assert code == 2
    assert "--lr: expected tuned, published or a number above 0, got 'fast'" in said


def test_a_target_without_labels_is_shown_without_accuracies(bench):
    b = bench({"unlabelled": True, "figures": True})
    code, said = b.run()
    assert code == 0, said
    report_text = (b.folder / "out" / "report.md").read_text()
    for text in (said, report_text):
        assert "The target has no labels: nothing is shown as an accuracy of it." in text
        assert "accuracy in %" not in text
        assert "beats" not in text
        assert "figure.png" not in text
        assert "abel-free scores of targets without labels, at the last epoch" in text
    assert "| a->b | InformationMaximisation | 0.2000 ± 0.0000 |" in report_text
    assert not (b.folder / "out" / "figure.png").exists()
    with (b.folder / "out" / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["target_test_accuracy"] for row in rows} == {""}
    assert {row["target_test_InformationMaximisation"] for row in rows if row["epoch"]} == {"0.2"}
    selections = {row["selection"] for row in rows if row["epoch"]}
    assert {"last", "label-free"} <= selections
    assert all(name.startswith(("last", "label-free")) for name in selections)  # and no oracle


def test_the_report_says_where_label_free_scores_are_of_the_images_that_are_tested(bench):
    b = bench({"scored images": "tested"})
    assert b.run()[0] == 0
    text = (b.folder / "out" / "report.md").read_text()
    assert "scores are of the target's test images, unlabelled, which are trained on, too" in text


@pytest.mark.long
def test_a_logger_is_an_argument_of_the_training_and_no_part_of_a_cell(bench):
    b = bench({}, GRID + "logger: tensorboard\n")
    assert b.run()[0] == 0
    logs = list((b.folder / "out").glob("cells/*/logs/tensorboard"))
    assert len(logs) == 6
    (b.folder / "grid.yaml").write_text(GRID)
    assert b.run()[0] == 0  # without: the same cells
    assert set(b.claims().values()) == {1}


def test_two_drivers_in_one_folder(bench):
    b = bench({"else": 60})
    first = b.start()
    b.until(lambda: len(b.claims()) > 0)
    code, said = b.run()
    assert code == 2
    assert said.startswith(f"error: out is in use by process {first.pid} on ")
    assert said.count("\n") == 1
    first.send_signal(signal.SIGTERM)
    first.communicate()


def test_wrong_names_are_refused_before_any_cell(bench):
    b = bench({})
    code, said = b.run("--methods", "nonsense")
    assert (code, said) == (2, "error: unknown method 'nonsense'; one of: M\n")
    code, said = b.run("--seeds", "0,x")
    assert code == 2
    assert "expected whole numbers" in said
    code, said = b.run("--lr", "tuned")
    assert code == 2
    assert "lr: 'tuned' needs a table" in said
    assert not b.claims()


def test_dry_run_prints_cells_and_cost_and_writes_nothing(bench):
    b = bench({})
    code, said = b.run("--dry-run", "--keep")
    assert code == 0
    assert "a->b" in said
    assert "seeds 0,1,2" in said
    assert "6 of 6 cells to run: about" in said
    assert "from stated constants" in said
    assert not (b.folder / "out").exists()
    b.run()
    assert "0 of 6 cells to run: about 0 s" in b.run("--dry-run")[1]


def test_more_seeds_extend_a_finished_grid(bench):
    b = bench({})
    assert b.run()[0] == 0
    code, said = b.run("--seeds", "0-4,7")
    assert code == 0, said
    assert set(b.claims().values()) == {1}  # what was finished is never run again
    assert len(b.claims()) == 2 * 6
    text = (b.folder / "out" / "report.md").read_text()
    assert "seeds 0, 1, 2, 3, 4, 7" in text
    assert "runs: 12 of 12 finished" in text


def test_a_dry_run_says_what_the_grid_could_detect(bench):
    b = bench({}, VARYING)
    assert "give the deviation of differences with --deviation" in b.run("--dry-run")[1]
    code, said = b.run("--dry-run", "--deviation", "6")
    assert code == 0
    assert "with 1 task and 3 seeds:\n  deviation 6.0 over seeds: on these tasks 19.6;" in said
    b.run()
    code, said = b.run("--dry-run", "--seeds", "0-9")  # from what has finished
    assert code == 0
    assert "1 task and 10 seeds:\n  M, published, wa+bn - bn: deviation 0.3 over seeds" in said
    code, said = b.run("--deviation", "6")
    assert (code, said.count("\n")) == (2, 1)
    assert "--deviation: only with --dry-run" in said


@pytest.mark.long
def test_seeds_are_added_until_the_named_half_width(bench):
    b = bench({}, VARYING.replace("[a->b]", "[a->b, b->a]"))
    code, said = b.run("--seeds", "0-3", "--stop-at", "1")
    assert (code, said.count("\n")) == (2, 1), said
    assert "stop_at: expected more than 11 seeds, which the first look takes with 2 tasks" in said
    assert not b.claims()
    code, said = b.run("--seeds", "0-19", "--stop-at", "1", "--dry-run")
    assert "at most these: a first look at ± 1 points is taken after 11 of 20 seeds, then" in said
    assert "at most 80 of 80 cells to run: " in said
    code, said = b.run("--seeds", "0-19", "--stop-at", "1")
    assert code == 0, said
    assert "beyond the stop" not in said
    assert "11 of at most 20 seeds: half-width on these tasks at most " in said
    assert ", wanted 1: enough" in said
    assert len(b.claims()) == 2 * 2 * 11
    text = (b.folder / "out" / "report.md").read_text()
    assert "runs: 44 of 44 finished" in text
    assert "± 1 points, which was named beforehand" in text
    code, said = b.run("--seeds", "0-12", "--stop-at", "0.0001")  # goes on from there, to the end
    assert code == 0, said
    assert "13 of at most 13 seeds" in said
    assert said.count("on to the next seed") == 2
    assert "no more seeds" in said
    code, said = b.run("--seeds", "0-19", "--stop-at", "1")
    assert code == 0
    assert "8 runs beyond the stop have results from before (seeds 11, 12); the report is" in said
    assert "runs: 44 of 44 finished" in (b.folder / "out" / "report.md").read_text()
    assert set(b.claims().values()) == {1}
    assert len(b.claims()) == 2 * 2 * 13


@pytest.mark.long
def test_no_rule_about_differences_is_passed_over(bench):
    b = bench({"unlabelled": True}, GRID.replace("[bn, wa]", "[gn, wa]"))
    for options, name in (
        (("--stop-at", "1", "--seeds", "0-29"), "stop_at"),
        (("--deviation", "5", "--dry-run"), "--deviation"),
    ):
        code, said = b.run(*options)
        assert (code, said.count("\n")) == (2, 1), said
        assert f"{name}: nothing is compared: expected wa and one of bn" in said
    assert not b.claims()
    (b.folder / "grid.yaml").write_text(GRID.replace("[a->b]", "[a->b, b->a, a->c, c->a, b->c]"))
    code, said = b.run("--stop-at", "1", "--seeds", "0-7")
    assert code == 2
    assert "stop_at: the target has no labels, so no difference is known" in said
    assert "the 50 runs that have finished stay" in said


def test_a_report_while_a_grid_runs_says_that_it_is_partial(bench, capsys):
    b = bench({"1": 60, "2": 60})
    process = b.start("--workers", "2")
    b.until(lambda: b.results() == 2 and len(b.claims()) == 4)
    assert report.main([str(b.folder / "out")]) == 0
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    said = capsys.readouterr().out
    assert said.startswith("partial: 2 of 6 runs finished, 4 missing; means are of complete sets")
    assert "1 of 1 row: no task is complete yet" in said
    text = (b.folder / "out" / "report.md").read_text()
    assert "**Partial: 2 of 6 runs finished, 4 missing" in text


def test_a_full_disk_is_one_line_and_the_grid_goes_on(bench):
    b = bench({})
    # Enough for the fake checkpoint of 1000 bytes, too little for a result or for grid.json.
    process = b.start(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500)))
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "cannot write to out (File too large): 0 of 6 cells are finished and stay" in said
    assert "Traceback" not in said
    assert not [path for path in (b.folder / "out").rglob("*") if path.name.endswith(".json")]
    assert b.run()[0] == 0


def test_keep_leaves_checkpoints(bench):
    b = bench({})
    assert b.run("--keep", "--seeds", "0")[0] == 0
    assert len(list((b.folder / "out").glob("cells/*/last.ckpt"))) == 2


def test_a_terminal_shows_bars_and_an_estimate(bench):
    b = bench({"2": 1.5})
    ours, theirs = pty.openpty()
    process = b.start("--workers", "2", stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    try:
        while chunk := os.read(ours, 65536):
            said += chunk
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0
    text = said.decode()
    assert "of 6 finished" in text
    assert "left" in text
    assert "━" in text


def test_tune_then_ablate_with_the_tuned_rates(bench):
    tuned = GRID.replace("lr: published", "lr: tuned\ntuned: tuned.yaml")
    b = bench({}, tuned)
    code, said = b.run()
    assert code == 2
    assert "make them: python run.py tune grid.yaml" in said
    code, said = b.run(command="tune")
    assert code == 0, said
    assert len(b.claims()) == 2 * 5 * 2
    assert "WARNING: on the edge" in said
    code, said = b.run()
    assert code == 0, said
    assert ", tuned learning rate" in said


@pytest.mark.long
def test_a_normaliser_that_no_rate_works_for_costs_its_cells_alone(bench):
    tuned = GRID.replace("lr: published", "lr: tuned\ntuned: tuned.yaml")
    b = bench({"wa": "diverge"}, tuned)
    code, said = b.run(command="tune")
    assert code == 0, said
    assert "WARNING: no rate from 0.001 to 0.1 works" in said
    code, said = b.run()
    assert code == 1, said
    assert b.results() == 3 + 5 * 2  # bn's, and its trials
    assert "refused: M with wa, backbone default, batch size 32: no learning rate from" in said
    report = (b.folder / "out" / "report.md").read_text()
    assert "## Refused" in report
    assert "no rate" in report
    assert "**80.3 ± 0.3**" in report  # what there is, is settled
    code, said = b.run()  # a finished grid says so again
    assert code == 1
    assert "refused: M with wa, " in said
    code, said = b.run("--norms", "wa")
    assert code == 2
    assert "nothing to train: M with wa, " in said
    assert "tune again: python run.py tune grid.yaml (or use --lr published)" in said


@pytest.mark.long
def test_a_trial_that_fails_is_named_and_the_rest_of_the_table_is_written(bench):
    b = bench({"wa": "raise"}, GRID.replace("lr: published", "lr: tuned\ntuned: tuned.yaml"))
    code, said = b.run(command="tune")
    assert code == 1
    assert "failed (ValueError: boom" in said or "failed: a->b M wa seed 100" in said
    assert "10 trials failed, and without them no rate is chosen; the same command tries" in said
    b.behave({})
    code, said = b.run(command="tune")
    assert code == 0, said
    assert "no rate" not in (b.folder / "tuned.yaml").read_text()
    assert b.run()[0] == 0


def test_the_driver_and_its_help_import_no_torch():
    code = (
        "import sys\n"
        "from da.cli import ablate, report, tune\n"
        "try: ablate.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'scipy', 'matplotlib', 'pydantic', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "from da.grids import ablation, rate_search\n"
        "from da.reports import report, terminal\n"
        "assert 'torch' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, "-c", code], check=True, env=environment, stdout=subprocess.DEVNULL
    )


@pytest.mark.parametrize("command", ["ablate", "tune", "report", "data", "bench"])
def test_help_keeps_its_lines_and_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as caught:
        importlib.import_module(f"da.cli.{command}").main(["--help"])
    assert caught.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(f"  python run.py {command} ") for line in lines)
    summary = run.commands()[command]
    assert any(line.startswith(summary) for line in lines)
    assert "`" not in summary


OFFICE = """
data: OfficeCaltech10
tasks: ["amazon->webcam"]
methods: [SourceOnly]
norms: [bn]
model: {backbone: resnet18}
epochs: 1
steps_per_epoch: 1
lr: published
published_lr: 0.01
tuned: tuned.yaml
tune: {task: "dslr->caltech"}
"""


def test_tune_refuses_to_judge_by_images_that_are_trained_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grid.yaml").write_text(OFFICE)
    assert run.main(["tune", "grid.yaml", "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert "source's validation accuracy can't judge a rate on OfficeCaltech10" in said
    assert run.main(["tune", "grid.yaml", "--dry-run", "--criterion", "NuclearNorm"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "criterion: NuclearNorm, on the target's validation images" in said
    assert "(transductive)" in said
    assert run.main(["tune", "grid.yaml", "--dry-run", "--criterion", "Entropy"]) == 2
    assert "tune.criterion: unknown score 'Entropy'" in capsys.readouterr().err
    (tmp_path / "grid.yaml").write_text(OFFICE + "data_args: {validation: 0.2}\n")
    assert run.main(["tune", "grid.yaml", "--dry-run"]) == 0
    assert "source's validation images: not trained on" in capsys.readouterr().out
