import copy
import pickle

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from long_cases import rest_long
from PIL import Image

from da.errors import UserError
from da.types import Batch, Labelled, Unlabelled
from datasets.base import DomainData


def batches(module, **changes):
    return list(module(**{"source": "a", "target": "b", "batch_size": 4} | changes)
                .train_dataloader())  # fmt: skip


def same(first, second):
    return len(first) == len(second) and all(
        torch.equal(x.source.images, y.source.images)
        and torch.equal(x.source.labels, y.source.labels)
        and torch.equal(x.target.images, y.target.images)
        and torch.equal(x.source.indices, y.source.indices)
        and torch.equal(x.target.indices, y.target.indices)
        for x, y in zip(first, second, strict=True)
    )


def test_a_training_batch_has_no_target_labels(toy):
    for batch in batches(toy):
        assert isinstance(batch, Batch)
        assert isinstance(batch.target, Unlabelled)
        assert batch.target._fields == ("views", "indices")
        assert [view.dtype for view in batch.target.views] == [torch.float32]
        assert batch.target.indices.tolist() != batch.source.labels.tolist()


def test_training_never_reads_the_target_labels(toy):
    module = toy("a", "b", batch_size=4)
    expected = list(module.train_dataloader())
    other = toy("a", "b", batch_size=4)
    other.set_of("target", "train").labels = np.full(11, -1)
    assert same(expected, list(other.train_dataloader()))


@pytest.mark.parametrize("balance", [False, True])
def test_workers_change_nothing(toy, balance):
    expected = batches(toy, steps_per_epoch=9, balanced=balance)
    for workers in (2, 4):
        assert same(expected, batches(toy, num_workers=workers, steps_per_epoch=9,
                                      balanced=balance))  # fmt: skip


def test_no_global_random_state_is_used_or_touched(toy):
    torch.manual_seed(0)
    np.random.seed(0)
    before, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()
    expected = batches(toy)
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(numbers, np.random.get_state()[1])
    torch.manual_seed(1)
    assert same(expected, batches(toy))


def test_batches_depend_on_seed_and_task(toy):
    expected = batches(toy)
    assert not same(expected, batches(toy, seed=1))
    back = batches(toy, source="b", target="a")
    assert not torch.equal(back[0].source.images, expected[0].target.images)


def test_source_batches_hold_the_images_of_their_labels(toy):
    module = toy("a", "b", batch_size=4, augment=False)
    data = module.set_of("source", "train")
    plain = module.transform.evaluate(data.images(np.arange(20)))
    for batch in module.train_dataloader():
        for image, label, index in zip(*batch.source.views, *batch.source[1:], strict=True):
            assert torch.equal(plain[index], image)
            assert data.labels[index] == label


def test_augmentation_can_be_left_out(toy):
    plain, augmented = batches(toy, augment=False), batches(toy)
    assert torch.equal(plain[0].source.labels, augmented[0].source.labels)
    assert not torch.equal(plain[0].source.images, augmented[0].source.images)


@pytest.mark.parametrize(
    ("length", "expected"), [("source", 5), ("target", 2), ("longest", 5), (7, 7)]
)
def test_the_length_of_an_epoch(toy, length, expected):
    module = toy("a", "b", batch_size=4, steps_per_epoch=length)
    assert module.steps == len(module.train_dataloader()) == len(list(module.train_dataloader()))
    assert module.steps == expected


def test_the_shorter_stream_is_reshuffled_each_time_it_wraps(toy):
    toy.sizes = {"a": 40, "b": 8}
    module = toy("a", "b", batch_size=4, augment=False)
    targets = torch.cat([batch.target.images for batch in module.train_dataloader()])
    orders = set()
    for cycle in targets.reshape(5, 8, -1):
        assert len(torch.unique(cycle, dim=0)) == 8
        orders.add(tuple(cycle.sum(1).tolist()))
    assert len(orders) == 5


def test_balanced_source(toy):
    toy.class_sets = {}
    module = toy("a", "b", batch_size=6, balanced=True, steps_per_epoch=10)
    module.set_of("source", "train").labels = np.array([0] * 16 + [1] * 3 + [2])
    for batch in module.train_dataloader():
        assert torch.bincount(batch.source.labels).tolist() == [2, 2, 2]


