"""Office-Caltech-10: the ten classes that Office-31 and Caltech-256 share."""

from __future__ import annotations

from .files.benchmark import Benchmark
from .office31 import Office31

_CLASSES = (
    *("back_pack", "bike", "calculator", "headphones", "keyboard", "laptop_computer"),
    *("monitor", "mouse", "mug", "projector"),
)


class OfficeCaltech10(Benchmark):
    """Office-Caltech-10: amazon, caltech, dslr and webcam, 10 classes, 2,533 images.

    Transductive, as published.
    """

    title = "Office-Caltech-10"
    reference = (
        "Gong, Shi, Sha, Grauman: Geodesic Flow Kernel for Unsupervised Domain Adaptation. "
        "CVPR 2012"
    )
    licence = "research; the authors state no licence"
    homepage = "https://www.cs.utexas.edu/~grauman/papers/subspace-cvpr2012.pdf"
    domains = ("amazon", "caltech", "dslr", "webcam")
    symbols = {"amazon": "A", "caltech": "C", "dslr": "D", "webcam": "W"}
    counts = {"amazon": 958, "caltech": 1123, "dslr": 157, "webcam": 295}
    classes = _CLASSES
    class_counts = {
        **{
            domain: tuple(counts[Office31.classes.index(name)] for name in _CLASSES)
            for domain, counts in Office31.class_counts.items()
        },
        "caltech": (151, 110, 100, 138, 85, 128, 133, 94, 87, 97),  # of Caltech-256
    }
    class_aliases = {"laptop": "laptop_computer", "headphone": "headphones"}
    aliases = {"caltech": ("caltech10", "caltech256")}
    lists = {name: (f"{name}.txt", f"{name}_list.txt") for name in domains}
    archives = ("office_caltech_10.zip", "office-caltech.zip", "officecaltech.zip")
    by_hand = (
        "the images are those of Office-31 and of Caltech-256 in the ten common classes; put them "
        "into the root as ROOT/amazon/back_pack/*.jpg, ROOT/caltech/back_pack/*.jpg and so on, or "
        "an archive of that (office_caltech_10.zip is a name under which it is passed on)"
    )
