import itertools
import os
import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from refusing import refused

from da.errors import UserError
from datasets.files.file_data import choose_held_out
from datasets.folder import Folder

SIZES = {"a": 6, "b": 4}


@pytest.fixture
def tree(tmp_path):
    """Domains a and b of cats and dogs; cats are dark, dogs bright, a is red and b is blue."""
    root = tmp_path / "tree"
    rng = np.random.default_rng(0)
    for domain, label in itertools.product("ab", ("cat", "dog")):
        folder = root / domain / label
        folder.mkdir(parents=True)
        for i in range(SIZES[domain]):
            pixels = np.zeros((20 + i, 30, 3), np.uint8)
            low = 0 if label == "cat" else 128
            pixels[..., 0 if domain == "a" else 2] = rng.integers(low, low + 128, (20 + i, 30))
            Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


@pytest.fixture
def make(tree):
    def build(**options):
        given = {"source": "a", "target": "b", "root": str(tree), "batch_size": 4}
        return Folder(**given | {"image_size": 16, "resize": 20} | options)

    return build


def test_domains_and_classes_are_read_from_disk(make, tree):
    (tree / "third" / "x").mkdir(parents=True)
    data = make()
    assert data.domains == ("a", "b", "third")
    assert data.classes == ("cat", "dog")
    assert (data.num_classes, data.task) == (2, "a->b")
    assert Folder.available(str(tree)) == ("a", "b", "third")


def test_an_archive_that_macos_made_is_opened_wherever_it_lies(tree, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    with zipfile.ZipFile(place / "mine.zip", "w") as out:
        for path in sorted(tree.rglob("*.png")):
            out.write(path, Path("mine") / path.relative_to(tree))
        out.writestr("__MACOSX/mine/a/cat/._0.png", b"x")
        out.writestr("mine/.DS_Store", b"x")
    for root in (place, place / "mine.zip", place):
        assert Folder.available(str(root)) == ("a", "b")
        data = Folder("a", "b", root=str(root), cache=False)
        assert len(data.set_of("source", "train")) == 12
    (tree / "__MACOSX" / "mine").mkdir(parents=True)
    assert Folder.available(str(tree)) == ("a", "b")


def test_each_image_has_the_label_of_its_folder(make):
    data = make()
    batch = next(iter(data.val_dataloader()[0]))
    assert batch.labels.tolist() == [0] * 6 + [1] * 6
    red = batch.images[:, 0] * 0.229 + 0.485
    assert (red[:6].amax((1, 2)) < 0.55).all()
    assert (red[6:].amin((1, 2)) > 0.45).all()


def test_what_is_no_image_is_passed_over(make, tree):
    expected = make().manifest
    (tree / ".git" / "cat").mkdir(parents=True)
    (tree / "readme.txt").write_text("")
    (tree / "a" / ".ipynb_checkpoints").mkdir()
    (tree / "a" / "list.csv").write_text("")
    (tree / "a" / "cat" / "Thumbs.db").write_text("")
    (tree / "a" / "cat" / "._0.png").write_text("")
    (tree / "a" / "cat" / ".hidden.png").write_text("")
    (tree / "a" / "cat" / "folder.png").mkdir()
    assert make().manifest == expected
    assert make().domains == ("a", "b")


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "bmp", "webp", "gif", "tiff", "PNG"])
def test_kinds_of_files(make, tree, suffix):
    Image.new("RGB", (9, 7)).save(tree / "b" / "dog" / f"new.{suffix}")
    assert len(make().set_of("target", "train")) == 9


def test_splits_are_transductive_by_default(make):
    data = make()
    assert data.transductive
    assert [len(data.set_of("source", s)) for s in ("train", "validation", "test")] == [12] * 3
    assert [len(data.set_of("target", s)) for s in ("train", "validation", "test")] == [8] * 3
    assert [sum(len(b.labels) for b in loader) for loader in data.val_dataloader()] == [12, 8]


