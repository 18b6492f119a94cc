"""Targets without labels, with a few, and several sources: what a data module makes of them."""

import numpy as np
import pytest
from PIL import Image
from refusing import refused

from datasets.files.class_matching import NO_CLASS, NO_LABEL
from datasets.files.target_labels import read_target_labels
from datasets.folder import Folder
from datasets.image_list import ImageList
from datasets.office_caltech import OfficeCaltech10

CLASSES = {"cat": [], "guinea pig": ["cavy"]}


def put(root, *paths):
    """Images of 8 x 8, each of its own colour."""
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        colour = tuple(np.frombuffer(path.encode()[-7:].rjust(7), np.uint8)[:3].tolist())
        Image.new("RGB", (8, 8), colour).save(file)
    return root


@pytest.fixture
def root(tmp_path):
    """A labelled domain ``photos`` of 2 classes with 3 images each."""
    files = (f"photos/{name}/{i}.png" for name in ("cat", "dog") for i in range(3))
    return put(tmp_path / "root", *files)


def build(root, target, source="photos", kind=Folder, **options):
    given = {"batch_size": 2, "image_size": 8, "resize": 8, "cache": False}
    data = kind(source, str(target), root=str(root), **given | options)
    data.setup("fit")
    return data


LAYOUTS = {
    "a flat folder": (["phone/0.png", "phone/1.png"], "phone"),
    "a folder unlabelled": (["phone/unlabelled/a/0.png", "phone/unlabelled/1.png"], "phone"),
    "a path": (["../new/0.png", "../new/1.png"], "../new"),
    "a nested path": (["../new/monday/0.png", "../new/monday/late/1.png"], "../new"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_target_without_labels_is_trained_on_and_evaluated(root, layout):
    files, target = LAYOUTS[layout]
    put(root, *files)
    data = build(root, target if target == "phone" else root / target)
    assert data.target in ("phone", "new")
    assert data.task == f"photos->{data.target}"
    for split in ("train", "test"):
        found = data.set_of("target", split)
        assert found.labels.tolist() == [NO_LABEL] * 2
        assert found.classes == ("cat", "dog")
    assert [len(batch.labels) for batch in data.evaluation("target", "test")] == [2]
    assert len(next(iter(data.train_dataloader())).target.images) == 2
    assert not data.remarks()


def test_labelled_and_unlabelled_images_of_a_target_are_told_apart(root):
    put(root, "phone/cat/0.png", "phone/unlabelled/1.png", "phone/unlabelled/2.png")
    assert build(root, "phone").set_of("target", "test").labels.tolist() == [0, NO_LABEL, NO_LABEL]
    put(root, "phone/yak/3.png")
    refused(lambda: build(root, "phone"), "only in 'phone': yak", "set class_sets to open")
    data = build(root, "phone", class_sets="open")
    assert data.set_of("target", "train").labels.tolist() == [0, NO_CLASS, NO_LABEL, NO_LABEL]
    assert data.set_of("target", "test").labels.tolist() == [0, NO_LABEL, NO_LABEL]
    # The other way round the images without labels are left out, which is said.
    data = build(root, "photos", source="phone", class_sets="open", batch_size=1)
    assert data.set_of("source", "train").labels.tolist() == [0, 1]
    assert "phone: 2 images have no label, and are not of the source" in data.remarks()


def test_folders_in_a_path_are_classes_where_the_source_has_one_of_them(root):
    put(root, "../new/cat/0.png", "../new/dog/1.png")
    assert build(root, root / "../new").set_of("target", "test").labels.tolist() == [0, 1]
    put(root, "../new/misc/2.png")
    refused(lambda: build(root, root / "../new"), "only in 'new': misc")
    # A set that knows its classes knows their other names; its own domain is itself.
    spelt = [f"amazon/{name}/0.png" for name in OfficeCaltech10.classes]
    put(root, *spelt, *(path.replace("amazon", "webcam") for path in spelt))
    put(root, "../shop/headphone/0.png", "../shop/Back Pack/0.png")
    options = {"source": "amazon", "kind": OfficeCaltech10, "batch_size": 1}
    data = build(root, root / "../shop", **options, class_sets="partial")
    assert data.set_of("target", "test").labels.tolist() == [0, 3]
    assert build(root, root / "webcam", **options).target == "webcam"


def test_what_can_be_no_target_or_no_source_is_refused(root):
    put(root, "phone/0.png", "phone/1.png")
    refused(lambda: build(root, root / "../none"), "there is no folder", "one of: phone, photos")
    (root / "../empty").mkdir()
    refused(lambda: build(root, root / "../empty"), "domain 'empty' holds no images")
    words = ("source 'phone' has no labels", "choose a domain whose images lie in folders")
    refused(lambda: build(root, "photos", source="phone"), *words)
    put(root, "sketch/monday/0.png")
    refused(lambda: build(root, "sketch"), "move them into sketch/unlabelled")


def test_a_list_may_lack_labels(root):
    put(root, "phone/0.png", "phone/my cat.png", "phone/2.png")
    lines = [f"photos/{k}/{i}.png {n}" for n, k in enumerate(("cat", "dog")) for i in range(3)]
    (root / "photos.txt").write_text("\n".join(lines))
    lists = {
        "phone/0.png\nphone/my cat.png\n": [NO_LABEL, NO_LABEL],
        "phone/0.png -1\nphone/my cat.png,-1\n": [NO_LABEL, NO_LABEL],
        "photos/dog/0.png 1\nphone/2.png\n": [1, NO_LABEL],
    }
    for text, labels in lists.items():
        (root / "phone.txt").write_text(text)
        data = build(root, "phone", kind=ImageList)
        assert data.set_of("target", "test").labels.tolist() == labels
        assert data.classes == ("cat", "dog")
    refused(lambda: build(root, "photos", source="phone", kind=ImageList), "'phone'")
    # Alone, by its path, or a folder by its path; numbers would be no names there.
    (root / "phone.txt").rename(root / "phone/list.txt")
    (root / "phone/list.txt").write_text("2.png\n")
    for target, count in (("phone/list.txt", 1), ("phone", 3)):
        data = build(root, root / target, kind=ImageList, batch_size=1)
        assert data.set_of("target", "test").labels.tolist() == [NO_LABEL] * count
    (root / "phone/list.txt").write_text("2.png\n0.png 1\n")
    refused(lambda: build(root, root / "phone/list.txt"), "list.txt:2", "matched by name")


def test_a_few_labels_are_of_the_evaluation_alone(root, tmp_path):
    put(root, *(f"phone/unlabelled/{name}.png" for name in ("0", "a/1", "2")))
    few = tmp_path / "few.csv"
    few.write_text("file,class,probability\n1.png,dog,0.9\n")
    with_labels, without = (build(root, "phone", target_labels=x) for x in (str(few), None))
    assert with_labels.set_of("target", "test").labels.tolist() == [NO_LABEL, NO_LABEL, 1]
    a, b = (next(iter(data.train_dataloader())) for data in (with_labels, without))
    assert a.target.indices.tolist() == b.target.indices.tolist()
    assert (a.target.images == b.target.images).all()
    put(root, "sketch/cat/0.png", "sketch/dog/0.png")
    refused(lambda: build(root, "sketch", target_labels=str(few), batch_size=1), "of its own")


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("a/1.jpg,cat\n", [0, NO_LABEL, NO_LABEL]),
        ("\ufeffpath;class\n/mnt/x/a/1.jpg;Guinea_Pig\n3.jpg;cavy\n", [1, NO_LABEL, 1]),
        ("b\\1.jpg\tcat\n3.jpg\t\n", [NO_LABEL, 0, NO_LABEL]),
        ("1.jpg,cat\n", "few.csv:1: '1.jpg' may be 'a/1.jpg' or 'b/1.jpg'; name more of its path"),
        ("3.jpg,cat\n9.jpg,cat\n", "few.csv:2: the target has no image '9.jpg'"),
        ("3.jpg,cut\n", "few.csv:1: unknown class 'cut'; did you mean 'cat'?"),
        ("3.jpg,cat\nb/3.jpg,cavy\n", "few.csv:2: 'b/3.jpg' is 'guinea pig' here and 'cat' above"),
        ("3.jpg\n", "few.csv:1: expected 'file,class', got '3.jpg'"),
        ("file,class\n", "has no label"),
    ],
)
def test_rows_of_labels_are_matched_by_file_and_class(tmp_path, text, labels):
    file = tmp_path / "few.csv"
    file.write_text(text, encoding="utf-8")
    paths = ["a/1.jpg", "b/1.jpg", "b/3.jpg"]
    if isinstance(labels, str):
        refused(lambda: read_target_labels(file, paths, CLASSES), labels)
    else:
        assert read_target_labels(file, paths, CLASSES).tolist() == labels