def test_evaluation_shows_every_image_once_in_order(toy):
    module = toy("a", "b", eval_batch_size=8)
    loaders = module.val_dataloader()
    assert len(loaders) == len(module.evaluations) == 4
    for (role, split), loader in zip(module.evaluations, loaders, strict=True):
        parts = list(loader)
        assert all(isinstance(part, Labelled) for part in parts)
        data = module.set_of(role, split)
        assert np.array_equal(torch.cat([part.labels for part in parts]), data.labels)
        expected = module.transform.evaluate(data.images(np.arange(len(data))))
        assert torch.equal(torch.cat([part.images for part in parts]), expected)
    assert [len(list(loader)) for loader in module.test_dataloader()] == [3, 2]


def test_images_are_the_training_images_without_augmentation(toy):
    module = toy("a", "b")
    data = module.set_of("target", "train")
    shown = torch.cat(list(module.images("target")))
    assert torch.equal(shown, module.transform.evaluate(data.images(np.arange(len(data)))))


def test_the_manifest_follows_the_data(toy):
    first = toy("a", "b").manifest
    assert first == toy("a", "b", seed=5, batch_size=2).manifest
    toy.sizes = toy.sizes | {"b": 12}
    assert toy("a", "b").manifest != first


class Recorder(pl.LightningModule):
    def __init__(self, stop=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.stop = [], stop

    def training_step(self, batch, batch_idx):
        if self.stop is not None and len(self.seen) == self.stop:
            raise KeyError("killed")
        self.seen.append((batch.source.images.sum().item(), batch.target.images.sum().item()))
        return self.weight * batch.source.images.mean()

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(path, epochs, **options):
    return pl.Trainer(
        max_epochs=epochs, default_root_dir=path, accelerator="cpu", logger=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=1,
        **{"enable_checkpointing": False} | options,
    )  # fmt: skip


def fit(module, path, epochs, stop=None, checkpoint=None, **options):
    model, run = Recorder(stop), trainer(path, epochs, **options)
    try:
        run.fit(model, module("a", "b", batch_size=4, num_workers=options_workers(path)),
                ckpt_path=checkpoint)  # fmt: skip
    except KeyError:
        run.save_checkpoint(path / "mid.ckpt")
    return model.seen, run


def options_workers(path):
    return 2 if path.name.endswith("workers") else 0


@pytest.mark.parametrize("place", rest_long(["alone", "workers"], ["alone"]))
def test_lightning_sees_a_new_order_each_epoch_and_resumes_it(toy, tmp_path, place):
    path = tmp_path / place
    path.mkdir()
    whole, _ = fit(toy, path, 3)
    assert len(set(whole)) == 15
    first, run = fit(toy, path, 2)
    run.save_checkpoint(path / "end.ckpt")
    rest, _ = fit(toy, path, 3, checkpoint=path / "end.ckpt")
    assert first + rest == whole


def test_a_resume_in_the_middle_of_an_epoch_goes_on_with_the_next_batch(toy, tmp_path):
    whole, _ = fit(toy, tmp_path, 3)
    first, _ = fit(toy, tmp_path, 3, stop=7)
    rest, _ = fit(toy, tmp_path, 3, checkpoint=tmp_path / "mid.ckpt")
    assert first + rest == whole


def test_shortened_epochs_do_not_repeat_batches(toy, tmp_path):
    seen, _ = fit(toy, tmp_path, 3, limit_train_batches=2)
    assert len(set(seen)) == 6


def test_the_module_can_be_copied_and_pickled(toy):
    from tests.datasets.conftest import Toy

    module = Toy("a", "b", batch_size=4)
    expected = list(module.train_dataloader())
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert same(expected, list(other.train_dataloader()))


def refused(make):
    with pytest.raises(UserError) as caught:
        make()
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"source": "aa"}, "unknown domain 'aa'; did you mean 'a'? One of: a, b, c, d"),
        ({"target": "q"}, "unknown domain 'q'; one of: a, b, c, d"),
        ({"target": "a"}, "source and target are both 'a': choose two domains, or set allow_same "
                          "to measure a domain against itself"),
        ({"batch_size": 0}, "batch_size is 0: it must be at least 1"),
        ({"eval_batch_size": 0}, "eval_batch_size is 0: it must be at least 1"),
        ({"num_workers": -1}, "num_workers is -1: it must be at least 0"),
        ({"steps_per_epoch": 0}, "steps_per_epoch is 0: it must be at least 1"),
        ({"steps_per_epoch": "both"}, "steps_per_epoch is 'both': give a number of steps, or one "
                                      "of: source, target, longest"),
    ],
)  # fmt: skip
def test_wrong_options_are_refused_at_once(toy, options, text):
    assert refused(lambda: toy(**{"source": "a", "target": "b"} | options)) == text


