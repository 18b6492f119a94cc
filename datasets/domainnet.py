"""DomainNet: 345 classes in six looks, and the cleaned subset of 126 in four of them."""

from __future__ import annotations

from pathlib import Path

from .base import Split
from .fetching.downloads import Download
from .files.benchmark import Benchmark
from .files.layout import Listing

_CLASSES = """
aircraft_carrier airplane alarm_clock ambulance angel animal_migration ant anvil apple arm
asparagus axe backpack banana bandage barn baseball baseball_bat basket basketball bat bathtub
beach bear beard bed bee belt bench bicycle binoculars bird birthday_cake blackberry blueberry
book boomerang bottlecap bowtie bracelet brain bread bridge broccoli broom bucket bulldozer bus
bush butterfly cactus cake calculator calendar camel camera camouflage campfire candle cannon
canoe car carrot castle cat ceiling_fan cello cell_phone chair chandelier church circle clarinet
clock cloud coffee_cup compass computer cookie cooler couch cow crab crayon crocodile crown
cruise_ship cup diamond dishwasher diving_board dog dolphin donut door dragon dresser drill
drums duck dumbbell ear elbow elephant envelope eraser eye eyeglasses face fan feather fence
finger fire_hydrant fireplace firetruck fish flamingo flashlight flip_flops floor_lamp flower
flying_saucer foot fork frog frying_pan garden garden_hose giraffe goatee golf_club grapes grass
guitar hamburger hammer hand harp hat headphones hedgehog helicopter helmet hexagon hockey_puck
hockey_stick horse hospital hot_air_balloon hot_dog hot_tub hourglass house house_plant
hurricane ice_cream jacket jail kangaroo key keyboard knee knife ladder lantern laptop leaf leg
light_bulb lighter lighthouse lightning line lion lipstick lobster lollipop mailbox map marker
matches megaphone mermaid microphone microwave monkey moon mosquito motorbike mountain mouse
moustache mouth mug mushroom nail necklace nose ocean octagon octopus onion oven owl paintbrush
paint_can palm_tree panda pants paper_clip parachute parrot passport peanut pear peas pencil
penguin piano pickup_truck picture_frame pig pillow pineapple pizza pliers police_car pond pool
popsicle postcard potato power_outlet purse rabbit raccoon radio rain rainbow rake
remote_control rhinoceros rifle river roller_coaster rollerskates sailboat sandwich saw
saxophone school_bus scissors scorpion screwdriver sea_turtle see_saw shark sheep shoe shorts
shovel sink skateboard skull skyscraper sleeping_bag smiley_face snail snake snorkel snowflake
snowman soccer_ball sock speedboat spider spoon spreadsheet square squiggle squirrel stairs star
steak stereo stethoscope stitches stop_sign stove strawberry streetlight string_bean submarine
suitcase sun swan sweater swing_set sword syringe table teapot teddy-bear telephone television
tennis_racquet tent The_Eiffel_Tower The_Great_Wall_of_China The_Mona_Lisa tiger toaster toe
toilet tooth toothbrush toothpaste tornado tractor traffic_light train tree triangle trombone
truck trumpet t-shirt umbrella underwear van vase violin washing_machine watermelon waterslide
whale wheel windmill wine_bottle wine_glass wristwatch yoga zebra zigzag
"""
"""In the order of the published lists, which ignores case."""
_CLEANED = """
aircraft_carrier alarm_clock ant anvil asparagus axe banana basket bathtub bear bee bird
blackberry blueberry bottlecap broccoli bus butterfly cactus cake calculator camel camera candle
cannon canoe carrot castle cat ceiling_fan cello cell_phone chair chandelier coffee_cup compass
computer cow crab crocodile cruise_ship dog dolphin dragon drums duck dumbbell elephant
eyeglasses feather fence fish flamingo flower foot fork frog giraffe goatee grapes guitar hammer
helicopter helmet horse kangaroo lantern laptop leaf lion lipstick lobster microphone monkey
mosquito mouse mug mushroom onion panda peanut pear peas pencil penguin pig pillow pineapple
potato power_outlet purse rabbit raccoon rhinoceros rifle saxophone screwdriver sea_turtle
see_saw sheep shoe skateboard snake speedboat spider squirrel strawberry streetlight string_bean
submarine swan table teapot teddy-bear television The_Eiffel_Tower The_Great_Wall_of_China tiger
toe train truck umbrella vase watermelon whale zebra
"""
_SERVER = "http://csr.bu.edu/ftp/visda/2019/multi-source"
_LISTS = f"{_SERVER}/domainnet/txt"
_PAGE = "http://ai.bu.edu/M3SDA/"
_FILES = """
clipart.zip 1270909081 f8f248a3e8bbc9868c523ae24e6601b4c2ad102afc60c0efeb4f3255df22354d
clipart_test.txt 628917 62c8e36aaba1c41ad9e249099739707220a44c08f167b37ef420f34a31628a6b
clipart_train.txt 1443819 affdadf5f95a7583e6b98030a3d35007e2613ee4dd942393c5a705ec2b429312
infograph.zip 4338659804 891e14f476317e97b6f06d6498c11d0a5b8d0c8b57210765ed9beb072da611fa
infograph_test.txt 728028 413cfa54ac92e7e6b242f4f09fbd9c8ace85c4deaf3cb6c81ff6b68264460136
infograph_train.txt 1683098 36b44cbd41a2915e0dc73b4f4be8862a6f3c220f93c8d63fb2439beeae3aefda
painting.zip 3679366174 fa47e6d405503ea0286cabd767f176bd30e988b63ddd7b9db16cf030c9770015
painting_test.txt 971888 11472b13b5188e09f06918b12eebb660588c97a20e43e268d9b02e3e37eb8f97
painting_train.txt 2241901 f1da38d50a702fddf1329f85bc607d7a2abcae7e6aec75e1fd49cc1bd340d47b
quickdraw.zip 459920701 9f37df2a8c3733703dbb35ad9964202a65f675ca30137756457537536b485d84
quickdraw_test.txt 2213400 2a00a60650a453c65c356da748fec54084a197272137c440e7d52d08947357bf
quickdraw_train.txt 5164600 3a5edd3bc215772010eebc87f158707703dd7e48091d13b816af81326a9d1c0f
real.zip 6062039589 d7fe010b430c5b510f85d657d38c4a1924822695fabea4fef57bd00dba251d63
real_test.txt 1911327 2b3f75bcde309aeb5931292084b2162e936b5f189e3bb1ad716f0f74c460864c
real_train.txt 4440944 19d483256d24aef19e581b65eda8333fd918aef3eb733fe499ff384120e3a289
sketch.zip 2633992926 23a7dbae7016b343e934399beaa8a68728fb5e570ebe2c71df9b75cf91c499fc
sketch_test.txt 850581 3fb48fca18c507c4321f007c3f62b308ec232ff6928cbfe2af64e76ec366e840
sketch_train.txt 1960222 72f4bc6afa5702a1ccba800d0053c1427de87439dfaf246dbc9a2e71abfec54f
"""
"""Bytes and sha256 of what is under these addresses, as TensorFlow Datasets records them."""


