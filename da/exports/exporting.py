"""From a trained method to a file that was compared with it on images."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from da.errors import UserError
from da.exports.base import About, ExportFormat
from da.exports.plain_network import plain_network
from da.methods.base import Method
from da.networks.network import evaluating
from da.ops.files import write_atomically

TOLERANCE = 1e-4
"""Largest difference of logits that passes, relative where they are larger than 1."""

MOST = 64
"""Images of the comparison."""


class Comparison(NamedTuple):
    """How a file's network differs from the one that it was made of.

    Attributes:
        images: how many both were shown.
        difference: the largest of the logits, relative to the largest logit where that is above 1.
    """

    images: int
    difference: float


def export_network(
    module: Method, about: About, images: Tensor, form: ExportFormat, out: Path
) -> Comparison:
    """Writes a method's evaluated network, once it was read again and gives the same.

    Beside it stands ``FILE.json`` with what the file says of itself, and the comparison.

    Args:
        module: on the CPU; it stays as it is.
        about: what the file says of itself.
        images: ``(B, 3, H, W)`` float32, prepared.
        form: of the file.
        out: the file.

    Raises:
        UserError: where the format can't hold the network, or the file's gives something else;
            nothing is written then.
    """
    with evaluating(module):
        expected = module(images).float()
    network = plain_network(module.evaluated())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"network{form.suffix}")
        form.write(network, about, file)
        written = form.read(file)
        difference = largest_difference(written.logits, images, expected)
        compared = Comparison(len(images), difference)
        if not compared.difference <= TOLERANCE:  # nor NaN
            raise UserError(
                f"the exported network is not the original: on {len(images)} images its outputs "
                f"differ by up to {compared.difference:.1e}, and {TOLERANCE:.0e} is allowed; "
                "nothing is written, try another format"
            )
        write_atomically(out, file.read_bytes())
    content = {**written.about.as_dict(), "compared": compared._asdict()}
    write_atomically(out.with_name(f"{out.name}.json"), json.dumps(content, indent=1) + "\n")
    return compared


def largest_difference(
    logits: Callable[[Tensor], Tensor], images: Tensor, expected: Tensor
) -> float:
    """The largest difference from expected logits, over all images at once and the first alone.

    Args:
        logits: of images ``(B, 3, H, W)``: ``(B, K)``.
        images: ``(B, 3, H, W)``.
        expected: ``(B, K)``.
    """
    found = torch.cat([logits(images), logits(images[:1])])
    wanted = torch.cat([expected, expected[:1]])
    if found.shape != wanted.shape:
        raise UserError(
            f"the exported network gives outputs of shape {tuple(found.shape)}, and not "
            f"{tuple(wanted.shape)}; try another format"
        )
    scale = max(1.0, wanted.abs().max().item())
    return (found - wanted).abs().max().item() / scale


def first_images(batches: Iterable[Tensor]) -> Tensor:
    """The first :data:`MOST` images of batches ``(B, 3, H, W)``.

    Raises:
        UserError: where there is none.
    """
    rows = (image for batch in batches for image in batch)
    chosen = [image.clone() for image in islice(rows, MOST)]
    if not chosen:
        raise UserError("no image could be read to compare the exported network on; give others")
    return torch.stack(chosen)
