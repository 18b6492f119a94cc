"""The published sets, in small trees of the layouts in which they circulate."""

import itertools
import re
import shutil
import zipfile

import pytest
from PIL import Image

from da.discovery import subclasses
from da.errors import UserError
from datasets.domainnet import DomainNet, DomainNet126
from datasets.files.benchmark import Benchmark
from datasets.files.file_names import normalise_name
from datasets.image_clef import ImageClef
from datasets.office31 import Office31
from datasets.office_caltech import OfficeCaltech10
from datasets.office_home import OfficeHome
from datasets.visda import VisDA2017

FOUND = subclasses("datasets", Benchmark)


def put(root, pattern, classes, count=2):
    """Images at ``pattern``, whose CLASS is each class in turn."""
    for name, i in itertools.product(classes, range(count)):
        path = root / pattern.replace("CLASS", name) / f"frame_{i:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    return root


def listed(cls, root, domain, split="train"):
    found = cls.find(root, domain, split)
    assert found.classes == cls.classes
    assert all((found.root / path).is_file() for path in found.paths)
    return found


@pytest.mark.parametrize("cls", FOUND.values(), ids=FOUND)
def test_what_a_set_states_is_consistent(cls):
    assert len(set(map(normalise_name, cls.classes))) == len(cls.classes)
    assert set(cls.symbols) <= set(cls.domains)
    keys = {key.partition("/")[0] for key in (*cls.counts, *cls.class_counts, *cls.lists)}
    assert keys <= set(cls.domains)
    for domain, counts in cls.class_counts.items():
        assert len(counts) == len(cls.classes)
        assert sum(counts) == cls.counts[domain]
    assert re.search(r"(19|20)\d\d", cls.reference)
    assert cls.homepage.startswith("http")
    assert all(text and "\n" not in text for text in (cls.title, cls.licence, cls.by_hand))
    assert all(d.address.startswith(("http://", "https://")) for d in cls.downloads)
    assert all(re.fullmatch(r"\S+→\S+", task) for task in cls.tasks())


@pytest.mark.parametrize(
    ("cls", "classes", "images"),
    [
        (Office31, 31, 4110),
        (OfficeHome, 65, 15588),
        (OfficeCaltech10, 10, 2533),
        (ImageClef, 12, 1800),
        (VisDA2017, 12, 280157),
        (DomainNet, 345, 586575),
    ],
)
def test_the_published_numbers(cls, classes, images):
    assert (len(cls.classes), sum(cls.counts.values())) == (classes, images)


def test_the_published_tasks():
    assert Office31.tasks() == ("A→D", "A→W", "D→A", "D→W", "W→A", "W→D")
    assert len(OfficeHome.tasks()) == len(OfficeCaltech10.tasks()) == 12
    assert VisDA2017.tasks() == ("Synthetic→Real",)
    assert len(DomainNet.tasks()) == 30
    assert len(DomainNet126.classes) == 126
    assert set(DomainNet126.classes) < set(DomainNet.classes)


@pytest.mark.parametrize(
    "place",
    [
        "amazon/images/CLASS",
        "amazon/CLASS",
        "Original_images/amazon/images/CLASS",
        "domain_adaptation_images/amazon/images/CLASS",
        "office31/Amazon/CLASS",
    ],
)
def test_layouts_of_office31(tmp_path, place):
    found = listed(Office31, put(tmp_path, place, Office31.classes), "amazon")
    assert found.layout == place.replace("CLASS", "CLASS/IMAGE")
    assert found.labels.tolist() == [k for k in range(31) for _ in range(2)]


@pytest.mark.parametrize("place", ["Real World/CLASS", "Real_World/CLASS", "RealWorld/CLASS"])
def test_layouts_of_office_home(tmp_path, place):
    root = put(tmp_path, f"OfficeHomeDataset_10072016/{place}", OfficeHome.classes, 1)
    assert len(listed(OfficeHome, root, "real_world").paths) == 65