def _download(address: str) -> Download:
    file = address.rpartition("/")[2]
    size, sha256 = next(
        line.split()[1:] for line in _FILES.split("\n") if line.startswith(f"{file} ")
    )
    return Download(address, file, int(size), sha256, unpack=file.endswith(".zip"))


class DomainNet(Benchmark):
    """DomainNet: six domains, 345 classes, the cleaned version's lists of training and test.

    The target is trained on its training list and evaluated on its test list.
    """

    title = "DomainNet"
    reference = (
        "Peng, Bai, Xia, Huang, Saenko, Wang: Moment Matching for Multi-Source Domain Adaptation. "
        "ICCV 2019, arXiv 1812.01754"
    )
    licence = "non-commercial research, under the fair-use notice on its page"
    homepage = _PAGE
    domains = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")
    symbols = {name: name[0] for name in domains}
    classes = tuple(_CLASSES.split())
    transductive = False
    published_splits = True
    evaluation_limit = 2000
    counts = {
        **{"clipart/train": 33525, "clipart/test": 14604},
        **{"infograph/train": 36023, "infograph/test": 15582},
        **{"painting/train": 50416, "painting/test": 21850},
        **{"quickdraw/train": 120750, "quickdraw/test": 51750},
        **{"real/train": 120906, "real/test": 52041},
        **{"sketch/train": 48212, "sketch/test": 20916},
    }
    lists = {f"{d}/{s}": (f"{d}_{s}.txt",) for d in domains for s in ("train", "test")}
    downloads = tuple(
        download
        for name, place in {
            "clipart": "groundtruth/",
            "infograph": "",
            "painting": "groundtruth/",
            "quickdraw": "",
            "real": "",
            "sketch": "",
        }.items()
        for download in (
            _download(f"{_SERVER}/{place}{name}.zip"),
            _download(f"{_LISTS}/{name}_train.txt"),
            _download(f"{_LISTS}/{name}_test.txt"),
        )
    )
    by_hand = (
        f"open {_PAGE} in a browser, download the six archives (cleaned version) and the twelve "
        "lists of training and test, and put them into the root: ROOT/clipart.zip or "
        "ROOT/clipart/aircraft_carrier/*.jpg, ROOT/clipart_train.txt, ROOT/clipart_test.txt, …"
    )