def test_the_same_domain_twice_where_it_is_asked_for(toy):
    assert toy("a", "a", allow_same=True).task == "a->a"


def test_a_domain_smaller_than_a_batch_is_refused(toy):
    assert refused(toy("a", "b", batch_size=12).train_dataloader) == (
        "target 'b' has 11 training images, fewer than one batch of 12: set batch_size to 11 or "
        "less, or choose a larger domain"
    )
    assert refused(lambda: toy("b", "a", batch_size=12).setup("fit")).startswith("source 'b' has")
    toy("a", "b", batch_size=12).setup("test")


def test_differing_classes_are_refused_with_the_difference(toy):
    toy.class_sets = {"b": ("x", "z", "w")}
    assert refused(toy("a", "b", batch_size=4).setup) == (
        "'a' and 'b' have different classes: only in 'a': y; only in 'b': w; rename or remove "
        "them so that both agree"
    )


def test_balanced_needs_every_class(toy):
    module = toy("a", "b", batch_size=4, balanced=True)
    module.set_of("source", "train").labels = np.zeros(20, np.int64)
    assert "no training images of y, z" in refused(module.setup)


def test_images_to_predict(toy, tmp_path):
    module = toy("a", "b", eval_batch_size=2)
    for name, shade in (("b.png", 255), ("a.JPG", 0), ("c.png", 255)):
        Image.new("RGB", (30, 20), (shade,) * 3).save(tmp_path / name)
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("")
    parts = list(module.predict_images(tmp_path))
    assert [part.names for part in parts] == [["a.JPG", "b.png"], ["c.png"]]
    assert [part.unreadable for part in parts] == [{}, {}]
    images = torch.cat([part.images for part in parts])
    assert images.shape == (3, 3, 8, 8)
    assert images.mean((1, 2, 3)).tolist() == [-1, 1, 1]


def test_a_folder_without_images_is_refused(toy, tmp_path):
    module = toy("a", "b")
    (tmp_path / "notes.txt").write_text("")
    assert "holds no images (other files: 1)" in refused(lambda: module.predict_images(tmp_path))
    assert "is not a folder" in refused(lambda: module.predict_images(tmp_path / "none"))


@pytest.mark.parametrize("workers", [0, 2])
def test_images_in_folders_below_are_found_and_bad_ones_are_named(toy, tmp_path, workers):
    (tmp_path / "cats" / ".cache").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(tmp_path / "cats" / "a.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "cats" / ".cache" / "hidden.png")
    (tmp_path / "cats" / "back").symlink_to(tmp_path)  # a link that leads to where it lies
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "bad.png").symlink_to(tmp_path / "nowhere.png")
    module = toy("a", "b", eval_batch_size=2, num_workers=workers)
    bad, good = module.predict_images(tmp_path)
    assert (bad.names, len(bad.images)) == ([], 0)
    assert [*bad.unreadable] == ["bad.png", "broken.png"]
    assert "broken.png' can't be read: it is no image" in bad.unreadable["broken.png"]
    assert "a link to" in bad.unreadable["bad.png"]
    assert (good.names, good.unreadable, len(good.images)) == (["cats/a.png"], {}, 1)
    (only,) = module.predict_images(tmp_path / "cats" / "a.png")
    assert only.names == ["a.png"]
    assert torch.equal(only.images, good.images)


def test_the_base_class_is_abstract():
    with pytest.raises(TypeError):
        DomainData("a", "b")
