import pytest
from PIL import Image
from refusing import refused

from datasets import image_list
from datasets.files.checking import check_files
from datasets.image_list import ImageList, class_names


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


def build(root, source="amazon", target="webcam", **options):
    given = {"batch_size": 2, "image_size": 8, "resize": 8}
    return ImageList(source, target, root=str(root), **given | options)


def pets(root, **lists):
    """Lists of images by the folders of their classes and the labels: ``a={"cat": 0}``."""
    for domain, labels in lists.items():
        for name in labels:
            for i in range(2):
                path = root / domain / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8)).save(path)
        rows = [f"{domain}/{name}/{i}.png {k}" for name, k in labels.items() for i in range(2)]
        (root / f"{domain}.txt").write_text("\n".join(rows))
    return root


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


def test_a_list_that_lacks_a_label_lacks_the_class_of_the_others(tmp_path):
    pets(tmp_path, a={"cat": 0, "dog": 1, "emu": 2}, b={"cat": 0, "emu": 2}, c={"cat": 0, "yak": 3})
    hint = refused(build(tmp_path, "a", "b").setup, "only in 'a': dog; only in 'b': none")
    assert hint.endswith("or set class_sets to partial")
    data = build(tmp_path, "a", "b", class_sets="partial")
    data.setup()
    assert (data.classes, data.listing("b").classes) == (("cat", "dog", "emu"), ("cat", "emu"))
    assert data.set_of("target", "test").labels.tolist() == [0, 0, 2, 2]
    refused(build(tmp_path, "a", "c", class_sets="partial").setup, "only in 'c': yak", "to open")
    data = build(tmp_path, "a", "c", class_sets="open")
    data.setup()
    assert data.num_classes == 3
    assert data.set_of("target", "train").labels.tolist() == [0, 0, -1, -1]
    data = build(tmp_path, "b", "c", class_sets="open")
    data.setup()
    assert data.classes == ("cat", "emu")
    assert data.set_of("source", "train").labels.tolist() == [0, 0, 1, 1]


def test_numbers_are_classes_where_folders_are_not_also_in_a_list_that_lacks_one(tmp_path):
    for domain, labels in {"a": (0, 1, 2), "b": (0, 2)}.items():
        pets(tmp_path, **{domain: {"all": 0, "rest": 1}})
        rows = [
            f"{domain}/all/0.png 0",
            *(f"{domain}/rest/{i}.png {k}" for i, k in enumerate(labels[1:])),
        ]
        (tmp_path / f"{domain}.txt").write_text("\n".join(rows))
    data = build(tmp_path, "a", "b", class_sets="partial")
    data.setup()
    assert data.classes == ("0", "1", "2")
    assert data.set_of("target", "test").labels.tolist() == [0, 2]


NAMED = frozenset({(0, "cat"), (1, "dog")})
FLAT = frozenset({(0, "images"), (1, "images")})


@pytest.mark.parametrize(
    ("own", "others", "names"),
    [
        (FLAT, [NAMED], {0: "cat", 1: "dog"}),
        ({(1, "images")}, [FLAT], {1: "1"}),
        ({(0, "images"), (2, "images")}, [NAMED], {0: "0", 2: "2"}),
        (NAMED, [{(0, "images"), (2, "images")}], {0: "0", 1: "1"}),
        (NAMED, [{(0, "dog"), (1, "cat")}], {0: "cat", 1: "dog"}),
        (NAMED, [{(0, "fox"), (1, "owl")}, FLAT], {0: "cat", 1: "dog"}),
        (FLAT, [{(0, "fox")}, NAMED], {0: "0", 1: "1"}),
    ],
)
def test_labels_are_named_by_all_lists_that_agree(own, others, names):
    own, *others = map(frozenset, (own, *others))
    assert class_names(own, [own, *others]) == names


def test_labels_that_no_list_has_are_refused_by_fit_and_check(tmp_path):
    pets(tmp_path, a={"cat": 1, "dog": 2, "emu": 3}, b={"cat": 1, "emu": 3})
    words = ("a.txt' has label 3", "labels must be 0 to K-1; none is 0 in any", "from 0 to 2")
    refused(lambda: build(tmp_path, "a", "b"), *words)
    refused(lambda: build(tmp_path, "b", "a"), *words)
    refused(lambda: check_files(ImageList, str(tmp_path), 1, show=False), *words)
    pets(tmp_path, a={"cat": 0, "dog": 1, "emu": 10**12})
    refused(lambda: build(tmp_path, "a", "b"), "none is 2 in any list")


def test_texts_that_are_no_lists_are_passed_over_and_refused_where_they_are_chosen(tmp_path):
    pets(tmp_path, a={"cat": 0, "dog": 1}, b={"cat": 0, "dog": 1})
    (tmp_path / "README.txt").write_text("\n Animals in two looks\n")
    (tmp_path / "classes.txt").write_text("cat 0\ndog 1\n")
    (tmp_path / "licence.txt").write_bytes(b"\xa9 2010\n")
    assert build(tmp_path, "a", "b").domains == ("a", "b")
    assert check_files(ImageList, str(tmp_path), 1, show=False).problems() == []
    refused(lambda: build(tmp_path, "README", "b"), "README.txt:2", "got 'Animals in two looks'")
    refused(lambda: build(tmp_path, "a", "classes"), "classes.txt:1", "got 'cat 0'", "one of: a, b")
    refused(lambda: build(tmp_path, "a", "licence"), "licence.txt' can't be read")
    refused(lambda: build(tmp_path, "a", "none"), "unknown domain 'none'; one of: a, b")
    # Lists are then looked for in the folder image_list, too.
    for name in "ab":
        (tmp_path / "image_list").mkdir(exist_ok=True)
        (tmp_path / f"{name}.txt").rename(tmp_path / "image_list" / f"{name}.txt")
    assert ImageList.available(str(tmp_path)) == ("a", "b")
    refused(lambda: build(tmp_path, "README", "b"), "README.txt:2")


def test_a_list_that_is_broken_further_down_is_refused_where_it_is_chosen(tmp_path):
    pets(tmp_path, a={"cat": 0, "dog": 1}, b={"cat": 0, "dog": 1}, c={"cat": 0})
    with (tmp_path / "c.txt").open("a") as file:
        file.write("\nc/cat/2.png cat")
    refused(lambda: build(tmp_path, "a", "c"), "c.txt:3: expected 'path label'", "whole number")
    (problem,) = check_files(ImageList, str(tmp_path), 1, show=False).problems()
    assert "c.txt:3: expected 'path label'" in problem
    build(tmp_path, "a", "b").setup()


def test_each_list_is_read_once_until_it_changes(tmp_path, monkeypatch):
    pets(tmp_path, a={"cat": 0, "dog": 1}, b={"cat": 0, "dog": 1}, c={"cat": 0, "dog": 1})
    read = []

    def counting(file, **options):
        read.append(file.name)
        return original(file, **options)

    original = image_list.read_list
    monkeypatch.setattr(image_list, "read_list", counting)
    build(tmp_path, "a", "b").setup()
    check_files(ImageList, str(tmp_path), 1, show=False)
    assert sorted(read) == ["a.txt", "b.txt", "c.txt"]
    pets(tmp_path, c={"cat": 0, "dog": 1, "emu": 2})
    refused(build(tmp_path, "a", "c").setup, "only in 'c': emu")
    assert read[3:] == ["c.txt"]
