import gc

import numpy as np
import pytest
import torch
from PIL import Image

from da.types import Batch
from datasets.folder import Folder
from datasets.loading import Memory, finished
from datasets.transforms import CropAndFlip, normalise


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    rng = np.random.default_rng(0)
    for domain in "ab":
        for label in ("cat", "dog"):
            folder = root / domain / label
            folder.mkdir(parents=True)
            for i in range(5):
                pixels = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


def made(root, **options):
    given = {"image_size": 8, "batch_size": 2, "steps_per_epoch": 20, "cache": False}
    return Folder(source="a", target="b", root=str(root), **given | options)


def test_memory_is_given_again_only_when_nothing_refers_to_it():
    memory = Memory()
    first = memory(2, 3)
    place = first.data_ptr()
    part = first[1]
    assert memory(2, 3).data_ptr() != place
    del first
    gc.collect()
    assert memory(2, 3).data_ptr() != place  # part is still there
    part.fill_(7)
    other = memory(2, 3).zero_()
    assert (part == 7).all()
    del part, other
    again = {memory(2, 3).data_ptr() for _ in range(4)}
    assert len(again) == 1
    assert memory(3, 2).shape == (3, 2)


def test_who_holds_many_batches_gets_memory_of_his_own():
    memory = Memory(most=2)
    held = [memory(4).fill_(i) for i in range(6)]
    assert [tensor.tolist() for tensor in held] == [[i] * 4 for i in range(6)]
    assert len(memory._given) == 2


def test_gradients_keep_the_memory_that_they_need():
    memory = Memory()
    weight = torch.ones(3, requires_grad=True)
    loss = (memory(3).fill_(2.0) * weight).sum()  # the factor is saved for the backward
    memory(3).fill_(9.0)
    loss.backward()
    assert weight.grad.tolist() == [2.0] * 3


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_that_are_kept_stay_as_they_were(root, workers):
    loader = made(root, num_workers=workers).train_dataloader()
    kept = []
    copies = []
    for batch in loader:
        kept.append(batch)
        copies.append(batch.source.images.clone())
    assert len(kept) == 20
    assert all(b.source.images.equal(copy) for b, copy in zip(kept, copies, strict=True))
    assert len({b.target.images.data_ptr() for b in kept}) == 20


@pytest.mark.parametrize("workers", [0, 2])
def test_raw_batches_are_a_quarter_and_the_same_when_they_are_moved(root, workers):
    data = made(root, num_workers=workers)
    plain = data.train_dataloader()
    raw = data._loader(plain.dataset, plain.sampler, raw=True)
    for batch, bytes_ in zip(plain, raw, strict=True):
        assert bytes_.source.images.dtype == bytes_.target.images.dtype == torch.uint8
        moved = data.transfer_batch_to_device(bytes_, torch.device("cpu"), 0)
        assert isinstance(moved, Batch)
        for one, other in zip((*moved.source, *moved.target), (*batch.source, *batch.target),
                              strict=True):  # fmt: skip
            assert one.equal(other)
        again = data.transfer_batch_to_device(moved, torch.device("cpu"), 0)
        assert again.source.images.equal(moved.source.images)  # and not normalised twice


def test_images_are_normalised_as_on_another_device():
    transform = CropAndFlip((0.4, 0.5, 0.6), (0.2, 0.3, 0.5), size=8)
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    assert transform.finish(images).equal(normalise(images, transform.mean, transform.std))


def test_names_and_labels_pass_unchanged():
    transform = CropAndFlip((0.5,) * 3, (0.5,) * 3, size=4)
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    found, names = finished((images, ["a", "b"]), transform)
    assert names == ["a", "b"]
    assert (found == -1).all()
