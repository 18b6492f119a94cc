"""Office-31: products, and the same things before a good and a cheap camera."""

from __future__ import annotations

from .files.benchmark import Benchmark


class Office31(Benchmark):
    """Office-31: amazon, dslr and webcam, 31 classes of office supplies, 4,110 images.

    Transductive, as published: all images of the target are trained and evaluated on.
    """

    title = "Office-31"
    reference = (
        "Saenko, Kulis, Fritz, Darrell: Adapting Visual Category Models to New Domains. ECCV 2010"
    )
    licence = "research; the authors state no licence, the amazon images are of amazon.com"
    homepage = "https://faculty.cc.gatech.edu/~judy/domainadapt/"
    domains = ("amazon", "dslr", "webcam")
    symbols = {"amazon": "A", "dslr": "D", "webcam": "W"}
    counts = {"amazon": 2817, "dslr": 498, "webcam": 795}
    classes = (
        *("back_pack", "bike", "bike_helmet", "bookcase", "bottle", "calculator", "desk_chair"),
        *("desk_lamp", "desktop_computer", "file_cabinet", "headphones", "keyboard"),
        *("laptop_computer", "letter_tray", "mobile_phone", "monitor", "mouse", "mug"),
        *("paper_notebook", "pen", "phone", "printer", "projector", "punchers", "ring_binder"),
        *("ruler", "scissors", "speaker", "stapler", "tape_dispenser", "trash_can"),
    )
    class_counts = {
        "amazon": (
            *(92, 82, 72, 82, 36, 94, 91, 97, 97, 81, 99, 100, 100, 98, 100, 99, 100, 94, 96, 95),
            *(93, 100, 98, 98, 90, 75, 100, 99, 99, 96, 64),
        ),
        "dslr": (
            *(12, 21, 24, 12, 16, 12, 13, 14, 15, 15, 13, 10, 24, 16, 31, 22, 12, 8, 10, 10),
            *(13, 15, 23, 18, 10, 7, 18, 26, 21, 22, 15),
        ),
        "webcam": (
            *(29, 21, 28, 12, 16, 31, 40, 18, 21, 19, 27, 27, 30, 19, 30, 43, 30, 27, 28, 32),
            *(16, 20, 30, 27, 40, 11, 25, 30, 24, 23, 21),
        ),
    }
    lists = {
        name: (f"{name}.txt", f"{name}_list.txt", f"labeled_source_images_{name}.txt")
        for name in domains
    }
    archives = (
        *("domain_adaptation_images.tar.gz", "office31.tar.gz", "office31.zip", "office.zip"),
        *("Office-31.zip", "office-31.zip", "office31.tgz", "Original_images.zip"),
    )
    by_hand = (
        "open https://faculty.cc.gatech.edu/~judy/domainadapt/ in a browser, download the archive "
        "of the images (domain_adaptation_images.tar.gz, about 76 MB), and put it into the root as "
        "it is, or unpacked: ROOT/amazon/images/back_pack/*.jpg"
    )
