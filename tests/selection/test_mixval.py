import pytest
import torch
from made_evidence import evidence, evidence_of_images

from da.errors import UserError
from da.ops.seeding import derive_seed
from da.selection.mixval import MixVal, MixValInter, MixValIntra


def drawn(n=31, classes=4, seed=0):
    """Images, and a network that is not linear: mixtures may be of a third class."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(n, 1, 2, 3, generator=generator)
    weight = torch.randn(6, classes, generator=generator)
    return images, lambda x: torch.sin(2 * x.flatten(1)) @ weight


def by_hand(given, images, network):
    """Both shares, pair by pair: the images in their order as two kinds of rings."""
    order = torch.cat([part for _, part in given.images(derive_seed(given.seed, "MixVal"))])
    labels = given.target.logits.argmax(dim=1).tolist()
    order = order.tolist()
    inter = [(a, b) for b, a in zip(order, order[1:] + order[:1], strict=True)]
    inter = [(a, b) for a, b in inter if labels[a] != labels[b]]
    intra = []
    for label in set(labels):
        ring = [i for i in order if labels[i] == label]
        if len(ring) > 1:
            intra += list(zip(ring[1:] + ring[:1], ring, strict=True))

    def share(pairs):
        hits = [
            network((0.55 * images[a] + 0.45 * images[b])[None]).argmax().item() == labels[a]
            for a, b in pairs
        ]
        return sum(hits) / len(hits)

    return share(intra), share(inter)


@pytest.mark.parametrize("batch", [1, 4, 31])
def test_it_is_the_share_of_mixtures_that_are_of_the_prevailing_class(batch):
    images, network = drawn()
    given = evidence_of_images(images, network, batch, seed=3)
    intra, inter = by_hand(given, images, network)
    assert MixValIntra()(given) == pytest.approx(intra)
    assert MixValInter()(given) == pytest.approx(inter)
    assert MixVal()(given) == pytest.approx((intra + inter) / 2)
    assert intra != inter


def test_pairs_depend_on_the_seed_alone():
    images, network = drawn(n=60)
    of = [MixVal()(evidence_of_images(images, network, seed=seed)) for seed in (0, 0, 1)]
    assert of[0] == of[1] != of[2]


def sums(scale):
    """A network that tells negative images from positive ones."""
    return lambda x: scale * torch.stack([-x.flatten(1).sum(dim=1), x.flatten(1).sum(dim=1)], dim=1)


def test_clusters_that_lie_apart_with_a_boundary_midway_score_1():
    images = torch.tensor([-1.0, 1.0]).repeat(10)[:, None, None, None].expand(-1, 1, 2, 2)
    assert MixVal()(evidence_of_images(images, sums(1.0))) == 1.0


def test_one_class_for_all_has_no_boundary_and_a_single_image_no_pair():
    images = torch.ones(5, 1, 2, 2)
    given = evidence_of_images(images, sums(1.0))
    scores = [kind()(given) for kind in (MixValIntra, MixValInter, MixVal)]
    assert scores == [1.0, 0.0, 0.5]
    assert MixVal()(evidence_of_images(images[:1], sums(1.0))) == 0.0


def test_evidence_without_images_is_refused():
    with pytest.raises(UserError, match="mixes images of the target, and the evidence holds none"):
        MixVal()(evidence(torch.eye(3)))