def test_validation_holds_a_share_of_each_class_of_the_source_out(make):
    def picks(split, seed=0):
        return tuple(make(validation=1 / 3, seed=seed).set_of("source", split).indices.tolist())

    assert sorted(picks("train") + picks("validation")) == list(range(12))
    assert picks("test") == picks("validation") == picks("test")
    data = make(validation=1 / 3)
    assert np.bincount(data.set_of("source", "validation").labels).tolist() == [2, 2]
    assert len(data.set_of("target", "train")) == len(data.set_of("target", "test")) == 8
    assert len({picks("validation", seed) for seed in range(5)}) > 1


def test_held_out_takes_one_at_least_and_leaves_one():
    labels = np.repeat([0, 1, 2, 3], [1, 2, 3, 100])
    for share, expected in ((0.01, [0, 1, 1, 1]), (0.3, [0, 1, 1, 30]), (0.99, [0, 1, 2, 99])):
        chosen = choose_held_out(labels, share, 5)
        assert np.bincount(labels[chosen], minlength=4).tolist() == expected


def test_mixed_batches_hold_all_classes_although_files_lie_class_by_class(make):
    data = make(augment=False, eval_batch_size=4)
    images = torch.cat(list(data.images("source")))
    labels = data.set_of("source", "train").labels
    assert np.bincount(labels[:4]).tolist() == [4]
    mixed = list(data.images("source", mixed=True))
    order = [next(i for i, x in enumerate(images) if x.equal(image)) for image in torch.cat(mixed)]
    assert sorted(order) == list(range(12))
    assert all(len(set(labels[order[i : i + 4]])) == 2 for i in (0, 4, 8))
    again = list(make(augment=False, eval_batch_size=4, seed=1).images("source", mixed=True))
    assert torch.cat(again).equal(torch.cat(mixed)), "the same for every run, seed and normaliser"


def test_images_are_decoded_when_they_are_needed(make, tree):
    (tree / "a" / "cat" / "0.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"cat/0\.png' can't be read"):  # the cache needs them all
        make().setup("fit")
    data = make(augment=False, cache=False)
    data.setup("fit")
    assert len(data.set_of("source", "train")) == 12
    with pytest.raises(UserError, match=r"cat/0\.png' can't be read"):
        list(data.images("source"))


def test_a_broken_image_is_one_line_from_a_worker_too(make, tree):
    (tree / "a" / "cat" / "0.png").write_bytes(b"broken")
    alone, worker = (
        refused(lambda n=n: list(make(num_workers=n, cache=False).images("source"))) for n in (0, 1)
    )
    assert alone == worker
    assert alone.startswith(f"image '{tree / 'a' / 'cat' / '0.png'}' can't be read: ")
    assert alone.endswith("; repair or remove it")


class Counter(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
        self.seen = {"train": 0, "val": 0, "test": 0}

    def training_step(self, batch, batch_idx):
        self.seen["train"] += len(batch.target.images)
        logits = self.layer(batch.source.images.mean((2, 3)))
        return torch.nn.functional.cross_entropy(logits, batch.source.labels)

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.seen["val"] += len(batch.labels)

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        self.seen["test"] += len(batch.labels)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_lightning_fits_and_tests_it(make, tmp_path):
    module = Counter()
    trainer = pl.Trainer(
        max_epochs=2, default_root_dir=tmp_path, accelerator="cpu", logger=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        enable_checkpointing=False,
    )  # fmt: skip
    data = make()
    trainer.fit(module, data)
    trainer.test(module, data, verbose=False)
    assert module.seen == {"train": 2 * 3 * 4, "val": 2 * 20, "test": 20}


def test_predicted_images_are_prepared_as_in_evaluation(make, tree):
    data = make()
    ((images, names, *_),) = data.predict_images(tree / "b" / "dog")
    assert names == ["0.png", "1.png", "2.png", "3.png"]
    expected = next(iter(data.val_dataloader()[1])).images
    assert torch.equal(images, expected[4:])


def test_it_can_be_pickled(make):
    data = pickle.loads(pickle.dumps(make()))
    assert data.manifest == make().manifest


def test_options_of_the_images(make):
    batch = next(iter(make(image_size=8, mean=(0, 0, 0), std=(1, 1, 1)).train_dataloader()))
    assert batch.source.images.shape == (4, 3, 8, 8)
    assert 0 <= batch.source.images.min() < batch.source.images.max() <= 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"root": None}, "root is missing: name the folder that holds DOMAIN/CLASS/IMAGE"),
        ({"root": "no/such"}, "root 'no/such' is not a folder: name one that holds "
                              "DOMAIN/CLASS/IMAGE"),
        ({"source": "c"}, "unknown domain 'c'; one of: a, b"),
        ({"image_size": 21}, "image_size is 21: it must be 1 to 20 (resize)"),
        ({"image_size": 0}, "image_size is 0: it must be 1 to 20 (resize)"),
        ({"validation": 1.0}, "validation is 1.0: it must be at least 0 and less than 1"),
        ({"validation": -0.1}, "validation is -0.1: it must be at least 0 and less than 1"),
        ({"std": (1, 0, 1)}, "std is (1, 0, 1): each must be greater than 0"),
    ],
)  # fmt: skip
def test_wrong_options_are_refused_at_once(make, options, text):
    assert refused(lambda: make(**options)) == text


