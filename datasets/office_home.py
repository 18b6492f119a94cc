"""Office-Home: art, clip art, product pictures and photographs of everyday objects."""

from __future__ import annotations

from .files.benchmark import Benchmark


class OfficeHome(Benchmark):
    """Office-Home: Art, Clipart, Product and Real World, 65 classes, 15,588 images.

    Transductive, as published. Classes are in alphabetical order; lists of other authors number
    them otherwise, so that the names of the folders decide and not the numbers.
    """

    title = "Office-Home"
    reference = (
        "Venkateswara, Eusebio, Chakraborty, Panchanathan: Deep Hashing Network for Unsupervised "
        "Domain Adaptation. CVPR 2017, arXiv 1706.07522"
    )
    licence = "non-commercial research, under the conditions on its page"
    homepage = "https://www.hemanthdv.org/officeHomeDataset.html"
    domains = ("art", "clipart", "product", "real_world")
    symbols = {"art": "Ar", "clipart": "Cl", "product": "Pr", "real_world": "Rw"}
    counts = {"art": 2427, "clipart": 4365, "product": 4439, "real_world": 4357}
    aliases = {"real_world": ("real",)}
    classes = (
        *("Alarm_Clock", "Backpack", "Batteries", "Bed", "Bike", "Bottle", "Bucket", "Calculator"),
        *("Calendar", "Candles", "Chair", "Clipboards", "Computer", "Couch", "Curtains"),
        *("Desk_Lamp", "Drill", "Eraser", "Exit_Sign", "Fan", "File_Cabinet", "Flipflops"),
        *("Flowers", "Folder", "Fork", "Glasses", "Hammer", "Helmet", "Kettle", "Keyboard"),
        *("Knives", "Lamp_Shade", "Laptop", "Marker", "Monitor", "Mop", "Mouse", "Mug"),
        *("Notebook", "Oven", "Pan", "Paper_Clip", "Pen", "Pencil", "Postit_Notes", "Printer"),
        *("Push_Pin", "Radio", "Refrigerator", "Ruler", "Scissors", "Screwdriver", "Shelf"),
        *("Sink", "Sneakers", "Soda", "Speaker", "Spoon", "TV", "Table", "Telephone"),
        *("ToothBrush", "Toys", "Trash_Can", "Webcam"),
    )
    lists = {
        name: tuple(
            file
            for word in spellings
            for file in (f"{word}.txt", f"{word}_list.txt", f"labeled_source_images_{word}.txt")
        )
        for name, spellings in {
            "art": ("Art",),
            "clipart": ("Clipart",),
            "product": ("Product",),
            "real_world": ("Real_World", "RealWorld", "Real"),
        }.items()
    }
    archives = ("OfficeHomeDataset_10072016.zip", "OfficeHome.zip", "office-home.zip")
    by_hand = (
        "open https://www.hemanthdv.org/officeHomeDataset.html in a browser, follow the link to "
        "OfficeHomeDataset_10072016.zip (about 1.1 GB, on a service that asks for a "
        "confirmation), and put it into the root as it is, or unpacked: "
        "ROOT/Art/Alarm_Clock/*.jpg"
    )
