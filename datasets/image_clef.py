"""ImageCLEF-DA: the twelve classes that three collections share."""

from __future__ import annotations

from .files.benchmark import Benchmark


class ImageClef(Benchmark):
    """ImageCLEF-DA: caltech, imagenet and pascal, 12 classes of 50 images in each, 1,800 images.

    Transductive, as used since Long et al. 2017 (JAN). The images lie in one folder per domain, so
    that its list files say which class each is of; folders of classes are read as well.
    """

    title = "ImageCLEF-DA"
    reference = (
        "ImageCLEF 2014 domain adaptation challenge; as used by Long, Zhu, Wang, Jordan: Deep "
        "Transfer Learning with Joint Adaptation Networks. ICML 2017, arXiv 1605.06636"
    )
    licence = "research; the images are of Caltech-256, ImageNet and Pascal VOC"
    homepage = "https://www.imageclef.org/2014/adaptation"
    domains = ("caltech", "imagenet", "pascal")
    symbols = {"caltech": "C", "imagenet": "I", "pascal": "P"}
    counts = {"caltech": 600, "imagenet": 600, "pascal": 600}
    aliases = {"caltech": ("c",), "imagenet": ("i",), "pascal": ("p",)}
    classes = (
        *("aeroplane", "bike", "bird", "boat", "bottle", "bus", "car", "dog", "horse"),
        *("monitor", "motorbike", "people"),
    )
    class_counts = dict.fromkeys(domains, (50,) * 12)
    lists = {
        name: (f"{name[0]}List.txt", f"{name[0]}.txt", f"{name}.txt", f"{name}_list.txt")
        for name in domains
    }
    archives = ("image_CLEF.zip", "image-clef.zip", "ImageCLEF.zip", "imageclef.zip")
    by_hand = (
        "no address of its organisers is known; researchers pass it on as image_CLEF.zip (see the "
        "pages of JAN and CDAN by the group thuml on GitHub). Put it into the root, or unpacked: "
        "ROOT/c, ROOT/i, ROOT/p and the lists ROOT/list/cList.txt, iList.txt, pList.txt"
    )
