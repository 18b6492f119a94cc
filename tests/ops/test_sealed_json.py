import json
import math

import pytest
from refusing import refused

from da.ops.sealed_json import parse_sealed, read_sealed, seal_json, write_sealed

CONTENT = {
    "task": "rendered→optical",
    "accuracy": 0.1 + 0.2,
    "small": 1e-7,
    "epochs": (1, 2, 10),
    "scores": {"last": {"n": 400, "accuracy": 0.875}, "none": None},
    "by_number": {10: "a", 9: "b"},
    "path": "broken \udc80 name",
}
PLAIN = json.loads(json.dumps(CONTENT))


@pytest.fixture
def path(tmp_path):
    write_sealed(tmp_path / "result.json", CONTENT)
    return tmp_path / "result.json"


def read(path):
    return read_sealed(path, "result", "run it again")


@pytest.mark.parametrize("indent", [1, 4, None])
def test_what_is_written_is_read_to_the_last_digit(tmp_path, indent):
    write_sealed(tmp_path / "f", CONTENT, indent)
    content, sealed = read(tmp_path / "f")
    assert (content, sealed) == (PLAIN, True)
    assert list(content) == list(CONTENT)


def test_it_stays_readable_for_people_and_other_programs(path):
    text = path.read_text()
    assert '\n "task": "rendered→optical",\n' in text
    fields = json.loads(text)
    assert list(fields)[-1] == "sha256"
    assert len(fields["sha256"]) == 64


def test_layout_and_order_do_not_count(path):
    fields = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(fields.items())), indent=8))
    assert read(path).content == PLAIN


def test_an_edited_number_is_refused_by_name(path):
    path.write_text(path.read_text().replace("0.875", "0.975"))
    text = refused(lambda: read(path), "result: ", str(path), "is damaged", "; run it again")
    assert "its checksum does not match" in text


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace('"n": 400', '"n": 401'),
        lambda text: text.replace('"n": 400', '"n": 400.0'),
        lambda text: text.replace('"n": 400', '"n": true'),
        lambda text: text.replace('"n": 400', '"n": 1e999'),
        lambda text: text.replace('"n": 400', '"n": NaN'),
        lambda text: text.replace('"n": 400', '"n": 300, "n": 400'),
        lambda text: text.replace('"n": 400', '"n": 400, "m": 1'),
        lambda text: text.replace("optical", "optica1"),
        lambda text: text.replace('"sha256"', '"sha257"'),
        lambda text: text[: len(text) // 2],
        lambda text: text[:-2],
        lambda text: "",
        lambda text: "[1, 2]",
        lambda text: "[" * 100_000,
    ],
)
def test_any_other_change_is_refused_too(path, edit):
    changed = edit(path.read_text())
    path.write_text(changed)
    refused(lambda: read(path), f"'{path}' is damaged: it")


def test_no_flipped_bit_changes_what_is_read(path):
    whole = path.read_bytes()
    passed = 0
    for i in range(len(whole)):
        for bit in range(8):
            flipped = bytearray(whole)
            flipped[i] ^= 1 << bit
            try:
                content, sealed = parse_sealed(bytes(flipped))
            except ValueError:
                continue
            passed += 1
            assert (content, sealed) == (PLAIN, True)
    assert passed < 10  # 1e-07 may be spelt 1E-07


def test_an_older_file_without_a_checksum_is_told_apart(tmp_path):
    (tmp_path / "old.json").write_text('{"accuracy": 0.5}')
    assert read(tmp_path / "old.json") == ({"accuracy": 0.5}, False)
    (tmp_path / "old.json").write_text("{}")
    assert read(tmp_path / "old.json") == ({}, False)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_json_cannot_hold_is_refused_and_nothing_written(tmp_path, bad):
    with pytest.raises(ValueError, match="JSON"):
        write_sealed(tmp_path / "f", {"loss": [1.0, bad]})
    assert not list(tmp_path.iterdir())


def test_a_field_of_the_checksums_name_is_refused():
    with pytest.raises(ValueError, match="sha256"):
        seal_json({"sha256": "mine"})


def test_a_file_that_is_absent_or_a_folder_is_named(tmp_path):
    refused(lambda: read(tmp_path / "none"), f"no file '{tmp_path / 'none'}'; run it again")
    refused(lambda: read(tmp_path), f"'{tmp_path}' can't be read (Is a directory)")
