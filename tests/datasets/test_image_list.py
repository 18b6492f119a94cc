import pytest
from PIL import Image
from refusing import refused

from datasets.image_list import ImageList


@pytest.fixture
def root(tmp_path):
    for domain in ("amazon", "web cam"):
        for name in ("mug", "pen"):
            for i in range(3):
                path = tmp_path / domain / "images" / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8)).save(path)
    write(tmp_path, "image_list/amazon.txt", "amazon", ["mug", "pen"])
    write(tmp_path, "image_list/webcam_list.txt", "web cam", ["mug", "pen"])
    return tmp_path


def write(root, file, domain, classes, prefix="/home/x/data"):
    lines = [
        f"{prefix}/{domain}/images/{name}/{i}.png {k}"
        for k, name in enumerate(classes)
        for i in range(3)
    ]
    (root / file).parent.mkdir(exist_ok=True)
    (root / file).write_text("\n".join([*lines, ""]))


def build(root):
    return ImageList("amazon", "webcam", root=str(root), batch_size=2, image_size=8, resize=8)


def test_lists_are_domains_and_folders_name_the_classes(root):
    data = build(root)
    assert data.domains == ("amazon", "webcam")
    assert data.classes == ("mug", "pen")
    assert data.set_of("target", "train").labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.listing("webcam").layout.startswith("image_list/webcam_list.txt (web cam/images/")
    batch = next(iter(data.train_dataloader()))
    assert batch.source.images.shape == (2, 3, 8, 8)


def test_where_folders_say_something_else_classes_are_numbers(root):
    for name, domain in (("amazon", "amazon"), ("webcam_list", "web cam")):
        lines = [f"{domain}/images/mug/{i}.png {i}" for i in range(3)]
        (root / "image_list" / f"{name}.txt").write_text("\n".join(lines))
    assert build(root).classes == ("0", "1", "2")


def test_wrong_lists_are_refused_with_file_and_line(root):
    file = root / "image_list" / "amazon.txt"
    for text, words in (
        ("amazon/images/mug/9.png 0", ("amazon.txt:1", "9.png")),
        ("amazon/images/mug/0.png zero", ("amazon.txt:1", "whole number")),
        ("amazon/../amazon/images/mug/0.png 0", ("amazon.txt:1", "'..'")),
        ("", ("is empty",)),
    ):
        file.write_text(text)
        refused(lambda: build(root), *words)
    file.unlink()
    refused(lambda: build(root), "holds 1 lists, expected 2 or more")


def test_a_target_that_numbers_its_classes_otherwise_gets_the_numbers_of_the_source(root):
    write(root, "image_list/webcam_list.txt", "web cam", ["pen", "mug"])
    data = build(root)
    data.setup()
    assert data.listing("webcam").classes == ("pen", "mug")
    assert data.set_of("target", "test").labels.tolist() == [1, 1, 1, 0, 0, 0]
