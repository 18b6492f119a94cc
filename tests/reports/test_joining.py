"""Grids of the same settings as one, and others refused by what differs."""

import csv
from pathlib import Path

import pytest
from made_grids import fill, made_grid, noisy
from refusing import refused

from da.cli import report
from da.grids import plan as plans
from da.ops.csv_text import csv_text
from da.reports.formats.csv_tables import table_rows
from da.reports.joining import join
from da.reports.tables import tables
from da.reports.texts import missing, partial


def grid_in(folder, change=lambda cell, result: None, accuracy=noisy, **settings):
    plan, _ = fill(folder, made_grid(**settings), accuracy, change=change)
    plans.write(folder, plan)
    return str(folder)


def test_seeds_of_two_folders_are_one_grid_and_every_run_names_its_folder(tmp_path, capsys):
    first, second = (
        grid_in(tmp_path / str(i), seeds=seeds) for i, seeds in ((1, (0,)), (2, (1, 2)))
    )
    plan, runs = fill(tmp_path / "whole", made_grid(seeds=(0, 1, 2)), noisy)
    assert report.main([first, second]) == 0
    out = tmp_path / "1+2"
    assert f"written: {out}/report.html" in capsys.readouterr().out
    assert (out / "table.csv").read_text() == csv_text(table_rows(tables(plan, runs)))
    with (out / "runs.csv").open() as file:
        places = {row["seed"]: row["folder"] for row in csv.DictReader(file)}
    assert places["0"].startswith("../1/cells/")
    assert places["2"].startswith("../2/cells/")
    assert (out / places["2"] / "result.json").is_file()


def test_what_no_folder_has_is_missing(tmp_path):
    folders = [
        Path(grid_in(tmp_path / "one", tasks=("a->b",), seeds=(0, 1))),
        Path(grid_in(tmp_path / "two", tasks=("a->c",), seeds=(1, 2))),
    ]
    _, runs = join(folders, tmp_path, "report")
    assert partial(runs).startswith("partial: 8 of 12 runs finished, 4 missing")
    assert [text.partition(" (")[0] for text in missing(runs)] == [
        *("a->c M bn seed 0", "a->c M wa seed 0", "a->b M bn seed 2", "a->b M wa seed 2")
    ]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch_size": 64}, "got batch_size 32 in "),
        ({"norms": {"bn": {}, "wa": {"gain": "balanced"}}}, "got norms.wa {} in "),
        ({"published_lr": 0.1}, "got for a->b, M, bn lr 0.01 and 0.1 in "),
        ({"methods": {"N": {}}, "norms": {"gn": {}}}, "none has M with gn; expected grids that"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path, settings, words):
    here = grid_in(tmp_path / "here")
    there = grid_in(tmp_path / "there", **settings)
    refused(lambda: report.main([here, there]), words)
    assert not (tmp_path / "here+there").exists()


def test_other_images_are_refused_by_their_checksums(tmp_path):
    def of(letter):
        def change(cell, result):
            result.data_manifest = letter * 64

        return change

    here = grid_in(tmp_path / "here", of("a"), seeds=(0,))
    there = grid_in(tmp_path / "there", of("b"), seeds=(1,))
    refused(lambda: report.main([here, there]), "the same images", "aaaaaaaaaaaa and bbbbbbbbbbbb")


def test_a_report_never_goes_into_another_grid_and_no_option_is_dropped(tmp_path):
    here, there = grid_in(tmp_path / "here"), grid_in(tmp_path / "there", seeds=(3,))
    refused(lambda: report.main([here, "--out", there]), "holds another grid")
    refused(lambda: report.main([here, here]), "is given twice")
    refused(lambda: report.main([here, "--against", there, "--full"]), "--full: not with --against")
    refused(lambda: report.main([here, there, "--against", there]), "expected one folder before it")
    refused(lambda: report.main([here, "--pictures"]), "kept no checkpoints")
