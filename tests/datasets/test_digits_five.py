import bz2
import contextlib
import gzip
import hashlib
import io
import json
import os
import pty
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torchvision.datasets as published
from long_cases import rest_long
from PIL import Image
from refusing import refused

import run
from da.errors import UserError
from datasets.digits_five import DigitsFive
from datasets.fetching import downloads
from datasets.files.digit_files import READERS, read_digits

RNG = np.random.default_rng(0)
LABELS = np.arange(40) % 10
IMAGES = RNG.integers(0, 256, (40, 28, 28), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)


def idx(values):
    kind = {3: 0x803, 1: 0x801}[values.ndim]
    return struct.pack(f">{1 + values.ndim}I", kind, *values.shape) + values.tobytes()


def published_content():
    """The downloads by name, in their formats."""
    found = {}
    for part in ("train", "t10k"):
        found[f"{part}-images-idx3-ubyte.gz"] = gzip.compress(idx(IMAGES))
        found[f"{part}-labels-idx1-ubyte.gz"] = gzip.compress(idx(LABELS.astype(np.uint8)))
    # USPS: labels from 1, values from -1 to 1.
    values = IMAGES[:, 6:22, 6:22].reshape(40, -1) / 127.5 - 1
    rows = [
        f"{k + 1} " + " ".join(f"{i}:{x:.6f}" for i, x in enumerate(v, 1))
        for k, v in zip(LABELS, values, strict=True)
    ]
    for name in ("usps.bz2", "usps.t.bz2"):
        found[name] = bz2.compress("\n".join(rows).encode())
    # SVHN: zero is called 10.
    for part in ("train", "test"):
        ten = np.where(LABELS == 0, 10, LABELS)[:, None].astype(np.uint8)
        buffer = io.BytesIO()
        scipy.io.savemat(buffer, {"X": COLOUR.transpose(1, 2, 3, 0), "y": ten})
        found[f"{part}_32x32.mat"] = buffer.getvalue()
    return found


CONTENT = published_content()


@pytest.fixture
def root(tmp_path, monkeypatch):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    known = {}
    for name, content in CONTENT.items():
        if name.endswith(".gz"):
            (raw / name.removesuffix(".gz")).write_bytes(gzip.decompress(content))
        else:
            (tmp_path / name).write_bytes(content)
    for part in ("train", "test"):
        name = f"{part}_32x32.mat"
        known[part] = ["", name, hashlib.md5(CONTENT[name]).hexdigest()]  # which is compared
        mat = tmp_path / "SynthDigits" / f"synth_{part}_32x32.mat"
        mat.parent.mkdir(exist_ok=True)
        content = {"X": COLOUR.transpose(1, 2, 3, 0), "y": LABELS[:, None].astype(np.uint8)}
        scipy.io.savemat(mat, content)
    monkeypatch.setattr(published.SVHN, "split_list", known)
    for part in ("train", "test"):
        folder = tmp_path / "mnist_m" / f"mnist_m_{part}"
        folder.mkdir(parents=True)
        for i, image in enumerate(COLOUR):
            Image.fromarray(image).save(folder / f"{i:08d}.png")
        rows = [f"{i:08d}.png {k}" for i, k in enumerate(LABELS)]
        (tmp_path / "mnist_m" / f"mnist_m_{part}_labels.txt").write_text("\n".join(rows))
    return tmp_path


def build(root, source="mnist", target="usps", **options):
    return DigitsFive(source, target, root=str(root), batch_size=4, **options)


@pytest.mark.parametrize("domain", READERS)
@pytest.mark.parametrize("train", [True, False])
def test_every_domain_is_read_as_it_is_published(root, domain, train):
    found = READERS[domain](root, train)
    assert found.labels.tolist() == LABELS.tolist()
    assert found.images.dtype == np.uint8
    expected = {"mnist": IMAGES, "usps": IMAGES[:, 6:22, 6:22]}.get(domain, COLOUR)
    assert found.images.shape == expected.shape
    assert np.abs(found.images.astype(int) - expected).max() <= (domain == "usps")