@pytest.mark.parametrize("packed_root", [False, True])
def test_an_archive_that_is_not_unpacked(tmp_path, packed_root):
    put(tmp_path / "x", "office31/webcam/images/CLASS", Office31.classes, 1)
    archive = tmp_path / "set" / "office31.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as out:
        for path in sorted((tmp_path / "x").rglob("*.jpg")):
            out.write(path, path.relative_to(tmp_path / "x"))
    found = listed(Office31, archive if packed_root else archive.parent, "webcam")
    assert "office31/webcam/images/CLASS/IMAGE" in found.layout
    assert len(found.paths) == 31


def packed(archive, folder):
    """An archive of all that is in a folder, which is removed."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w") as out:
        for path in sorted(folder.rglob("*")):
            out.write(path, path.relative_to(folder))
    shutil.rmtree(folder)


def test_an_archive_gives_the_same_images_when_it_is_unpacked_already(tmp_path):
    root = tmp_path / "set"
    put(tmp_path / "x", "domain_adaptation_images/dslr/images/CLASS", Office31.classes, 1)
    packed(root / "domain_adaptation_images.zip", tmp_path / "x")
    first = listed(Office31, root, "dslr")
    again = listed(Office31, root, "dslr")
    assert (first.root, first.paths) == (again.root, again.paths)
    assert first.paths[0] == "back_pack/frame_0000.jpg"
    (root / "domain_adaptation_images.zip").unlink()  # it takes room
    alone = listed(Office31, root, "dslr")
    assert (first.root, first.paths) == (alone.root, alone.paths)


def test_an_archive_that_was_replaced_is_not_taken_from_what_it_was(tmp_path):
    root = tmp_path / "set"
    for count in (1, 2):
        put(tmp_path / "x", "webcam/images/CLASS", Office31.classes, count)
        packed(root / "webcam.zip", tmp_path / "x")
        assert len(listed(Office31, root, "webcam").paths) == 31 * count


@pytest.mark.parametrize("outer", [False, True])
def test_archives_of_classes_alone_and_within_an_archive(tmp_path, outer):
    root = tmp_path / "set"
    for domain in ("amazon", "dslr"):
        put(tmp_path / "x", "CLASS", Office31.classes, 1)
        packed((tmp_path / "y" if outer else root) / f"{domain}.zip", tmp_path / "x")
    if outer:
        packed(root / "office31.zip", tmp_path / "y")
    for domain in ("amazon", "dslr"):
        found = listed(Office31, root, domain)
        assert len(found.paths) == 31
        assert domain in str(found.root)


@pytest.mark.parametrize(
    ("cls", "names"),
    [
        (DomainNet, ("clipart_train.txt", "clipart_test.txt")),
        (DomainNet126, ("labeled_source_images_clipart.txt",)),
    ],
)
def test_lists_beside_the_archive_of_their_images(tmp_path, cls, names):
    root = tmp_path / "set"
    put(tmp_path / "x", "clipart/CLASS", DomainNet.classes, 2)
    packed(root / "clipart.zip", tmp_path / "x")
    for i, name in enumerate(names):
        rows = [f"clipart/{c}/frame_000{i}.jpg {k}" for k, c in enumerate(cls.classes)]
        (root / name).write_text("\n".join(rows))
    for _ in range(2):
        for split, name in zip(("train", "test"), names, strict=False):
            found = listed(cls, root, "clipart", split)
            assert found.labels.tolist() == list(range(len(cls.classes)))
            assert found.layout.startswith(name)
            assert "/" not in found.paths[0].partition("/")[2]


@pytest.mark.parametrize("place", ["image_list.txt", "test/image_list.txt"])
def test_the_test_set_of_visda_as_it_is_downloaded(tmp_path, place):
    root = tmp_path / "set"
    for domain in ("train", "validation"):  # which have lists of the same name
        put(root, f"{domain}/CLASS", VisDA2017.classes, 1)
        rows = [f"{c}/frame_0000.jpg {k}" for k, c in enumerate(VisDA2017.classes)]
        (root / domain / "image_list.txt").write_text("\n".join(rows))
    with pytest.raises(UserError, match="domain 'test' of VisDA-2017 is not in"):
        VisDA2017.find(root, "test", "train")
    put(tmp_path / "x", "test/CLASS", ["trunk00", "trunk01"], 6)
    packed(root / "test.zip", tmp_path / "x")
    (root / place).parent.mkdir(exist_ok=True)
    rows = [f"trunk0{i // 6}/frame_{i % 6:04d}.jpg {11 - i}" for i in range(12)]
    (root / place).write_text("\n".join(rows))
    found = listed(VisDA2017, root, "test")
    assert found.labels.tolist() == list(range(11, -1, -1))
    assert listed(VisDA2017, root, "train").labels.tolist() == list(range(12))


def test_two_folders_of_one_class_are_named(tmp_path):
    put(tmp_path, "dslr/CLASS", [*Office31.classes, "backpack", "Back Pack"], 1)
    with pytest.raises(UserError, match="has class 'back_pack' twice: folders 'Back Pack' and"):
        Office31.find(tmp_path, "dslr", "train")


def test_two_folders_of_one_domain_are_named(tmp_path):
    for place in ("old", "new"):
        put(tmp_path, f"{place}/dslr/CLASS", Office31.classes, 1)
    with pytest.raises(UserError, match=r"domain 'dslr' is in '.*new/dslr' and in '.*old/dslr'"):
        Office31.find(tmp_path, "dslr", "train")


def test_folders_of_features_beside_those_of_images(tmp_path):
    put(tmp_path, "dslr/images/CLASS", Office31.classes, 1)
    for name in Office31.classes:
        (tmp_path / "dslr/features" / name).mkdir(parents=True)
        (tmp_path / "dslr/features" / name / "1.mat").write_bytes(b"x")
    assert listed(Office31, tmp_path, "dslr").layout == "dslr/images/CLASS/IMAGE"


def test_lists_need_no_folder_that_is_the_only_one(tmp_path):
    for place in ("clipart", "clipart.unpacked/clipart"):
        put(tmp_path, f"{place}/CLASS", DomainNet.classes, 1)
    rows = [f"clipart/{c}/frame_0000.jpg {k}" for k, c in enumerate(DomainNet.classes)]
    (tmp_path / "clipart_train.txt").write_text("\n".join(rows))
    assert listed(DomainNet, tmp_path, "clipart").root == tmp_path / "clipart"


def test_lists_in_one_archive_and_images_in_another(tmp_path):
    put(tmp_path / "x", "Office/amazon/images/CLASS", ["images"], 31)
    packed(tmp_path / "set" / "office_pics.zip", tmp_path / "x")
    rows = [f"amazon/images/images/frame_{i:04d}.jpg {i}" for i in range(31)]
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "amazon.txt").write_text("\n".join(rows))
    packed(tmp_path / "set" / "lists.zip", tmp_path / "y")
    assert listed(Office31, tmp_path / "set", "amazon").labels.tolist() == list(range(31))


def test_the_list_of_another_domain_is_not_that_of_visdas_test_set(tmp_path):
    put(tmp_path / "x", "CLASS", VisDA2017.classes, 1)
    rows = [f"{c}/frame_0000.jpg {k}" for k, c in enumerate(VisDA2017.classes)]
    (tmp_path / "x" / "image_list.txt").write_text("\n".join(rows))
    packed(tmp_path / "set" / "train.zip", tmp_path / "x")
    assert len(listed(VisDA2017, tmp_path / "set", "train").paths) == 12
    with pytest.raises(UserError, match="domain 'test' of VisDA-2017 is not in"):
        VisDA2017.find(tmp_path / "set", "test", "train")


def test_a_domain_that_is_called_as_a_class_is_none(tmp_path):
    put(tmp_path, "train", [""], 12)
    rows = [f"train/frame_{i:04d}.jpg {i}" for i in range(12)]
    (tmp_path / "train.txt").write_text("\n".join(rows))
    assert listed(VisDA2017, tmp_path, "train").labels.tolist() == list(range(12))


def test_lists_with_a_foreign_prefix_number_classes_as_they_like(tmp_path):
    root = put(tmp_path, "images_of_dslr/CLASS", Office31.classes, 1)
    lines = [
        f"/data/x/images_of_dslr/{name}/frame_0000.jpg {30 - k}"
        for k, name in enumerate(Office31.classes)
    ]
    (root / "dslr_list.txt").write_text("\n".join(lines))
    assert listed(Office31, root, "dslr").labels.tolist() == list(range(31))


def test_image_clef_has_lists_and_no_folders_of_classes(tmp_path):
    root = put(tmp_path, "image_CLEF/c", [""], 24)
    (root / "image_CLEF" / "list").mkdir()
    lines = [f"c/frame_{i:04d}.jpg {i // 2}" for i in range(24)]
    (root / "image_CLEF" / "list" / "cList.txt").write_text("\n".join(lines))
    found = listed(ImageClef, root, "caltech")
    assert found.labels.tolist() == [i // 2 for i in range(24)]
    assert found.layout.startswith("image_CLEF/list/cList.txt")


def test_visda_has_a_domain_that_is_called_as_a_class(tmp_path):
    root = put(tmp_path, "train/CLASS", VisDA2017.classes)
    put(root, "validation/CLASS", VisDA2017.classes, 3)
    for domain, count in (("train", 24), ("validation", 36)):
        found = listed(VisDA2017, root, domain)
        assert len(found.paths) == count
        assert found.layout == f"{domain}/CLASS/IMAGE"
    put(root, "test/CLASS", ["trunk00", "trunk01"], 6)
    rows = [f"trunk0{i // 6}/frame_{i % 6:04d}.jpg {i}" for i in range(12)]
    (root / "test" / "image_list.txt").write_text("\n".join(rows))
    assert listed(VisDA2017, root, "test").labels.tolist() == list(range(12))


def test_domainnet_is_split_by_its_lists(tmp_path):
    root = put(tmp_path, "clipart/CLASS", DomainNet.classes, 2)
    for split, i in (("train", 0), ("test", 1)):
        rows = [f"clipart/{c}/frame_000{i}.jpg {k}" for k, c in enumerate(DomainNet.classes)]
        (root / f"clipart_{split}.txt").write_text("\n".join(rows))
        assert listed(DomainNet, root, "clipart", split).labels.tolist() == list(range(345))
    rows = [f"clipart/{c}/frame_0000.jpg {k}" for k, c in enumerate(DomainNet126.classes)]
    (root / "labeled_source_images_clipart.txt").write_text("\n".join(rows))
    assert len(listed(DomainNet126, root, "clipart").paths) == 126


@pytest.mark.parametrize("cls", FOUND.values(), ids=FOUND)
def test_what_is_not_there_is_said_with_what_to_do(cls, tmp_path):
    (tmp_path / "something.txt").write_text("")
    with pytest.raises(UserError) as caught:
        cls.find(tmp_path, cls.domains[0], "train")
    text = str(caught.value)
    assert text.startswith(f"domain '{cls.domains[0]}' of {cls.title} is not in '{tmp_path}'")
    assert f"data fetch {cls.__name__} --root" in text
    assert "\n" not in text


def test_a_missing_class_and_one_too_many_are_named(tmp_path):
    put(tmp_path, "dslr/CLASS", [*Office31.classes[1:], "sofa"], 1)
    with pytest.raises(UserError, match=r"missing: back_pack; not published: sofa"):
        Office31.find(tmp_path, "dslr", "train")


def test_a_folder_of_nearly_the_name_of_a_domain_is_found_or_hinted_at(tmp_path):
    put(tmp_path, "caltech_10/CLASS", OfficeCaltech10.classes, 1)
    listed(OfficeCaltech10, tmp_path, "caltech")
    for near in ("amazn", "my amazon pictures"):
        put(tmp_path, f"{near}/CLASS", OfficeCaltech10.classes, 1)
        with pytest.raises(UserError, match=f"there is '{near}': rename it if it is meant"):
            OfficeCaltech10.find(tmp_path, "amazon", "train")
        shutil.rmtree(tmp_path / near)
    with pytest.raises(UserError, match=r"or the list 'amazon\.txt'; 'python run\.py data fetch"):
        OfficeCaltech10.find(tmp_path, "amazon", "train")
