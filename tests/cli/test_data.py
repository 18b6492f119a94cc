import itertools
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from da.cli._data_list import describe
from da.cli.data import main
from da.errors import UserError
from datasets.fetching.downloads import Download
from datasets.files.array_checking import check_published_arrays
from datasets.files.benchmark import Benchmark
from datasets.files.image_sets import ArrayImages
from datasets.files.set_facts import SetFacts


def test_list_names_sets_domains_and_classes(capsys):
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert "datasets.digits.Digits" in shown
    assert "domains: rendered, optical, photo" in shown
    assert "to tune on: outlined -> sketched" in shown
    assert "10 classes: 0, 1, 2" in shown
    assert "where from: made from what is installed" in shown
    assert "read from the folder given as root" in shown


def test_a_published_set_is_described_with_all_that_it_states():
    class Pets(Benchmark):
        """Pets, in two looks."""

        title = "Pets"
        reference = "A. Author, Pets, 2020"
        licence = "research only"
        homepage = "example.org"
        domains = ("photo", "drawing")
        symbols: ClassVar = {"photo": "P", "drawing": "D"}
        classes = tuple(f"pet {i}" for i in range(20))
        counts: ClassVar = {"photo": 1234, "drawing/train": 5, "drawing/test": 6}

    short = describe(Pets)
    assert "  domains: photo (P, 1,234), drawing (D, train 5, test 6)" in short
    assert "  2 tasks: P→D, D→P" in short
    assert "  20 classes: " + ", ".join(Pets.classes[:12]) + ", ..." in short
    assert "  cite: A. Author, Pets, 2020" in short
    assert "  licence: research only" in short
    assert short[-1] == "  where from: by hand: python run.py data fetch Pets --root DIR says how"
    whole = describe(Pets, whole=True)
    assert "  20 classes: " + ", ".join(Pets.classes) in whole
    Pets.downloads = (Download("http://127.0.0.1/a.zip", "a.zip"),)
    assert describe(Pets)[-1] == "  where from: python run.py data fetch Pets --root DIR"


def test_list_of_one_set(capsys):
    assert main(["list", "Digits"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Digits (datasets.digits.Digits): ")
    assert "Folder" not in shown


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for domain, label, i in itertools.product("ab", ("cat", "dog"), range(3)):
        path = tmp_path / "set" / domain / label / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 9, 3), dtype=np.uint8)).save(path)
    return tmp_path / "set"


def test_check_of_a_folder(folder, capsys):
    (folder / "a/cat/notes.txt").write_text("x")
    assert main(["check", "Folder", "--root", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a: 6 images, 2 classes of 3 to 3"
    assert lines[1] == f"  found: a/CLASS/IMAGE in {folder}"
    assert lines[2] == "  passed over: 1 files that aren't called like images (.txt 1)"
    assert lines[3] == "  colour 6; 9 to 9 pixels wide, 8 to 8 high; none with EXIF rotation"
    assert lines[4].startswith("  manifest sha256 ")
    assert lines[-1] == "all is well: 12 images decoded, all can be read"


def test_check_names_bad_files_and_exits_with_2(folder, capsys):
    (folder / "a/cat/0.png").write_bytes(b"")
    (folder / "b/dog/1.png").write_text("no image")
    command = ["check", "--data", "datasets.folder.Folder", "--root", str(folder)]
    assert main(command) == 2
    lines = capsys.readouterr().out.splitlines()
    bad = [line for line in lines if line.startswith("bad: ")]
    assert len(bad) == 2
    assert f"'{folder / 'a/cat/0.png'}' can't be read: it is empty (zero bytes)" in bad[0]
    assert lines[-1] == "not well: 12 images decoded, 2 can't be read"
    assert main([*command, "--no-decode"]) == 2
    assert "12 images listed, none decoded, 1 can't be read" in capsys.readouterr().out


def test_a_sheet_of_files(folder, tmp_path, capsys):
    out = tmp_path / "sheet.png"
    assert main(["sheet", "Folder", "--root", str(folder), "--out", str(out)]) == 0
    with Image.open(out) as picture:
        assert len(picture.convert("RGB").getcolors(2**24)) > 100


def test_check_counts_and_sheet_draws(tmp_path, capsys):
    assert main(["check", "Digits", "--root", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 15
    assert lines[0].split()[:4] == ["rendered", "train", "1200", "images"]
    out = tmp_path / "sheet.png"
    assert main(["sheet", "--out", str(out), "--root", str(tmp_path), "--per_class", "2"]) == 0
    assert capsys.readouterr().out.strip() == f"wrote {out}"
    with Image.open(out) as picture:
        colours = picture.convert("RGB").getcolors(2**24)
    assert len(colours) > 1000, "the sheet is blank"


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["check", "--data", "Digit"], "unknown data set 'Digit'; did you mean 'Digits'?"),
        (["check", "--data", "datasets.digts.Digits"], "did you mean 'datasets.digits.Digits'?"),
        (["check", "Digit"], "unknown data set 'Digit'; did you mean 'Digits'?"),
        (["check", "Folder", "--root", "no"], "root 'no' is not a folder"),
        (["check", "Folder", "--workers", "-1"], "--workers: expected a whole number from 1"),
        (["check", "--dta", "Digits"], "unknown option '--dta'; did you mean '--data'?"),
        (["sheet", "--per_class", "z"], "--per_class: expected a whole number, got 'z'"),
        (["chek"], "invalid choice: 'chek'"),
        (["sheet"], "--out is missing"),
        (["sheet", "--out", "a.txt"], "end it in .png, .pdf or .svg"),
        (["sheet", "--out", "no/such/a.png"], "create it first"),
        (["sheet", "--out", "a.png", "--per_class", "0"], "it must be at least 1"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(argv, text):
    with pytest.raises(UserError) as caught:
        main(argv)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


class Arrays(SetFacts):
    """As much of a set in memory with published lists as a check asks for."""

    domains = ("one", "two", "three")
    symbols: ClassVar = {"one": "O", "two": "W"}
    counts: ClassVar = {"one/train": 4, "one/test": 4, "two/train": 4, "two/test": 4}
    missing: tuple[str, ...] = ("three",)

    def __init__(self, source, target, root):
        assert source != target

    @classmethod
    def tasks(cls):
        return ("O→W",)

    def read_split(self, domain, split):
        if domain in self.missing:
            raise UserError(f"{domain} is not there")
        pixels = np.zeros((4, 3, 2, 2), np.uint8)
        return ArrayImages(pixels, np.arange(4) % 2, ("x", "y"))


def test_check_of_arrays_with_published_counts():
    text, well = check_published_arrays(Arrays, None)
    assert well
    assert text.splitlines()[-1] == "note: three is not there"

    class Fewer(Arrays):
        counts: ClassVar = {**Arrays.counts, "two/test": 5}

    text, well = check_published_arrays(Fewer, None)
    assert not well
    assert "differs: two/test: 4 images, published are 5" in text.splitlines()

    class Gone(Arrays):
        missing = ("one",)

    text, well = check_published_arrays(Gone, None)
    assert not well
    assert "differs: one is not there" in text.splitlines()
