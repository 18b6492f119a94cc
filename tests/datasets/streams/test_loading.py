import gc

import numpy as np
import pytest
import torch
from PIL import Image

from da.types import Batch
from datasets.folder import Folder
from datasets.streams.augmentation import CropAndFlip, normalise
from datasets.streams.loader import Loader, Memory, finish_batch


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
def test_bytes_leave_the_processes_and_are_normalised_where_they_go(root, workers):
    data = made(root, num_workers=workers)
    loader = data.train_dataloader()
    assert loader.dataset[0].source.images.dtype == torch.uint8
    there = Loader(loader.dataset, data.transform, loader.sampler, device=torch.device("meta"))
    for batch, moved in zip(loader, there, strict=True):
        assert isinstance(moved, Batch)
        for one, other in ((batch.source, moved.source), (batch.target, moved.target)):
            assert other.images.device.type == "meta"
            assert other.images.shape == one.images.shape
            assert other.images.dtype == one.images.dtype == torch.float32
        assert moved.source.labels.equal(batch.source.labels)
    for names, batch in zip((["0.png", "1.png"],), data.predict_images(root / "a" / "cat"),
                            strict=False):  # fmt: skip
        assert batch[1][:2] == names
        assert batch[0].dtype == torch.float32


def test_images_are_normalised_as_on_another_device():
    transform = CropAndFlip((0.4, 0.5, 0.6), (0.2, 0.3, 0.5), size=8)
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    assert transform.finish(images).equal(normalise(images, transform.mean, transform.std))


def test_what_is_normalised_is_not_again():
    transform = CropAndFlip((0.5,) * 3, (0.5,) * 3, size=4)
    once = transform.finish(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
    assert (once == -1).all()
    assert transform.finish(once) is once


def test_names_and_labels_pass_unchanged():
    images, labels = torch.zeros(2, 3, 4, 4), torch.arange(2)
    found, names, same = finish_batch((images, ["a", "b"], labels), lambda x: x + 1)
    assert names == ["a", "b"]
    assert same is labels
    assert (found == 1).all()