def test_mnistm_in_folders_of_classes(tmp_path):
    for part in ("training", "testing"):
        for i, image in enumerate(COLOUR):
            folder = tmp_path / "MNIST-M" / part / str(LABELS[i])
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{i:04d}.png")
    for train in (True, False):
        found = READERS["mnistm"](tmp_path, train)
        order = np.argsort(LABELS, kind="stable")
        assert found.labels.tolist() == LABELS[order].tolist()
        assert np.array_equal(found.images, COLOUR[order])


@pytest.mark.parametrize(
    ("domain", "folder", "archive"),
    [("mnistm", "mnist_m", "mnist_m.tar.gz"), ("synth", "SynthDigits", "SynthDigits.zip")],
)
def test_archives_need_not_be_unpacked_by_hand(root, domain, folder, archive):
    kind = "zip" if archive.endswith(".zip") else "gztar"
    shutil.make_archive(str(root / archive.partition(".")[0]), kind, root, folder)
    shutil.rmtree(root / folder)
    for train in (True, False):
        assert np.array_equal(read_digits(domain, root, train).images, COLOUR)
    refused(lambda: read_digits(domain, root / "MNIST", True), "can't be read", "data fetch")
    # One that is replaced is not taken from what it was.
    with zipfile.ZipFile(root / "new.zip", "w") as out:
        out.writestr("nothing.txt", "")
    (root / "new.zip").replace(root / f"{archive.partition('.')[0]}.zip")
    (root / "mnist_m.tar.gz").unlink(missing_ok=True)
    refused(lambda: read_digits(domain, root, True), "can't be read")


def test_all_have_three_channels_and_the_size_asked_for(root):
    for size, (source, target) in ((28, ("mnist", "usps")), (32, ("svhn", "mnistm"))):
        batch = next(iter(build(root, source, target, image_size=size).train_dataloader()))
        for part in batch:
            assert part.images.shape == (4, 3, size, size)
            assert -1 <= part.images.min() < part.images.max() <= 1
    grey = build(root).set_of("source", "test").images(np.arange(40)).numpy()
    assert np.array_equal(grey, np.repeat(IMAGES[:, None], 3, axis=1))


def test_the_published_splits(root):
    data = build(root, validation=0.25)
    sizes = {s: len(data.set_of("source", s)) for s in ("train", "validation", "test")}
    assert sizes == {"train": 30, "validation": 10, "test": 40}
    limited = type("Limited", (DigitsFive,), {"evaluation_limit": 7})
    data = limited("mnist", "usps", root=str(root), batch_size=4)
    assert [len(data.set_of("source", s)) for s in ("train", "validation", "test")] == [40, 7, 7]
    assert [len(data.set_of("target", s)) for s in ("validation", "test")] == [7, 40]


