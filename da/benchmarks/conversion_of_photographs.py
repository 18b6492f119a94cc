"""How much of a real network's predictions its conversion keeps, in the domain and in others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from da.benchmarks.conversion import time_call
from da.data_sets import find_data_set
from da.errors import UserError
from da.networks.backbones.base import build_backbone
from da.networks.preprocessing import adopt_preprocessing
from da.networks.published_classifier import read_published_classifier
from da.norms import Conversion, WeightAlign, convert_pretrained
from da.norms.weight_align.coverage import Coverage, measure_coverage
from da.ops.intervals import wilson_interval
from da.ops.seeding import derive_seed, permutation

CHUNK = 16
"""Images in a batch."""


class Kept(NamedTuple):
    """Top-1 predictions that stayed the same.

    Attributes:
        domain: of the images.
        equal: how many.
        images: of how many.
    """

    domain: str
    equal: int
    images: int

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.equal / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's, of 95 %."""
        return wilson_interval(self.share, self.images)


class Row(NamedTuple):
    """One conversion.

    Attributes:
        source: the domain that it was converted on.
        images: how many of its images.
        held_out: what is kept on the others of that domain.
        others: on the other domains, each alone.
        coverage: what is aligned.
        error: of the logits, see :class:`da.norms.Conversion`.
        seconds: of the conversion.
        busy: seconds that processors worked on it.
    """

    source: str
    images: int
    held_out: Kept
    others: tuple[Kept, ...]
    coverage: Coverage
    error: float
    seconds: float
    busy: float

    @property
    def together(self) -> Kept:
        """The other domains in one."""
        equal, count = (sum(getattr(k, name) for k in self.others) for name in ("equal", "images"))
        return Kept("others", equal, count)


def read_domain(data: str, root: str | None, domain: str, size: int | None, like: Any) -> Tensor:
    """All training images of a domain, ``(N, 3, size, size)``, in a fixed random order.

    Args:
        data: name of the data set.
        root: its folder.
        domain: one of its domains.
        size: of the images; None where the data set has one size.
        like: name of the backbone, whose mean and deviation are taken.
    """
    kind = find_data_set(data)
    other = next(name for name in kind.domains if name != domain)
    sized = {} if size is None else {"image_size": size}
    module = kind(source=domain, target=other, root=root, **sized)
    adopt_preprocessing(module, like, "file")
    module.prepare_data()
    module.setup("fit")
    images = module.set_of("source", "train")
    order = permutation(derive_seed("conversion"), 0, len(images))
    parts = (order[i : i + 64] for i in range(0, len(order), 64))
    return torch.cat([module.transform.evaluate(images.images(part)) for part in parts])


def build_classifier(backbone: str, weights: str) -> nn.Module:
    """A backbone with the classifier that its weights were published with."""
    plain = build_backbone(backbone, weights).eval()
    head = read_published_classifier(plain, backbone, weights)
    if head is None:
        raise UserError(
            f"weights: '{weights}' holds no classifier for {backbone}, whose predictions could be"
            " compared; give a file of the whole network"
        )
    linear = nn.Linear(plain.num_features, len(head[0]), bias=head[1] is not None)
    linear.load_state_dict(dict(zip(("weight", "bias"), head, strict=False)))
    return nn.Sequential(plain, linear).eval()


@torch.no_grad()
def predict(model: nn.Module, images: Tensor) -> Tensor:
    """The classes that are predicted, ``(N,)``."""
    chunks = images.split(CHUNK)
    channels_last = (c.contiguous(memory_format=torch.channels_last) for c in chunks)
    return torch.cat([model(chunk).argmax(1) for chunk in channels_last])


def measure_domain(
    model: nn.Module,
    images: dict[str, Tensor],
    wanted: dict[str, Tensor],
    source: str,
    count: int,
    normaliser: WeightAlign,
    progress: Callable[[int, int], None] | None = None,
) -> Row:
    """Converts on one domain and measures on all.

    Args:
        model: see :func:`build_classifier`.
        images: of each domain.
        wanted: what ``model`` predicts of them.
        source: the domain to convert on.
        count: of its images to convert on; at least a tenth is left out.
        normaliser: what is aligned.
        progress: see :func:`da.norms.convert_pretrained`.
    """
    count = min(count, 9 * len(images[source]) // 10)
    first, rest = images[source][:count], images[source][count:]

    def convert() -> Conversion:
        return convert_pretrained(model, first, rest[:64], normaliser=normaliser, progress=progress)

    conversion, seconds, busy = time_call(convert)
    coverage = measure_coverage(conversion.model)
    assert coverage is not None  # for the type checker: a conversion aligns
    kept = {}
    for name in images:
        shown, theirs = (a[name][count if name == source else 0 :] for a in (images, wanted))
        equal = int(torch.eq(predict(conversion.model.eval(), shown), theirs).sum())
        kept[name] = Kept(name, equal, len(shown))
    return Row(
        source=source,
        images=count,
        held_out=kept.pop(source),
        others=tuple(kept.values()),
        coverage=coverage,
        error=conversion.error,
        seconds=seconds,
        busy=busy,
    )