def test_a_root_without_folders_is_refused(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png")
    assert refused(lambda: Folder("a", "b", root=str(tmp_path))) == (
        f"root '{tmp_path}' holds no folders: expected DOMAIN/CLASS/IMAGE in it"
    )
    (tmp_path / "a").mkdir()
    assert "has one domain, 'a': expected 2 or more" in refused(
        lambda: Folder.available(str(tmp_path))
    )


def test_a_domain_without_classes_is_refused(make, tree):
    (tree / "c").mkdir()
    (tree / "c" / "x.txt").write_text("")
    assert refused(lambda: make(target="c")) == (
        f"domain 'c' has no folders of classes, and no images: expected images in "
        f"'{tree / 'c'}/CLASS/', or in it where they have no labels; move them there, or name "
        "another root"
    )


def test_an_empty_class_is_refused_by_name(make, tree):
    for folder in ("fox", "owl"):
        for domain in "ab":
            (tree / domain / folder).mkdir()
    (tree / "a" / "fox" / "notes.txt").write_text("")
    assert refused(make) == (
        "class 'fox' of domain 'a' holds no images (other files: 1): put some into "
        f"'{tree / 'a' / 'fox'}', or remove the folder"
    )


def test_differing_classes_are_refused_with_the_difference(make, tree):
    (tree / "a" / "dog").rename(tree / "a" / "hound")
    assert refused(make().setup) == (
        "'a' and 'b' have different classes: only in 'a': hound; only in 'b': dog; rename or "
        "remove them so that both agree, or set class_sets to open"
    )


def test_a_target_smaller_than_a_batch_is_refused(make):
    assert refused(make(batch_size=9).train_dataloader).startswith(
        "target 'b' has 8 training images, fewer than one batch of 9"
    )
    assert refused(make(batch_size=8, validation=0.5).train_dataloader).startswith(
        "source 'a' has 6 training images"
    )


def test_validation_needs_a_class_of_two(make, tree):
    for label, i in itertools.product(("cat", "dog"), range(1, 6)):
        (tree / "a" / label / f"{i}.png").unlink()
    assert "no class of 'a' has two images" in refused(
        lambda: make(validation=0.5).set_of("source", "train")
    )


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and user ids")
def test_a_folder_that_cannot_be_listed_is_named(tree, make):
    (tree / "a" / "cat").chmod(0)
    child = os.fork()
    if child == 0:  # root may list everything, so that the child becomes somebody else
        code = 1
        try:
            os.chdir(tree)
            if os.getuid() == 0:
                os.setuid(65534)
            make(root=".")
        except UserError as error:
            code = 0 if str(error) == "folder 'a/cat' can't be listed: Permission denied" else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    (tree / "a" / "cat").chmod(0o755)
    assert os.waitstatus_to_exitcode(status) == 0
