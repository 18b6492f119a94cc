"""VisDA-2017: from rendered models to photographs."""

from __future__ import annotations

from pathlib import Path

from .base import Split
from .fetching.archives import UNPACKED
from .fetching.downloads import Download
from .files.benchmark import Benchmark
from .files.file_names import normalise_name
from .files.layout import Listing

_SERVER = "http://csr.bu.edu/ftp/visda17/clf"


class VisDA2017(Benchmark):
    """VisDA-2017 classification: synthetic train, real validation and test, 12 classes.

    The published task is train → validation. Transductive: all real images are trained and
    evaluated on. The synthetic source is evaluated on a fixed 2,000 of its images.
    """

    title = "VisDA-2017"
    reference = (
        "Peng, Usman, Kaushik, Hoffman, Wang, Saenko: VisDA: The Visual Domain Adaptation "
        "Challenge. 2017, arXiv 1710.06924"
    )
    licence = "research; the conditions are on its page"
    homepage = "https://github.com/VisionLearningGroup/taskcv-2017-public"
    domains = ("train", "validation", "test")
    symbols = {"train": "Synthetic", "validation": "Real", "test": "Test"}
    counts = {"train": 152397, "validation": 55388, "test": 72372}
    classes = (
        *("aeroplane", "bicycle", "bus", "car", "horse", "knife", "motorcycle", "person"),
        *("plant", "skateboard", "train", "truck"),
    )
    class_counts = {
        "train": (
            *(14309, 7365, 16640, 12800, 9512, 14240, 17360, 12160, 10731, 11680, 16000, 9600),
        ),
        "validation": (*(3646, 3475, 4690, 10401, 4691, 2075, 5796, 4000, 4549, 2281, 4236, 5548),),
    }
    aliases = {"train": ("synthetic", "visda_train"), "validation": ("real", "visda_validation")}
    lists = {
        "train": ("train.txt", "train_list.txt", "train/image_list.txt"),
        "validation": ("validation.txt", "validation_list.txt", "validation/image_list.txt"),
        "test": ("test.txt", "test_list.txt", "test/image_list.txt"),
    }
    archives = ("visda2017.zip", "VisDA2017.zip", "visda-2017.zip")
    downloads = (
        Download(f"{_SERVER}/train.tar", "train.tar"),
        Download(f"{_SERVER}/validation.tar", "validation.tar"),
        Download(f"{_SERVER}/test.tar", "test.tar"),
        Download(
            "https://raw.githubusercontent.com/VisionLearningGroup/taskcv-2017-public/master/"
            "classification/data/image_list.txt",
            "test/image_list.txt",
            unpack=False,
        ),
    )
    by_hand = (
        "download train.tar, validation.tar and test.tar and the labels of the test set "
        "(image_list.txt) by the links on "
        "https://github.com/VisionLearningGroup/taskcv-2017-public/tree/master/classification, and "
        "put them into the root as they are, or unpacked: ROOT/train/aeroplane/*.png, "
        "ROOT/validation/aeroplane/*.jpg, ROOT/test/trunk00/*.jpg, ROOT/test/image_list.txt"
    )
    evaluation_limit = 2000

    @classmethod
    def find_by_list(
        cls, root: Path, domain: str, split: Split, skip: frozenset[str] = frozenset()
    ) -> Listing | None:
        """The test set's list may lie beside its archive, under the name that it is published by.

        Below the root a file of that name is of another domain, and so it is in another's folder.
        """
        found = super().find_by_list(root, domain, split, skip)
        file = root / "image_list.txt"
        others = {
            normalise_name(name) for other in cls.domains[:2] for name in cls.names_of_domain(other)
        }
        if found is not None or domain != "test" or not file.is_file():
            return found
        if normalise_name(root.name.partition(UNPACKED)[0]) in others:
            return None
        return cls.read_listed(file, root, domain, skip)

    @classmethod
    def tasks(cls) -> tuple[str, ...]:
        """The published one."""
        return ("Synthetic→Real",)