def test_what_is_missing_or_wrong_is_one_line(root, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    for domain in READERS:
        other = "usps" if domain == "mnist" else "mnist"
        with pytest.raises(UserError) as caught:
            build(empty, domain, other).set_of("source", "train")
        assert "\n" not in str(caught.value)
        assert "data fetch DigitsFive" in str(caught.value)
    for options, words in (
        ({"image_size": 0}, "image_size is 0"),
        ({"validation": 1.0}, "validation is 1.0"),
        ({"source": "letters"}, "unknown domain 'letters'"),
    ):
        with pytest.raises(UserError, match=words):
            build(root, **options)
    with pytest.raises(UserError, match="root is missing"):
        DigitsFive("mnist", "usps")


def test_a_broken_file_is_one_line_whatever_its_reader_raises(root):
    for path in [p for p in root.rglob("*") if p.is_file()]:
        path.write_bytes(path.read_bytes()[:-50] if path.suffix != ".txt" else b"a.png\n")
    for domain in READERS:
        for train in (True, False):
            module = build(root, domain, "usps" if domain == "mnist" else "mnist")
            refused(lambda d=domain, t=train, m=module: m._all(d, t))


@pytest.fixture
def elsewhere(server, monkeypatch):
    """The addresses that torchvision publishes, on a server of ours; gives them as a dict."""
    served, address, _ = server
    md5 = {}
    for name, content in CONTENT.items():
        (served / name).write_bytes(content)
        md5[name] = hashlib.md5(content).hexdigest()
    usps, svhn = (
        {part: [f"{address}/{name}", name, md5[name]] for part, name in pair}
        for pair in (
            (("train", "usps.bz2"), ("test", "usps.t.bz2")),
            (("train", "train_32x32.mat"), ("test", "test_32x32.mat")),
        )
    )
    found = {
        "mirrors": [f"{address}/", f"{address}/second/"],
        "resources": [(name, md5[name]) for name in CONTENT if name.endswith(".gz")],
        "usps": usps,
        "svhn": svhn,
    }
    monkeypatch.setattr(published.MNIST, "mirrors", found["mirrors"])
    monkeypatch.setattr(published.MNIST, "resources", found["resources"])
    monkeypatch.setattr(published.USPS, "split_list", usps)
    monkeypatch.setattr(published.SVHN, "split_list", svhn)
    monkeypatch.setattr(downloads, "WAIT", 0.01)
    return found


def call(capsys, root):
    code = run.main(["data", "fetch", "DigitsFive", "--root", str(root)])
    said = capsys.readouterr()
    errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == (code != 0)
    assert "Traceback" not in said.err
    return code, said.out, said.err


def files(root):
    return {p.name for p in root.rglob("*") if p.is_file() and not p.name.endswith(".lock")}


WHOLE = {*CONTENT, *(name.removesuffix(".gz") for name in CONTENT if name.endswith(".gz"))}


def test_fetch_ends_in_sets_that_are_read_and_a_second_one_downloads_nothing(
    server, elsewhere, tmp_path, capsys
):
    code, out, err = call(capsys, tmp_path / "set")
    assert code == 0
    assert err == ""
    assert "svhn, test: 40 images" in out
    assert "by hand: MNIST-M: mnist_m.tar.gz" in out
    assert "synthetic digits: SynthDigits.zip" in out
    assert files(tmp_path / "set") == WHOLE
    for name in ("mnist", "usps", "svhn"):
        for train in (True, False):
            assert READERS[name](tmp_path / "set", train).labels.tolist() == LABELS.tolist()
    asked = list(server[2])
    assert len(asked) == len(CONTENT)
    raw = tmp_path / "set" / "MNIST" / "raw" / "train-images-idx3-ubyte"
    raw.write_bytes(raw.read_bytes()[:100])  # as torchvision leaves it when it is killed
    code, out, _ = call(capsys, tmp_path / "set")
    assert code == 0
    assert out.count("there already") == len(CONTENT)
    assert server[2] == asked
    assert raw.read_bytes() == idx(IMAGES)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("missing", "the server answers 404"),
        ("page", "gave a web page and not the file"),
        ("cut", "the connection was cut after"),
        ("other", "expected "),
        ("empty", "is empty"),
    ],
)
@pytest.mark.parametrize(
    "name",
    rest_long(["train-images-idx3-ubyte.gz", "usps.bz2", "test_32x32.mat"], ["usps.bz2"]),
)
def test_one_bad_file_is_one_line_and_stops_no_other(
    server, elsewhere, tmp_path, capsys, how, words, name
):
    served, root = server[0] / name, tmp_path / "set"
    if how == "missing":
        served.unlink()
    elif how == "cut":
        (server[0] / f"{name}.cut").touch()
    else:
        served.write_bytes(
            {"page": b"<!DOCTYPE html><html>Sorry</html>", "other": b"x" * 99, "empty": b""}[how]
        )
    code, _, err = call(capsys, root)
    assert code == 2
    assert words in err
    last = err.splitlines()[-1]
    assert last.startswith("error: Digits-Five: 1 of 8 files failed: ")
    assert name in last
    assert "MNIST-M: mnist_m.tar.gz" in last
    assert "synthetic digits" in last
    assert {n for n in files(root) if ".part" not in n} == WHOLE - {name, name.removesuffix(".gz")}
    served.write_bytes(CONTENT[name])
    (server[0] / f"{name}.cut").unlink(missing_ok=True)
    assert call(capsys, root)[0] == 0
    assert files(root) == WHOLE


