"""The images of a conversion: those to fit on and those to measure on, in chunks."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from da.errors import UserError
from da.norms.surgery import title_of_model

# Images that go through a layer at a time.
CHUNK = 16
# Every so many-th image is held out of the fit where no others are given to measure on.
HELD_OUT = 10


def split_images(
    model: nn.Module, images: Tensor | Iterable[Tensor], held_out: Tensor | Iterable[Tensor] | None
) -> tuple[list[Tensor], list[Tensor]]:
    """The chunks to fit on and those to measure on, on the model's device and of its dtype."""
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    fitted = _list_batches("images", images)
    if held_out is not None:
        measured = _list_batches("held_out", held_out)
    else:
        together = torch.cat(fitted)
        last = torch.arange(len(together)) % HELD_OUT == HELD_OUT - 1
        fitted, measured = [together[~last]], [together[last]]
    counts = [sum(map(len, batches)) for batches in (fitted, measured)]
    if counts[0] < 2 or counts[1] < 1:
        raise UserError(
            f"{title_of_model(model)} can't be converted on {counts[0]} images and measured on"
            f" {counts[1]}: at least 2 and 1 are needed ({HELD_OUT} where none are held out);"
            " give some hundreds"
        )
    return _cut_into_chunks(fitted, like), _cut_into_chunks(measured, like)


def _list_batches(name: str, images: Tensor | Iterable[Tensor]) -> list[Tensor]:
    batches = [images] if isinstance(images, Tensor) else list(images)
    if not batches:
        raise UserError(f"{name}: no images came; give some hundreds")
    for batch in batches:
        if not isinstance(batch, Tensor) or not batch.is_floating_point() or batch.dim() < 2:
            kind = batch.dtype if isinstance(batch, Tensor) else type(batch).__name__
            raise UserError(
                f"{name}: expected float tensors (N, C, H, W), and {kind} came; prepare images as"
                " for evaluation, and leave out labels"
            )
    return batches


def _cut_into_chunks(batches: list[Tensor], like: Tensor) -> list[Tensor]:
    parts = [part.to(like) for batch in batches for part in batch.split(CHUNK)]
    # Small chunks in channels-last: a depthwise network then runs in a quarter of the time.
    return [p.contiguous(memory_format=torch.channels_last) if p.dim() == 4 else p for p in parts]


def first_of(chunks: list[Tensor], count: int) -> list[Tensor]:
    """The first so many images of the chunks."""
    kept = []
    for chunk in chunks:
        if count > 0:
            kept.append(chunk[:count])
            count -= len(chunk)
    return kept
