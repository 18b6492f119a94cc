"""What every data set found on disk must do."""

import bz2
import inspect
import itertools
import struct
from typing import get_args

import numpy as np
import pytest
import torch
from long_cases import rest_long
from PIL import Image

from da.data_sets import as_data_set, data_sets
from da.discovery import subclasses
from da.engine.components import parameters_of
from da.errors import UserError
from da.types import (
    Batch,
    DataModule,
    DataSet,
    ImagesOfDomain,
    ImageTransform,
    Labelled,
    Origin,
    Unlabelled,
)
from datasets.base import ROLES, SPLITS, DomainData
from datasets.files.benchmark import Benchmark

FOUND = subclasses("datasets", DomainData)
OPTIONS = tuple(inspect.signature(DomainData.__init__).parameters)[1:]


# DomainNet is two times 345 classes; DomainNet126, whose splits are lists as well, has 126.
@pytest.fixture(scope="module", params=rest_long(FOUND, set(FOUND) - {"DomainNet"}))
def found(request, tmp_path_factory):
    """A class and a folder of two domains, for sets that read one; others keep files in it."""
    root = tmp_path_factory.mktemp(request.param)
    cls = FOUND[request.param]
    if request.param == "DigitsFive":
        digits(root)
        return cls, str(root)
    domains, classes = ("one", "two"), ("cat", "dog")
    if issubclass(cls, Benchmark):
        domains, classes = cls.domains[:2], cls.classes
    lists = cls.lists if issubclass(cls, Benchmark) else {}
    if request.param == "ImageList":
        lists = {domain: (f"{domain}.txt",) for domain in domains}
    tree(root, domains, classes, lists)
    return cls, str(root)


def tree(root, domains, classes, lists):
    """A small tree of every class, with the list files that the set is known with."""
    rng = np.random.default_rng(0)
    each = 5 if len(classes) < 30 else 2
    for domain in domains:
        names = [f"{domain}/{c}/{i}.png" for c, i in itertools.product(classes, range(each))]
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)
        rows = [f"{name} {i // each}" for i, name in enumerate(names)]
        for split, chosen in (
            ("", rows),
            ("/train", [row for i, row in enumerate(rows) if i % each]),
            ("/test", rows[::each]),
        ):
            for file in lists.get(f"{domain}{split}", ())[:1]:
                (root / file).parent.mkdir(exist_ok=True)
                (root / file).write_text("\n".join(chosen))


def digits(root):
    """MNIST and USPS as they are published, ten images of each digit."""
    rng = np.random.default_rng(0)
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    labels = np.arange(100, dtype=np.uint8) % 10
    for part, file in (("train", "usps.bz2"), ("t10k", "usps.t.bz2")):
        images = rng.integers(0, 256, (100, 28, 28), dtype=np.uint8)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(
            struct.pack(">IIII", 0x803, 100, 28, 28) + images.tobytes()
        )
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(
            struct.pack(">II", 0x801, 100) + labels.tobytes()
        )
        lines = []
        for label in labels:
            values = rng.uniform(-1, 1, 256)
            lines.append(
                f"{label + 1} " + " ".join(f"{i}:{v:.4f}" for i, v in enumerate(values, 1))
            )
        (root / file).write_bytes(bz2.compress("\n".join(lines).encode()))


@pytest.fixture
def make(found):
    cls, folder = found
    source, target, *_ = cls.available(folder)
    torch.set_num_threads(1)

    def build(**options):
        given = {"source": source, "target": target, "root": folder, "batch_size": 4}
        return cls(**given | {"steps_per_epoch": 3} | options)

    return build


def flat(batches):
    return [
        tensor
        for b in batches
        for part in (b.source, b.target)
        for tensor in (*part.views, *part[1:])
    ]


def equal(first, second):
    first, second = flat(first), flat(second)
    return len(first) == len(second) and all(map(torch.equal, first, second))


def test_it_takes_the_common_options(make):
    names = parameters_of(type(make()))
    assert set(OPTIONS) <= set(names)


def test_known_before_anything_is_loaded(make):
    data = make()
    assert data.num_classes == len(data.classes) > 1
    assert data.task == f"{data.source}->{data.target}"
    assert len(data.mean) == len(data.std) == 3
    assert data.image_size > 0
    assert data._sets == {}


def test_it_is_a_data_module_by_the_protocol_that_the_library_uses(make):
    data = make()
    assert isinstance(data, DataModule)
    assert isinstance(data, DataSet)
    assert isinstance(data.transform, ImageTransform)
    assert isinstance(data.set_of("target", "test"), ImagesOfDomain)
    assert as_data_set(type(data)) is type(data)
    assert data_sets()[type(data).__name__] is type(data)
    assert [data.domain_of(role) for role in ROLES] == [data.source, data.target]


