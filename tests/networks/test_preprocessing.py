"""Mean, deviation and size of images come from the weights; no weights are read for it."""

import logging
from types import SimpleNamespace

import pytest
import torchvision.models as zoo

from da.errors import UserError
from da.networks.backbones.base import backbone_families, preprocessing_of
from da.networks.preprocessing import adopt_preprocessing, describe_preprocessing

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 224)


class Data:
    """As much of a data module as takes preprocessing."""

    def __init__(self, **preferences):
        self.preferences = preferences
        self.taken = None

    def adopt(self, *values):
        self.taken = values


@pytest.mark.parametrize("name", [n for n in backbone_families() if hasattr(zoo, n)])
def test_torchvisions_are_those_of_the_published_tables(name):
    assert preprocessing_of(name, "imagenet") == IMAGENET
    assert preprocessing_of(name, "weights.pth") == IMAGENET


def test_random_weights_and_networks_without_published_ones_say_nothing():
    assert preprocessing_of("resnet50", None) is None
    assert preprocessing_of("digits_resnet", "weights.pth") is None
    with pytest.raises(UserError, match="did you mean 'resnet50'"):
        preprocessing_of("resnet5", "imagenet")


def test_timms_are_those_of_the_weights_that_are_named():
    pytest.importorskip("timm", reason="timm is not installed: pip install -e '.[timm]'")
    half = (0.5, 0.5, 0.5)
    assert preprocessing_of("timm/vit_tiny_patch16_224", "imagenet") == (half, half, 224)
    assert preprocessing_of("timm/resnet50_gn", "imagenet").size == 224
    assert preprocessing_of("timm/nf_resnet50.ra2_in1k", "a.pth").size == 256
    with pytest.raises(UserError, match="unknown backbone 'timm/resnet5'"):
        preprocessing_of("timm/resnet5", "imagenet")


def test_the_data_take_it_and_the_users_own_wins_with_a_line(caplog):
    data = Data()
    adopt_preprocessing(data, "resnet50", "imagenet")
    assert data.taken == IMAGENET
    adopt_preprocessing(Data(image_size=224, mean=list(IMAGENET[0])), "resnet50", "imagenet")
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        adopt_preprocessing(Data(mean=(0.5, 0.5, 0.5)), "resnet50", "imagenet")
    (record,) = caplog.records
    assert record.getMessage() == (
        "data.mean is (0.5, 0.5, 0.5), and the weights of resnet50 were trained with "
        "(0.485, 0.456, 0.406); yours is used"
    )


def test_nothing_is_taken_from_scratch():
    data = Data()
    adopt_preprocessing(data, "resnet50", None)
    assert data.taken is None


def test_what_was_used_is_plain_for_the_result():
    data = SimpleNamespace(mean=(0.5,) * 3, std=(0.2,) * 3, image_size=32)
    assert describe_preprocessing(data) == {"mean": [0.5] * 3, "std": [0.2] * 3, "image_size": 32}
