import bz2
import hashlib
import struct

import numpy as np
import pytest
import scipy.io
import torchvision.datasets as published
from PIL import Image

from da.errors import UserError
from datasets.digits_five import READERS, DigitsFive

RNG = np.random.default_rng(0)
LABELS = np.arange(40) % 10
IMAGES = RNG.integers(0, 256, (40, 28, 28), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)


def idx(values):
    kind = {3: 0x803, 1: 0x801}[values.ndim]
    return struct.pack(f">{1 + values.ndim}I", kind, *values.shape) + values.tobytes()


@pytest.fixture
def root(tmp_path, monkeypatch):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(IMAGES))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(LABELS.astype(np.uint8)))
    # USPS: labels from 1, values from -1 to 1.
    values = IMAGES[:, 6:22, 6:22].reshape(40, -1) / 127.5 - 1
    rows = [
        f"{k + 1} " + " ".join(f"{i}:{x:.6f}" for i, x in enumerate(v, 1))
        for k, v in zip(LABELS, values, strict=True)
    ]
    for name in ("usps.bz2", "usps.t.bz2"):
        (tmp_path / name).write_bytes(bz2.compress("\n".join(rows).encode()))
    # SVHN: zero is called 10, and torchvision compares a checksum.
    known = {}
    for part in ("train", "test"):
        file = tmp_path / f"{part}_32x32.mat"
        ten = np.where(LABELS == 0, 10, LABELS)[:, None].astype(np.uint8)
        scipy.io.savemat(file, {"X": COLOUR.transpose(1, 2, 3, 0), "y": ten})
        known[part] = ["", file.name, hashlib.md5(file.read_bytes()).hexdigest()]
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
