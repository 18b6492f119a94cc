import io
import random
import subprocess
import sys
import time
import zipfile

import pytest
import torch
from fake_cells import ENVIRONMENT
from refusing import refused
from safetensors.torch import save_file

from da.ops.tensor_files import read_tensors, write_checkpoint

CONTENT = {"epoch": 3, "weights": {"a": torch.arange(300.0), "b": torch.ones(2, 3).bfloat16()}}
ADVICE = "give another"


def read(path):
    return read_tensors("checkpoint", str(path), ADVICE)


def same(content):
    weights = content["weights"]
    return content["epoch"] == 3 and all(
        torch.equal(weights[name], value) for name, value in CONTENT["weights"].items()
    )


@pytest.fixture
def path(tmp_path):
    write_checkpoint(tmp_path / "new" / "last.ckpt", CONTENT)
    return tmp_path / "new" / "last.ckpt"


def test_what_is_written_is_read(path):
    assert same(read(path))
    assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"]


def test_torch_and_other_readers_read_on_as_if_there_were_no_checksum(path):
    assert same(torch.load(path))
    assert same(torch.load(path, mmap=True))
    assert same(torch.load(io.BytesIO(path.read_bytes())))
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"sha256:")


def test_every_flipped_bit_is_refused_by_name(path):
    whole = path.read_bytes()
    chance = random.Random(0)
    places = {*range(8), *range(len(whole) - 100, len(whole))}  # where ZIP files begin and end
    places |= {chance.randrange(len(whole)) for _ in range(400)}
    for place in places:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        text = refused(lambda: read(path), f"checkpoint: '{path}' is damaged: ", ADVICE)
        assert "its checksum does not match" in text, place


@pytest.mark.parametrize("cut", [1, 71, 72, 93, 1000])
def test_a_file_cut_short_is_refused_by_name(path, cut):
    path.write_bytes(path.read_bytes()[:-cut])
    refused(lambda: read(path), f"'{path}'", "cut short", ADVICE)


def test_bytes_at_the_end_or_in_the_middle_are_refused(path):
    whole = path.read_bytes()
    for changed in (whole + b"\0", whole[:500] + b"\0" + whole[500:]):
        path.write_bytes(changed)
        refused(lambda: read(path), f"'{path}' is damaged")


def test_files_of_torch_itself_are_read_and_their_tensors_verified(tmp_path):
    path = tmp_path / "theirs.pth"
    torch.save(CONTENT, path)
    assert same(read(path))
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        (info,) = [info for info in archive.infolist() if info.file_size == 1200]
    begin = whole.index(torch.arange(300.0).numpy().tobytes())
    for place in range(begin, begin + info.file_size, 37):
        flipped = bytearray(whole)
        flipped[place] ^= 64
        path.write_bytes(flipped)
        text = refused(lambda: read(path), f"checkpoint: '{path}' is damaged", info.filename)
        assert "does not match" in text


def test_files_that_were_saved_without_any_checksum_are_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(CONTENT, tmp_path / "none.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    torch.save(CONTENT, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file({"a": torch.ones(3)}, tmp_path / "a.safetensors")
    assert same(read(tmp_path / "none.pth"))
    assert same(read(tmp_path / "old.pth"))
    assert torch.equal(read(tmp_path / "a.safetensors")["a"], torch.ones(3))


def test_code_is_never_run(tmp_path, path, monkeypatch):
    write_checkpoint(tmp_path / "code.ckpt", {"x": print})
    refused(lambda: read(tmp_path / "code.ckpt"), "it is no file of tensors")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    refused(lambda: read(path), "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD lets files run code; unset it")


def test_a_full_disk_leaves_the_last_checkpoint_whole(path):
    code = (
        "import resource, signal, sys, torch; from pathlib import Path\n"
        "from da.ops.tensor_files import write_checkpoint\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "write_checkpoint(Path(sys.argv[1]), torch.zeros(100_000))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert "File too large" in done.stderr
    assert same(read(path))
    assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"]


def test_verifying_takes_a_fraction_of_a_second(tmp_path):
    path = tmp_path / "large.ckpt"
    write_checkpoint(path, torch.randn(6 * 2**20))
    start = time.process_time()
    read(path)
    assert time.process_time() - start < 2  # 24 MB; a hundredth of that on an idle machine
