"""Views of training images: which numbers each takes, and what must not change them."""

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.digits import Digits
from datasets.folder import Folder

TWO = ("weak", "strong")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    rng = np.random.default_rng(0)
    for domain in "ab":
        for label in ("cat", "dog"):
            folder = root / domain / label
            folder.mkdir(parents=True)
            for i in range(5):
                pixels = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).resize((60, 48)).save(folder / f"{i}.png")
    return root


@pytest.fixture(params=["files", "arrays"])
def make(request, tree, tmp_path_factory):
    torch.set_num_threads(1)
    cache = str(tmp_path_factory.getbasetemp() / "digits")

    def build(source=("weak",), target=("weak",), **options):
        options = {"batch_size": 4, "steps_per_epoch": 3} | options
        if request.param == "files":
            data = Folder("a", "b", root=str(tree), image_size=28, cache=False, **options)
        else:
            data = Digits("rendered", "optical", root=cache, **options)
        data.serve_views(source, target)
        return data

    return build


def batches(data):
    return list(data.train_dataloader())


def same(first, second):
    return len(first) == len(second) and all(
        torch.equal(x, y)
        for a, b in zip(first, second, strict=True)
        for one, other in ((a.source, b.source), (a.target, b.target))
        for x, y in zip((*one.views, one.indices), (*other.views, other.indices), strict=True)
    )


def test_without_a_word_there_is_one_weak_view(make):
    for batch in batches(make()):
        assert len(batch.source.views) == len(batch.target.views) == 1
        assert batch.source.images is batch.source.views[0]


@pytest.mark.parametrize("views", [TWO, ("strong", "weak"), ("weak", "weak"), ("plain", "weak")])
def test_the_first_weak_view_is_what_a_batch_of_one_view_has(make, views):
    place = views.index("weak")
    for one, other in zip(batches(make()), batches(make(views, views)), strict=True):
        for alone, beside in ((one.source, other.source), (one.target, other.target)):
            assert len(beside.views) == len(views)
            assert torch.equal(alone.images, beside.views[place])
            assert torch.equal(alone.indices, beside.indices)
        assert torch.equal(one.source.labels, other.source.labels)


def test_the_views_of_one_domain_change_nothing_of_the_other(make):
    for one, other in zip(batches(make()), batches(make(target=TWO)), strict=True):
        assert torch.equal(one.source.images, other.source.images)
        assert len(other.source.views) == 1


def test_no_two_views_are_alike(make):
    views = ("weak", "weak", "strong", "strong", "plain")
    for batch in batches(make(target=views)):
        for images in zip(*batch.target.views, strict=True):
            assert len({image.numpy().tobytes() for image in images}) == len(views)


def test_a_strong_view_differs_more_from_the_image_than_a_weak_one(make):
    """Where crops don't move the pixels: both views begin with the same kind of weak one."""
    differences = []
    for batch in batches(make(target=("weak", "strong", "plain"), batch_size=10)):
        weak, strong, plain = batch.target.views
        differences.append([(view - plain).abs().mean().item() for view in (weak, strong)])
    weak, strong = np.mean(differences, axis=0)
    assert strong > weak


def test_a_plain_view_is_what_evaluation_shows(make):
    data = make(("plain",), ("plain",))
    for batch in batches(data):
        for role, part in (("source", batch.source), ("target", batch.target)):
            images = data.set_of(role, "train").images(part.indices.numpy())
            assert torch.equal(part.images, data.transform.evaluate(images))


def test_the_indices_point_at_the_images_of_any_view(make):
    data = make(TWO, TWO, augment=False)
    for batch in batches(data):
        for role, part in (("source", batch.source), ("target", batch.target)):
            images = data.set_of(role, "train").images(part.indices.numpy())
            for view in part.views:
                assert torch.equal(view, data.transform.evaluate(images))
        labels = data.set_of("source", "train").labels[batch.source.indices.numpy()]
        assert batch.source.labels.tolist() == labels.tolist()


def test_workers_change_no_view(make):
    assert same(batches(make(TWO, TWO)), batches(make(TWO, TWO, num_workers=2)))


def test_a_run_that_goes_on_sees_the_views_that_it_would_have_seen(make, monkeypatch):
    whole = batches(make(TWO, TWO, steps_per_epoch=6))
    data = make(TWO, TWO, steps_per_epoch=2)
    monkeypatch.setattr(data, "_steps_done", lambda: 4)
    assert same(whole[4:], batches(data))


def test_a_view_is_of_its_step_alone_and_other_in_another_pass(make):
    data = make(TWO, TWO)
    stream = data._stream("target")
    picks = stream.picks(0)
    later = type(picks)(picks.cycles + 1, picks.indices)
    for name in ("weak", "strong"):
        (now,), (again,), (then,) = (stream.views(p, [name]) for p in (picks, picks, later))
        assert torch.equal(now, again)
        assert not torch.equal(now, then)


@pytest.mark.parametrize("views", [("weak",), TWO, ("plain", "strong", "weak")])
def test_target_labels_are_in_no_batch(make, views):
    data = make(views, views)
    expected = batches(data)
    other = make(views, views)
    images = other.set_of("target", "train")
    images.labels = np.full(len(images), -7)
    assert same(expected, batches(other))
    for batch in expected:
        assert batch.target._fields == ("views", "indices")
