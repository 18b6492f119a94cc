import numpy as np
import pytest
import torch

from da.errors import UserError
from datasets.digits import Digits, read_or_make_arrays


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return str(tmp_path_factory.mktemp("digits"))


def test_the_default_needs_nothing(root):
    data = Digits(root=root)
    assert (data.task, data.num_classes, data.image_size) == ("rendered->optical", 10, 32)
    batch = next(iter(data.train_dataloader()))
    assert batch.source.images.shape == batch.target.images.shape == (32, 3, 32, 32)
    assert batch.source.images.dtype == torch.float32
    assert batch.source.labels.dtype == torch.int64
    assert data.steps == 37


def test_the_development_task_is_outside_the_three_domains(root):
    assert not set(Digits.development) & set(Digits.domains)
    data = Digits(*Digits.development, root=root)
    assert data.steps == 18


def test_no_image_is_in_two_domains_or_splits(root):
    data = Digits(root=root)
    seen = {}
    for domain in (*Digits.domains, *Digits.development):
        for split in ("train", "validation", "test"):
            part = data.read_split(domain, split)
            for image in part.images(np.arange(len(part))).numpy():
                assert seen.setdefault(image.tobytes(), (domain, split)) == (domain, split)
    assert len(seen) == 2000 + 1000 + 1594 + 1000 + 1000


def test_all_tasks_read_the_files_once(root):
    read_or_make_arrays.cache_clear()
    first = Digits(root=root).set_of("source", "train")
    misses = read_or_make_arrays.cache_info().misses
    Digits("rendered", "photo", root=root).set_of("source", "train")
    assert read_or_make_arrays.cache_info().misses == misses == 1
    assert len(first) == 1200


def test_a_wrong_domain_names_the_right_ones(root):
    with pytest.raises(UserError, match=r"unknown domain 'rendred'; did you mean 'rendered'\?"):
        Digits("rendred", root=root)


def test_random_neighbours_in_a_batch_move_by_their_own_draws(root):
    data = Digits(root=root)
    stream = data._stream("source")
    picks = stream.picks(0)
    (images,) = stream.views(picks, ["weak"])
    one = type(picks)(picks.cycles[5:6], picks.indices[5:6])
    (alone,) = stream.views(one, ["weak"])
    assert torch.equal(images[5:6], alone)


@pytest.mark.parametrize(("source", "target"), [("rendered", "optical"), ("photo", "outlined")])
def test_classes_lie_in_turn_as_is_stated(root, source, target):
    assert Digits.classes_in_turn
    data = Digits(source=source, target=target, root=root)
    for role in ("source", "target"):
        labels = np.asarray(data.set_of(role, "train").labels)
        for first in range(0, len(labels) - 99, 100):
            counts = np.bincount(labels[first : first + 100], minlength=10)
            assert set(counts) <= {8, 9, 10, 11, 12}