def test_its_class_says_what_grids_and_the_commands_about_data_ask(make):
    kind = type(make())
    assert all(isinstance(name, str) for name in (kind.title, kind.reference, kind.licence))
    assert set(kind.symbols) <= set(kind.domains)
    assert {key.partition("/")[0] for key in kind.counts} <= set(kind.domains)
    assert bool(kind.domains) == bool(kind.classes) == bool(kind.tasks())
    assert kind.version >= 1
    assert kind.origin() in get_args(Origin)
    if kind.origin() in ("downloaded", "got by hand"):
        assert kind.title
        assert kind.reference
    else:
        with pytest.raises(UserError, match="nothing to download"):
            kind.fetch("nowhere")


def test_it_checks_itself_and_its_presence(make, found):
    data = make()
    for domain in (data.source, data.target):
        data.check_presence(domain)
    check = type(data).check(found[1], workers=1)
    assert data.source in check.text
    assert check.well in (True, False)


def test_a_fingerprint_is_computed_once(make, monkeypatch):
    data = make()
    first = data.manifest
    for role, split in itertools.product(ROLES, SPLITS):
        images = data.set_of(role, split)
        monkeypatch.setattr(type(images), "compute_fingerprint", lambda self: 1 / 0)
    assert data.manifest == first
    data.set_of("source", "train").fingerprint()


def test_training_batches_are_well_formed_and_hold_no_target_labels(make):
    data = make()
    batches = list(data.train_dataloader())
    assert len(batches) == data.steps == 3
    side = data.image_size
    for batch in batches:
        assert isinstance(batch, Batch)
        assert type(batch.target) is Unlabelled
        assert batch.target._fields == ("views", "indices")
        for part in batch:
            assert part.images.shape == (4, 3, side, side)
            assert part.images.dtype == torch.float32
            assert part.images.isfinite().all()
            assert part.indices.shape == (4,)
            assert part.indices.dtype == torch.int64
        assert batch.source.labels.dtype == torch.int64
        assert 0 <= batch.source.labels.min() <= batch.source.labels.max() < data.num_classes


@pytest.mark.parametrize("balanced", [False, True])
def test_batches_are_the_same_again_and_with_workers(make, balanced):
    expected = list(make(balanced=balanced).train_dataloader())
    assert equal(expected, list(make(balanced=balanced).train_dataloader()))
    if balanced:  # without, too, but of one set alone, in test_base
        assert equal(expected, list(make(balanced=balanced, num_workers=2).train_dataloader()))
    assert not equal(expected, list(make(balanced=balanced, seed=1).train_dataloader()))


def test_evaluation_is_well_formed_and_complete(make):
    data = make(eval_batch_size=3)
    streams = {"/".join(stream) for stream in data.evaluations}
    assert streams >= set(data.same_as.values())
    assert {"target/validation", "target/test"} <= streams | set(data.same_as)
    assert not streams & set(data.same_as)
    loaders = data.test_dataloader()
    assert len(data.val_dataloader()) == len(data.evaluations)
    for (role, split), loader in zip(data.test_evaluations, loaders, strict=True):
        assert len(data.set_of(role, split)) > 0
        first = next(iter(loader))
        assert isinstance(first, Labelled)
        assert first.images.shape[1:] == (3, data.image_size, data.image_size)
        assert len(loader) == -(-len(data.set_of(role, split)) // 3)


def test_splits_of_a_domain_share_no_image_unless_it_is_transductive(make):
    data = make()
    if data.transductive:
        for role in ROLES:
            assert len({data.set_of(role, split).fingerprint() for split in SPLITS}) == 1
        return
    published = data.published_splits
    for role in ROLES:
        seen = set()
        for split in ("train", "test") if published else SPLITS:
            part = data.set_of(role, split)
            images = [image.numpy().tobytes() for image in part.images(np.arange(len(part)))]
            assert not seen & set(images), (role, split)
            seen |= set(images)


def test_a_class_says_whether_validation_images_are_trained_on(make):
    options = [{}]
    counts = np.unique(make().set_of("source", "train").labels, return_counts=True)[1]
    # One image of each class leaves none to hold out.
    if "validation" in inspect.signature(type(make())).parameters and counts.max() > 1:
        options.append({"validation": 0.3})
    for given in options:
        data = make(**given)
        for role in ROLES:
            train, validation = (data.set_of(role, split) for split in ("train", "validation"))
            images = [
                {image.numpy().tobytes() for image in part.images(np.arange(len(part)))}
                for part in (train, validation)
            ]
            assert type(data).holds_out(role, given) == (not images[0] & images[1]), (role, given)


def test_wrong_options_are_refused_in_one_line(make):
    wrong = [
        ("source", "no such domain"),
        ("target", make().source),
        ("batch_size", 0),
        ("steps_per_epoch", "all"),
    ]
    for name, value in wrong:
        with pytest.raises(UserError) as caught:
            make(**{name: value})
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="fewer than one batch"):
        make(batch_size=100_000).setup()
    with pytest.raises(TypeError):
        make(batchsize=4)


def test_the_manifest_does_not_depend_on_order_or_batches(make):
    first = make().manifest
    assert len(first) == 64
    assert make(seed=3, batch_size=2, balanced=True).manifest == first
