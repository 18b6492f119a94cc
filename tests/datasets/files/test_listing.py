import numpy as np
import pytest
from refusing import refused

from datasets.files.class_folders import list_class_folders, match_folders
from datasets.files.file_names import normalise_name
from datasets.files.layout import (
    find_file,
    find_folder,
    require_root,
)
from datasets.files.list_files import read_list, resolve_paths

CLASSES = {"back_pack": [], "bike helmet": ["helmet"]}


def put(root, *paths):
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    return root


@pytest.mark.parametrize(
    "place",
    [
        "amazon",
        "Amazon/images",
        "office31/Original_images/AMAZON/images",
        "a/b/c/amazon",
    ],
)
def test_a_domain_is_found_at_any_depth_and_in_any_spelling(tmp_path, place):
    put(tmp_path, f"{place}/Back Pack/1.jpg", f"{place}/helmet/2.PNG", f"{place}/helmet/x.txt")
    found = find_folder(tmp_path, ("amazon",), CLASSES)
    assert found == place
    listing = list_class_folders(tmp_path, found, CLASSES, "amazon")
    assert listing.classes == tuple(CLASSES)
    assert listing.paths == (f"{place}/Back Pack/1.jpg", f"{place}/helmet/2.PNG")
    assert listing.labels.tolist() == [0, 1]
    assert (listing.passed_over, listing.layout) == ({".txt": 1}, f"{place}/CLASS/IMAGE")


def test_the_folder_with_the_most_classes_is_the_domain(tmp_path):
    put(tmp_path, "amazon/back_pack/1.jpg", "full/amazon/back_pack/1.jpg")
    put(tmp_path, "full/amazon/helmet/1.jpg", "webcam/back_pack/1.jpg")
    assert find_folder(tmp_path, ("amazon",), CLASSES) == "full/amazon"
    assert find_folder(tmp_path, ("dslr",), CLASSES) is None


def test_folders_that_are_no_classes_and_missing_ones_are_named(tmp_path):
    text = refused(
        lambda: match_folders(["helmet", "monitor"], CLASSES, "amazon", tmp_path),
        "missing: back_pack",
    )
    assert "not published: monitor" in text
    many = [f"class {i}" for i in range(20)]
    text = refused(lambda: match_folders(many, CLASSES, "amazon", tmp_path), "and 12 more")
    assert len(text) < 400


def test_a_users_classes_are_the_names_of_the_folders(tmp_path):
    put(tmp_path, "a/dog/1.jpg", "a/cat/1.jpg", "a/cat/.1.jpg", "a/.git/1.jpg", "a/Thumbs.db")
    assert list_class_folders(tmp_path, "a").classes == ("cat", "dog")
    (tmp_path / "a" / "empty").mkdir()
    refused(
        lambda: list_class_folders(tmp_path, "a"), "class 'empty' of domain 'a' holds no images"
    )
    refused(lambda: list_class_folders(tmp_path, "a/empty"), "no folders of classes, and no images")


def test_lists_are_read_with_their_lines(tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("\ufeffa b/1.jpg 3\n\n  c.jpg\t0  \r\n", encoding="utf-8")
    assert read_list(file) == [(1, "a b/1.jpg", 3), (3, "c.jpg", 0)]
    for text, words in {
        "a.jpg": ("list.txt:1", "a.jpg"),
        "a.jpg 0\nb.jpg x": ("list.txt:2", "b.jpg x"),
        "a.jpg -1": ("list.txt:1",),
        "": ("empty",),
    }.items():
        file.write_text(text)
        refused(lambda: read_list(file), *words)
    refused(lambda: read_list(tmp_path / "none.txt"), "none.txt")
    file.write_bytes(b"\xff\xfe\x00")
    refused(lambda: read_list(file), "list.txt")


def test_a_foreign_prefix_is_cut_where_a_file_is_found(tmp_path):
    root = put(tmp_path, "amazon/images/mug/1.jpg", "amazon/images/mug/2.jpg")
    file = tmp_path / "list.txt"
    file.write_text(
        "/data/x/office/amazon/images/mug/1.jpg 0\n..\\amazon\\images\\mug\\2.jpg 0".replace(
            "..", "."
        )
    )
    lines = read_list(file)
    assert resolve_paths(file, lines, [root], root) == [
        "amazon/images/mug/1.jpg",
        "amazon/images/mug/2.jpg",
    ]
    file.write_text("../data/amazon/images/mug/1.jpg 0\n")
    assert resolve_paths(file, read_list(file), [root], root) == ["amazon/images/mug/1.jpg"]
    put(root, "images/mug/1.jpg")
    file.write_text("x/images/mug/1.jpg 0\namazon/images/mug/1.jpg 0")  # each as it stands
    assert resolve_paths(file, read_list(file), [root], root)[1] == "amazon/images/mug/1.jpg"
    (root / "images/mug/1.jpg").unlink()
    for text, words in {
        "mug/3.jpg 0": ("list.txt:1", "mug/3.jpg"),
        "amazon/../amazon/images/mug/1.jpg 0": ("list.txt:1", "'..'"),
        "amazon/images/mug/1.jpg 0\nx/amazon/images/mug/1.jpg 0": (":2", "twice", "line 1"),
        "amazon/images/mug/1.jpg 0\nx/amazon/images/mug/1.jpg 1": (":2", "two labels"),
    }.items():
        file.write_text(text)
        wrong = read_list(file)
        refused(lambda wrong=wrong: resolve_paths(file, wrong, [root], root), *words)


def test_lists_lie_anywhere_above_the_images(tmp_path):
    put(tmp_path, "image_list/Amazon.TXT", "amazon/mug/amazon.txt")
    assert find_file(tmp_path, ("amazon.txt",), frozenset({"mug"})) == (
        tmp_path / "image_list" / "Amazon.TXT"
    )
    assert find_file(tmp_path, ("dslr.txt",), frozenset()) is None


def test_the_root_must_exist(tmp_path):
    refused(lambda: require_root(None), "root is missing", "DOMAIN/CLASS/IMAGE")
    refused(lambda: require_root(str(tmp_path / "none")), "is not a folder")
    assert require_root(str(tmp_path)) == tmp_path
    assert normalise_name("Real-World_x y") == "realworldxy"
    assert list_class_folders(put(tmp_path, "d/c/1.png"), "d").labels.dtype == np.int64