def test_several_sources_are_one_stream_in_which_each_is_drawn_equally(root):
    put(root, *(f"sketch/{k}/{i}.png" for k in ("cat", "dog") for i in range(9)), "phone/0.png")
    put(root, "phone/1.png", "phone/2.png", "phone/3.png")
    data = build(root, "phone", source="photos,sketch", batch_size=4)
    assert (data.sources, data.task) == (("photos", "sketch"), "photos,sketch->phone")
    batches = list(data.train_dataloader())
    assert len(batches) == 24 // 4
    whole = data.set_of("source", "train")
    drawn = np.concatenate([batch.source.indices.numpy() for batch in batches])
    for batch in batches:
        indices = batch.source.indices.numpy()
        assert (indices < 6).sum() == 2  # half of each batch is of the 6 photos
        assert batch.source.labels.tolist() == whole.labels[indices].tolist()
    assert np.bincount(drawn, minlength=24)[:6].tolist() == [2] * 6
    assert whole.names(np.array([0, 6])) == ["photos/cat/0.png", "sketch/cat/0.png"]
    alone = build(root, "phone", source="sketch").set_of("source", "train")
    a, b = whole.images(np.array([3, 7, 0]))[1], alone.images(np.array([1]))[0]
    assert (a == b).all()
    balanced = build(root, "phone", source="photos,sketch", batch_size=4, balanced=True)
    for batch in list(balanced.train_dataloader()):
        kinds = batch.source.labels + 2 * (batch.source.indices < 6)
        assert sorted(kinds.tolist()) == [0, 1, 2, 3]


def test_sources_that_do_not_go_together_are_refused(root):
    put(root, "sketch/cat/0.png", "sketch/yak/0.png", "phone/0.png", "phone/1.png")
    refused(lambda: build(root, "phone", source="photos,sketch"), "only in 'sketch': yak")
    refused(lambda: build(root, "phone", source="photos,sketsh"), "did you mean 'sketch'?")
    refused(lambda: build(root, "phone", source="photos,photos"), "name each domain once")
    refused(lambda: build(root, "photos", source="photos,sketch"), "the target is a source")
    refused(lambda: build(root, "photos", source="photos,phone", allow_same=True), "'phone' has no")
