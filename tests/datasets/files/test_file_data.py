import numpy as np
import pytest
from PIL import Image
from refusing import refused

from datasets.files.benchmark import Benchmark

CLASSES = ("back_pack", "bike", "mug")


class Toy(Benchmark):
    """A published set of three domains."""

    title = "Toy-3"
    reference = "Nobody 2020"
    licence = "none"
    homepage = "nowhere"
    domains = ("amazon", "dslr", "webcam")
    classes = CLASSES
    symbols = {"amazon": "A", "dslr": "D", "webcam": "W"}
    counts = {"amazon": 9, "dslr": 6, "webcam": 6}
    aliases = {"webcam": ("web",)}
    class_aliases = {"cup": "mug"}
    lists = {d: (f"{d}.txt", f"{d}_list.txt") for d in domains}
    archives = ("toy.zip",)


class Split(Toy):
    """The same with lists of its own."""

    transductive = False
    published_splits = True
    lists = {f"{d}/{s}": (f"{d}_{s}.txt",) for d in Toy.domains for s in ("train", "test")}


def put(root, domain, classes=CLASSES, images=3, inside="images", tone=0):
    for label, name in enumerate(classes):
        folder = root / domain / inside / name
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(images):
            pixels = np.full((12, 10 + i, 3), tone + 40 * label + i, np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


@pytest.fixture
def root(tmp_path):
    put(tmp_path, "Amazon")
    put(tmp_path, "dslr", images=2)
    return put(tmp_path, "web", ("bike", "back pack", "cup"), images=2, inside=".")


def build(root, cls=Toy, **options):
    given = {"source": "amazon", "target": "webcam", "root": str(root), "batch_size": 2}
    return cls(**given | {"image_size": 8, "resize": 8} | options)


def test_labels_are_the_published_ones_whatever_the_folders_are_called(root):
    data = build(root)
    assert data.classes == CLASSES
    assert data.listing("webcam").layout == "web/CLASS/IMAGE"
    assert data.set_of("source", "train").labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    # The folders of webcam sort as "back pack", "bike", "cup" but were written in another order.
    images = np.stack([np.asarray(x) for x in data.set_of("target", "test").images(np.arange(6))])
    assert images[:, 0, 0, 0].tolist() == [40, 41, 0, 1, 80, 81]
    assert data.set_of("target", "test").labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_tasks_are_in_the_published_notation():
    assert Toy.tasks() == ("A→D", "A→W", "D→A", "D→W", "W→A", "W→D")


def test_the_same_images_are_evaluated_once(root):
    data = build(root)
    assert data.evaluations == (("source", "test"), ("target", "test"))
    assert data.same_as == {
        "source/validation": "source/test",
        "target/validation": "target/test",
    }
    assert [sum(len(b.labels) for b in loader) for loader in data.val_dataloader()] == [9, 6]


def test_a_limit_takes_the_same_images_in_every_run_but_all_of_the_target(root):
    cls = type("Limited", (Toy,), {"evaluation_limit": 4})
    picks = [build(root, cls, seed=s).set_of("source", "test") for s in (0, 1)]
    assert [len(x) for x in picks] == [4, 4]
    assert picks[0].fingerprint() == picks[1].fingerprint()
    data = build(root, cls)
    assert (len(data.set_of("source", "train")), len(data.set_of("target", "test"))) == (9, 6)


def test_what_the_options_leave_open_comes_from_the_weights(root):
    data = build(root, image_size=None, resize=None)
    assert (data.image_size, data.reading.size) == (224, 256)
    assert data.mean == (0.485, 0.456, 0.406)
    data.adopt((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), 14)
    assert (data.image_size, data.reading.size) == (14, 16)
    assert next(iter(data.train_dataloader())).source.images.shape == (2, 3, 14, 14)
    chosen = build(root, mean=(0.1, 0.2, 0.3))
    chosen.adopt((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), 14)
    assert (chosen.image_size, chosen.mean, chosen.std) == (8, (0.1, 0.2, 0.3), (0.25,) * 3)


def test_a_domain_that_is_not_there_is_named_with_what_to_do(root):
    (root / "web").rename(root / "elsewhere")
    refused(build(root).setup, "domain 'webcam' of Toy-3 is not in", "data fetch Toy", "webcam.txt")
    put(root, "webcam", ("bike", "sofa"))
    refused(build(root).setup, "missing: back_pack, mug", "not published: sofa")


def test_another_number_of_images_than_is_published_is_said_before_anything_is_trained(
    root, caplog
):
    data = build(root)
    for domain in ("amazon", "webcam"):
        data.check_presence(domain)
    assert caplog.messages == []
    put(root, "Amazon", images=4)
    build(root).check_presence("amazon")
    [said] = caplog.messages
    assert said.startswith("amazon: 12 images, published are 9: what is trained on them is not co")


def test_lists_of_others_are_understood(root):
    names = [f"/home/x/web/{c}/{i}.png" for c in ("cup", "bike", "back pack") for i in range(2)]
    (root / "web").rename(root / "photos")
    text = "\n".join(
        f"{name.replace('/web/', '/photos/')} {i // 2}" for i, name in enumerate(names)
    )
    (root / "webcam_list.txt").write_text(text)
    data = build(root)
    # The classes are those of the folders, not the numbers of the list.
    assert data.set_of("target", "test").labels.tolist() == [2, 2, 1, 1, 0, 0]
    assert data.listing("webcam").layout.startswith("webcam_list.txt (photos/cup/0.png")


def test_published_lists_make_the_splits(root):
    for domain, folder in (("amazon", "Amazon/images"), ("webcam", "web")):
        for split, i in (("train", 0), ("test", 1)):
            names = {"back_pack": "back pack", "mug": "cup"} if folder == "web" else {}
            lines = [f"{folder}/{names.get(c, c)}/{i}.png {k}" for k, c in enumerate(CLASSES)]
            (root / f"{domain}_{split}.txt").write_text("\n".join(lines))
    data = build(root, Split)
    assert data.evaluations == Split.evaluations
    assert len(data.evaluations) == 4
    train, validation, test = (data.set_of("target", s) for s in ("train", "validation", "test"))
    assert train.fingerprint() == validation.fingerprint() != test.fingerprint()
    assert test.labels.tolist() == [0, 1, 2]
    (root / "webcam_test.txt").unlink()
    refused(lambda: build(root, Split).set_of("target", "test"), "webcam_test.txt")


def test_other_classes_need_a_flag(tmp_path):
    from datasets.folder import Folder

    put(tmp_path, "a", ("cat", "dog", "owl"), inside=".")
    put(tmp_path, "b", ("cat", "fox", "owl"), inside=".")
    put(tmp_path, "c", ("owl", "dog"), inside=".")

    def folder(**options):
        return build(tmp_path, Folder, **{"source": "a", "target": "b"} | options)

    refused(folder().setup, "only in 'a': dog", "only in 'b': fox", "class_sets to open")
    refused(folder(class_sets="partial").setup, "class_sets to open")
    refused(folder(target="c").setup, "only in 'a': cat", "class_sets to partial")
    partial = folder(target="c", class_sets="partial")
    partial.setup()
    assert partial.set_of("target", "test").labels.tolist() == [1, 1, 1, 2, 2, 2]
    data = folder(class_sets="open")
    data.setup()
    assert data.num_classes == 3
    assert len(data.set_of("target", "train")) == 9
    assert data.set_of("target", "test").labels.tolist() == [0, 0, 0, 2, 2, 2]
    put(tmp_path, "d", ("x", "y"), inside=".")
    refused(folder(target="d", class_sets="open").setup, "no class in common")


def test_the_cache_changes_no_pixel(root, tmp_path):
    kept, plain = build(root), build(root, cache=False)
    for a, b in zip(kept.train_dataloader(), plain.train_dataloader(), strict=True):
        assert a.source.images.equal(b.source.images)
        assert a.target.images.equal(b.target.images)
    assert kept.manifest == plain.manifest


def test_links_to_nowhere_and_files_that_are_gone_are_found_before_training(root):
    broken = root / "Amazon" / "images" / "mug" / "9.png"
    broken.symlink_to("/nonexistent/x.png")
    refused(build(root).setup, str(broken), "which does not exist", "skip_unreadable")
    data = build(root, skip_unreadable=True)
    data.setup("fit")
    assert len(data.set_of("source", "train")) == 9


def test_empty_files_are_found_before_training_without_a_cache_too(root):
    mugs = root / "Amazon" / "images" / "mug"
    for i in range(3):
        (mugs / f"{i}.png").write_bytes(b"")
    (mugs / "9.png").symlink_to("/nonexistent/x.png")
    said = "it is empty (zero bytes), and 3 more can't; repair or remove it, or set skip_unreadable"
    refused(build(root, cache=False).setup, f"'{mugs / '0.png'}' can't be read: {said}")
    data = build(root, cache=False, skip_unreadable=True)
    data.setup("fit")
    assert len(data.set_of("source", "train")) == 6


def test_unreadable_images_are_left_out_where_that_is_asked_for(root, caplog):
    bad = root / "Amazon" / "images" / "mug" / "1.png"
    whole = bad.read_bytes()
    bad.write_bytes(whole[: len(whole) // 2])
    refused(lambda: list(build(root).images("source")), str(bad), "can't be read")
    for _ in range(2):  # the second time from what was kept
        data = build(root, skip_unreadable=True)
        assert data.set_of("source", "train").labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
        assert "1 of 9 images can't be read and are left out" in caplog.text
        caplog.clear()
