import pytest
from PIL import Image

from da.commands.data import main
from da.errors import UserError


def test_list_names_sets_domains_and_classes(capsys):
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert "datasets.digits.Digits" in shown
    assert "domains: rendered, optical, photo" in shown
    assert "to tune on: outlined -> sketched" in shown
    assert "10 classes: 0, 1, 2" in shown


def test_check_counts_and_sheet_draws(tmp_path, capsys):
    assert main(["check", "--data", "Digits", "--root", str(tmp_path)]) == 0
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
