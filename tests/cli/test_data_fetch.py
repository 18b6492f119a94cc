import hashlib
import re

import run
from datasets.domainnet import DomainNet, DomainNet126
from datasets.fetching.downloads import Download
from datasets.office31 import Office31


def call(capsys, words):
    code = run.main(["data", "fetch", *words.split()])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_what_no_program_can_get_is_explained(capsys, tmp_path):
    code, out, err = call(capsys, f"Office31 --root {tmp_path}/set")
    assert code == 2
    assert "cite: Saenko" in out
    assert err.count("\n") == 1
    assert "Office-31 can't be downloaded by a program: open https://faculty.cc.gatech.edu" in err
    assert not (tmp_path / "set").exists()


def test_what_has_nothing_to_download_and_wrong_names(capsys):
    assert call(capsys, "Digits")[0] == 2
    code, _, err = call(capsys, "Office32")
    assert (code, "did you mean" in err) == (2, True)
    assert "name the data set" in call(capsys, "")[2]


def test_a_set_is_downloaded_and_the_next_step_said(capsys, tmp_path, monkeypatch, server):
    content = b"a.jpg 0\n"
    served, address, _ = server
    (served / "list.txt").write_bytes(content)
    found = Download(
        f"{address}/list.txt",
        "list.txt",
        sha256=hashlib.sha256(content).hexdigest(),
        unpack=False,
    )
    monkeypatch.setattr(Office31, "downloads", (found,))
    monkeypatch.setenv("no_proxy", "*")
    code, out, _ = call(capsys, f"Office31 --root {tmp_path}/set")
    assert code == 0
    assert (tmp_path / "set" / "list.txt").read_bytes() == content
    assert f"next: python run.py data check Office31 --root {tmp_path}/set" in out


def test_what_is_published_of_domainnet_is_compared():
    for found in DomainNet.downloads:
        assert re.fullmatch("[0-9a-f]{64}", found.sha256)
        assert found.address.endswith(f"/{found.file}")
        assert found.unpack == found.file.endswith(".zip")
    # Every line of quickdraw's lists has the same length but for its class.
    size = {found.file: found.size for found in DomainNet.downloads}
    assert size["quickdraw_train.txt"] * 3 == size["quickdraw_test.txt"] * 7
    assert len({found.sha256 for found in DomainNet.downloads}) == 18
    archives = [found for found in DomainNet126.downloads if found.unpack]
    assert [found.size for found in archives] == [size[found.file] for found in archives]
