"""Files as they are: what is read of a folder, what is passed over, and what is said of it."""

import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image
from refusing import refused

from datasets.files.checking import check_files
from datasets.files.class_folders import list_class_folders
from datasets.files.file_names import images_below, spelt_on_disk
from datasets.folder import Folder

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


@pytest.fixture
def root(tmp_path):
    """Domains a and b of one colour each: no two images are the same."""
    rng = np.random.default_rng(0)
    for domain in "ab":
        for label in ("cat", "dog"):
            folder = tmp_path / domain / label
            folder.mkdir(parents=True)
            for i in range(2):
                Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(
                    folder / f"{i}.jpg"
                )
    return tmp_path


def build(root, **options):
    given = {"batch_size": 2, "image_size": 8, "resize": 8, "cache": False}
    return Folder("a", "b", root=str(root), **given | options)


def test_images_in_folders_below_a_class_are_read_in_the_order_of_imagefolder(root):
    from torchvision.datasets import ImageFolder

    for place in ("2024/x", "2023", "2023.old"):
        (root / "a/cat" / place).mkdir(parents=True)
        for name in ("10.jpg", "9.jpg"):
            shutil.copy(root / "a/cat/0.jpg", root / "a/cat" / place / name)
    (root / "a/cat/loop").symlink_to(root / "a/cat")
    (root / "a/cat/.thumbs").mkdir()
    shutil.copy(root / "a/cat/0.jpg", root / "a/cat/.thumbs/0.jpg")
    found = list_class_folders(root, "a")
    assert len(found.paths) == 2 + 6 + 2
    (root / "a/cat/loop").unlink()  # ImageFolder would follow it for ever
    shutil.rmtree(root / "a/cat/.thumbs")
    expected = [path for path, _ in ImageFolder(root / "a").samples]
    assert [str(root / path) for path in found.paths] == expected


def test_endings_of_jpeg_are_read_and_others_are_counted_and_said(root):
    folder = root / "a/cat"
    for i, name in enumerate(("x.jfif", "y.JPE", "z.JPEG")):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(folder / name, "JPEG")
    for name in ("k.heic", "l.jpg.bak", "noending", ".DS_Store"):
        (folder / name).write_bytes(b"x")
    found = images_below(folder)
    assert found.names == ["0.jpg", "1.jpg", "x.jfif", "y.JPE", "z.JPEG"]
    assert found.passed_over == {".heic": 1, ".bak": 1, "no ending": 1, "hidden": 1}
    (root / "a/loose.jpg").write_bytes(b"x")
    (said,) = build(root).remarks()
    assert said.startswith("a: 4 files are passed over")
    assert "beside the folders of classes 1, " in said
    assert ".heic 1" in said
    text = check_files(Folder, str(root), 1, show=False).summary().text
    assert "passed over: 5 files that aren't called like images (" in text


def test_files_of_several_frames_and_grey_that_is_nearly_black_are_said(root):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    for name in ("b.gif", "c.tiff", "d.webp", "e.png"):
        path = root / "a/cat" / name
        frames[0].save(path, save_all=True, append_images=frames[1:])
    ramp = np.linspace(0, 1000, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(ramp).save(root / "b/dog/deep.png")
    first, second = build(root).remarks()
    assert first == (
        "a: 4 files hold several frames or pages, of which the first is read, such as "
        "'a/cat/b.gif'; save others as files of their own"
    )
    assert second == (
        "b: no grey image of 16 bits (1) has a value above 1,000, which takes 10 bits: they come "
        "out nearly black, 4 of 255 at most; multiply them by 65"
    )
    assert build(root).remarks() == [first, second]  # as kept
    text = check_files(Folder, str(root), 1, show=False).summary().text
    assert "4 files hold several frames or pages" in text
    assert "no grey image of 16 bits (1) has a value above 1,000" in text
    Image.fromarray(ramp * 65).save(root / "b/dog/deep.png")
    assert build(root).remarks() == [first]


def test_images_of_both_domains_are_said(root):
    shutil.copy(root / "a/cat/1.jpg", root / "b/dog/copy.jpg")
    assert build(root).remarks() == [
        "1 of 5 images of b are the same as images of a, such as 'b/dog/copy.jpg' and 'a/cat/1.jpg'"
    ]


def test_folders_of_numbers_are_sorted_by_number(tmp_path):
    for k in (0, 1, 2, 10):
        for domain in "ab":
            place = tmp_path / domain / str(k)
            place.mkdir(parents=True)
            Image.new("RGB", (8, 8), (k, 0, 0)).save(place / "0.png")
    assert build(tmp_path).classes == ("0", "1", "2", "10")


def test_two_spellings_of_an_accent_are_one_name(root):
    if spelt_on_disk(root / NFC) != root / NFC:
        pytest.skip("this file system knows no two spellings")
    (root / "a/dog").rename(root / "a" / NFC)
    (root / "b/dog").rename(root / "b" / NFD)
    (root / "b").rename(root / f"{NFD}s")
    data = Folder("a", f"{NFC}s", root=str(root), batch_size=2, cache=False)
    data.setup("fit")
    assert data.classes == (NFC, "cat")
    assert data.set_of("target", "test").labels.tolist() == [0, 0, 1, 1]
    shutil.copytree(root / "a" / NFC, root / "a" / NFD)
    refused(lambda: list_class_folders(root, "a"), "twice, in two spellings of its accents")


def test_a_jpeg_that_is_damaged_inside_is_named(root, caplog, capfd):
    rng = np.random.default_rng(1)
    path = root / "a/cat/1.jpg"
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(path, quality=95)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = bytes(400)
    path.write_bytes(content)
    check = check_files(Folder, str(root), 1, show=False).summary()
    assert f"damaged: image '{path}' is damaged inside: Corrupt JPEG data" in check.text
    assert not check.well
    build(root, cache=True, cache_folder=str(root / "cache")).prepare_data()
    assert "1 of 4 images are damaged inside" in caplog.text
    assert str(path) in caplog.text
    # Without a cache it is named where it is read first, and once, however often it is read.
    caplog.clear()
    images = build(root, cache=False).set_of("source", "train")
    for _ in range(2):
        images.images(np.arange(len(images)))
    [said] = caplog.messages
    assert said.startswith(f"image '{path}' is damaged inside, and parts of it come out grey")
    # The decoder itself is not heard: it names no file.
    assert "\nCorrupt" not in f"\n{capfd.readouterr().err}"