def test_the_second_mirror_is_asked_where_the_first_has_not_got_it(
    server, elsewhere, tmp_path, capsys
):
    (server[0] / "second").mkdir()
    name = "t10k-images-idx3-ubyte.gz"
    (server[0] / name).rename(server[0] / "second" / name)
    assert call(capsys, tmp_path / "set")[0] == 0
    assert f"/second/{name}" in server[2]


def test_without_a_network_there_is_one_line_for_each_file(elsewhere, tmp_path, capsys):
    nowhere = "http://no-such-host.invalid/"
    elsewhere["mirrors"][:] = [nowhere]
    for split in (*elsewhere["usps"].values(), *elsewhere["svhn"].values()):
        split[0] = nowhere
    code, _, err = call(capsys, tmp_path / "set")
    assert code == 2
    assert err.count("no such host, or no connection to the internet") == 8
    assert err.count("\n") == 9
    assert files(tmp_path / "set") == set()


PROGRAM = """
import json, sys
import torchvision.datasets as published
import run
found = json.loads(sys.argv[1])
published.MNIST.mirrors, published.MNIST.resources = found["mirrors"], found["resources"]
published.USPS.split_list, published.SVHN.split_list = found["usps"], found["svhn"]
sys.exit(run.main(["data", "fetch", "DigitsFive", "--root", sys.argv[2]]))
"""


def start(found, root, stderr=subprocess.PIPE):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, json.dumps(found), str(root)],
        cwd=Path(run.__file__).parent,
        stdout=subprocess.PIPE,
        stderr=stderr,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


@pytest.fixture
def stalling():
    """The address of a server that sends a half of a file and then nothing."""
    listener = socket.create_server(("127.0.0.1", 0))
    held = []

    def serve():
        with contextlib.suppress(OSError):  # of a listener that is closed
            while True:
                connection, _ = listener.accept()
                connection.recv(10_000)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + bytes(500))
                held.append(connection)

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    listener.close()
    for connection in held:
        connection.close()


@pytest.mark.long
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_fetch_goes_on(server, elsewhere, stalling, tmp_path, capsys, how):
    asked, good = server[2], elsewhere["usps"]["train"][0]
    elsewhere["usps"]["train"][0] = stalling
    process = start(elsewhere, tmp_path / "set")
    part = tmp_path / "set" / "usps.bz2.part"
    while process.poll() is None and not part.exists():
        time.sleep(0.01)
    process.send_signal(how)
    _, err = process.communicate()
    assert process.returncode == (130 if how == signal.SIGINT else -how)
    assert err == (b"interrupted\n" if how == signal.SIGINT else b"")
    assert "usps.bz2" not in files(tmp_path / "set")
    elsewhere["usps"]["train"][0] = good
    asked.clear()
    assert call(capsys, tmp_path / "set")[0] == 0
    assert sorted(asked) == ["/test_32x32.mat", "/train_32x32.mat", "/usps.bz2", "/usps.t.bz2"]
    assert files(tmp_path / "set") == WHOLE


@pytest.mark.long
def test_a_terminal_gets_no_line_of_a_bar_that_is_over(elsewhere, tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = pty.openpty()
    process = start(elsewhere, tmp_path / "set", stderr=theirs)
    os.close(theirs)
    out, _ = process.communicate()
    said = os.read(ours, 100_000)
    os.close(ours)
    assert process.returncode == 0
    assert b"svhn, test: 40 images" in out
    assert b"usps.bz2" in said
    assert said.count(b"\r\n") <= 2 * len(CONTENT)
