"""report --against, from nothing but two runs.csv."""

import csv
from pathlib import Path

import numpy as np
import pytest
from refusing import refused
from scipy import stats

from da.cli import report
from da.reports.agreement import agreements, conclusions
from da.reports.agreement import rows as table_rows
from da.reports.runs import Column
from da.reports.runs_file import grouped, read_runs

ROOT = Path(__file__).parents[2]
WA, BN = Column("wa"), Column("bn")


def rows(differences, sizes=(32,), seeds=None):
    """Rows of a runs.csv: bn is at 50 %, wa is above by what is given, (tasks, seeds)."""
    made = []
    for task, by_seed in enumerate(differences):
        for seed, difference in zip(seeds or range(len(by_seed)), by_seed, strict=True):
            for norm, accuracy in (("bn", 0.5), ("wa", 0.5 + difference)):
                made += [
                    {
                        **{"lr_row": "tuned", "task": f"t{task}", "method": "M", "norm": norm},
                        **{"seed": str(seed), "backbone": "x", "batch_size": str(size)},
                        **{"lr": "0.1", "last": str(accuracy), "oracle": "0.99"},
                    }
                    for size in sizes
                ]
    return made


def write(path, content):
    path.mkdir(exist_ok=True)
    with (path / "runs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(content[0]))
        writer.writeheader()
        writer.writerows(content)
    return path


def noise(seed, shift=0.1, tasks=6, seeds=5):
    return np.random.default_rng(seed).normal(shift, 0.02, (tasks, seeds))


def test_the_difference_of_two_runs_is_paired_over_tasks_and_seeds():
    a, b = noise(1)[:1], noise(2)[:1]
    (line,) = agreements(grouped(rows(a)), grouped(rows(b)), WA, [BN])
    reference = stats.ttest_rel(a[0], b[0]).confidence_interval(0.95)
    assert (line.apart.low, line.apart.high) == pytest.approx((reference.low, reference.high))
    assert line.here.difference == pytest.approx(a.mean())
    assert line.agrees


def test_a_mark_that_differs_is_not_settled():
    clear, unclear = noise(1), noise(1, shift=0.01)
    lines = agreements(grouped(rows(clear)), grouped(rows(unclear)), WA, [BN])
    average = lines[0]
    assert (average.task, average.here.sign) == ("average", 1)
    assert [line.task for line in lines[1:]] == [f"t{i}" for i in range(6)]
    assert not average.agrees  # 9 points apart, and hardly any noise between the two
    task = next(line for line in lines[1:] if line.there.sign == 0)
    assert not task.settled
    assert f"not settled: wa - bn, M, {task.task}: the marks differ" in conclusions(lines)
    same = agreements(grouped(rows(clear)), grouped(rows(clear)), WA, [BN])
    assert all(line.agrees and line.settled and line.equal for line in same)
    assert conclusions(same) == [
        "7 of 7 differences agree: 0 is in the interval of their difference"
    ]


def test_more_seeds_here_than_there_are_compared_on_those_of_both():
    a = noise(1)
    lines = agreements(grouped(rows(a)), grouped(rows(a[:, :3])), WA, [BN])
    assert lines[0].equal
    assert (lines[0].here.n, lines[0].there.n) == (5, 3)
    assert (
        "seeds differ: M: here seeds 0, 1, 2, 3, 4; there seeds 0, 1, 2; here - there is of seeds "
        "0, 1, 2" in conclusions(lines)
    )


def test_what_cannot_be_tested_neither_agrees_nor_is_settled():
    here, there = noise(1)[:, :1], noise(2, shift=-0.1)[:, :1]  # one seed, and opposite signs
    lines = agreements(grouped(rows(here)), grouped(rows(there)), WA, [BN])
    assert conclusions(lines) == [
        "0 of 7 differences agree: 0 is in the interval of their difference; 7 not testable"
    ]
    assert {tuple(row[-2:]) for row in table_rows(lines)} == {("–", "–")}


def test_differences_that_cancel_over_tasks_are_not_equal():
    here = np.zeros((2, 3))
    here[0], here[1] = 0.05, -0.05
    lines = agreements(grouped(rows(here)), grouped(rows(np.zeros((2, 3)))), WA, [BN])
    assert [line.equal for line in lines] == [False] * 3
    assert conclusions(lines)[0].startswith("0 of 3 differences agree")
    assert all(row[-3] != "equal" for row in table_rows(lines))


def test_two_grids_without_anything_in_common_are_told_apart():
    here = rows(noise(1))
    for there, words in (
        ([dict(row, lr_row="published") for row in here], "there: M with bn, wa, published"),
        ([dict(row, task="x" + row["task"]) for row in here], "complete tasks: xt0, xt1"),
        ([dict(row, seed=str(5 + int(row["seed"]))) for row in here], "seeds 5, 6, 7, 8, 9"),
        (rows(noise(1), sizes=(8, 32)), "settings: batch_size 8; batch_size 32"),
        ([dict(row, last="") for row in here], "complete tasks: none"),
    ):
        refused(lambda there=there: agreements(grouped(here), grouped(there), WA, [BN]), words)


def test_what_is_swept_makes_groups_and_what_follows_the_task_does_not():
    assert list(grouped(rows(noise(1), sizes=(8, 32)))) == [
        ("tuned", "M", "batch_size 8"),
        ("tuned", "M", "batch_size 32"),
    ]
    rates = rows(noise(1)) + [dict(row, lr="0.01") for row in rows(noise(2))]
    assert list(grouped(rates)) == [("tuned", "M", "lr 0.1"), ("tuned", "M", "lr 0.01")]
    by_task = rows(noise(1))
    for row in by_task:
        row["batch_size"] = "8" if row["task"] == "t0" else "32"
    assert list(grouped(by_task)) == [("tuned", "M", "")]


def test_a_task_that_misses_a_seed_is_left_out():
    content = rows(noise(1))
    content[3]["last"] = ""  # pending or diverged
    (accuracies,) = grouped(content).values()
    assert list(accuracies.differences(WA, BN)) == [f"t{i}" for i in range(1, 6)]


def test_the_command_reads_committed_files_and_saves_a_table(tmp_path, capsys):
    committed = ROOT / "docs" / "results" / "digits"
    saved = tmp_path / "agreement.md"
    assert report.main([str(committed), "--against", str(committed / "runs.csv"),
                        "--save", str(saved)]) == 0  # fmt: skip
    said = capsys.readouterr().out
    assert "differences agree: 0 is in the interval of their difference" in said
    assert "not settled" not in said
    text = saved.read_text()
    assert "| method | difference | task | here | there | here - there | agree | settled |" in text
    assert "| SourceOnly, tuned | wa - bn | average |" in text
    assert not (committed / "scores.csv").exists()  # nothing was rebuilt


def test_what_cannot_be_compared_is_refused(tmp_path):
    here = write(tmp_path / "here", rows(noise(1)))
    refused(lambda: report.main([str(here), "--against", str(tmp_path)]), "holds no runs.csv")
    refused(lambda: report.main([str(here), "--save", "x.md"]), "--save: only with --against")
    absent = str(tmp_path / "nowhere")  # a wrong place to save is refused before anything is read
    for name, words in (
        ("", "--save: expected a file, got ''"),
        (str(tmp_path), ", a folder"),
        (str(here / "runs.csv" / "x.md"), "runs.csv' is a file, and was to be the folder of"),
    ):
        line = [str(here), "--against", absent, "--save", name]
        refused(lambda line=line: report.main(line), words)
    other = rows(noise(1))
    for row in other:
        row["method"] = "N"
    there = write(tmp_path / "there", other)
    refused(
        lambda: report.main([str(here), "--against", str(there)]),
        "nothing to compare: expected wa - bn",
        "here: M with bn, wa, tuned learning rate, complete tasks: t0, t1, t2, t3, t4, t5, ",
        "t5, seeds 0, 1, 2, 3, 4; there: N",
    )
    (there / "runs.csv").write_text("a,b\n1,2\n")
    refused(lambda: read_runs(there), "expected a table that report writes")