class DomainNet126(Benchmark):
    """DomainNet-126: clipart, painting, real and sketch, 126 classes with little noise in labels.

    Transductive, by the lists of Saito et al. (labeled_source_images_*.txt), which hold all images
    of a domain.
    """

    title = "DomainNet-126"
    reference = (
        "Saito, Kim, Sclaroff, Darrell, Saenko: Semi-supervised Domain Adaptation via Minimax "
        "Entropy. ICCV 2019, arXiv 1904.06487; images: Peng et al. 2019"
    )
    licence = DomainNet.licence
    homepage = "https://github.com/VisionLearningGroup/SSDA_MME"
    domains = ("clipart", "painting", "real", "sketch")
    symbols = {"clipart": "C", "painting": "P", "real": "R", "sketch": "S"}
    classes = tuple(_CLEANED.split())
    evaluation_limit = 2000
    lists = {
        name: (f"labeled_source_images_{name}.txt", f"{name}_list.txt", f"{name}.txt")
        for name in domains
    }
    downloads = tuple(
        download
        for name in domains
        for download in (
            *(found for found in DomainNet.downloads if found.file == f"{name}.zip"),
            Download(
                "https://raw.githubusercontent.com/VisionLearningGroup/SSDA_MME/master/data/txt/"
                f"multi/labeled_source_images_{name}.txt",
                f"labeled_source_images_{name}.txt",
                unpack=False,
            ),
        )
    )
    by_hand = (
        f"get the archives of clipart, painting, real and sketch from {_PAGE} and the lists "
        "labeled_source_images_*.txt from "
        "https://github.com/VisionLearningGroup/SSDA_MME/tree/master/data/txt/multi, and put both "
        "into the root"
    )

    @classmethod
    def find_in_folder(
        cls, root: Path, domain: str, split: Split, skip: frozenset[str] = frozenset()
    ) -> Listing | None:
        """By lists alone: the folders hold the other 219 classes, too."""
        return cls.find_by_list(root, domain, split, skip)

    @classmethod
    def describe_wanted(cls, domain: str, split: Split) -> str:
        """See :meth:`Benchmark.describe_wanted`."""
        return f"the list '{cls.lists[domain][0]}' and the images that it names"
