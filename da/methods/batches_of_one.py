"""Batches of one image: under which normalisers they can't be trained on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from da.errors import UserError
from da.networks.network import Network, evaluating
from da.norms import Normaliser, layers_of_batch_statistics
from da.norms.frozen_batch_norm import FrozenBatchNorm
from da.ops.acceleration import uncompiled

_MAPS = (nn.BatchNorm2d, nn.BatchNorm3d)


def refuse_batches_of_one(
    method: nn.Module, network: Network, name: str, norm: Normaliser, images: Iterable[Tensor]
) -> None:
    """Batch norm has no statistics of one image; on maps PyTorch says nothing.

    ``norm_options: {single_image: true}`` allows it where every batch norm sees a map of several
    positions, whose statistics are then those of its one image, as in instance norm, and of one
    image of each domain where both pass jointly. Evaluation normalises by running averages all the
    same.

    Args:
        method: all that is trained.
        network: the part of it that takes images.
        name: of the normaliser, as it was asked for.
        norm: the normaliser.
        images: batches ``(B, C, H, W)`` of what is trained on, of which one image is looked at;
            none where what a network makes of them is not asked.

    Raises:
        UserError: with the first layer that has no statistics of one image.
    """
    norms = layers_of_batch_statistics(method)
    layers = {k: m for k, m in norms.items() if not isinstance(m, FrozenBatchNorm)}
    if not layers:
        return
    kinds = {key: getattr(layer, "kind", type(layer)) for key, layer in layers.items()}
    single = norm.single_image
    in_the_way = [k for k, kind in kinds.items() if not (single and issubclass(kind, _MAPS))]
    if in_the_way:
        no_maps = "which see no maps, as single_image asks: --model.bottleneck null is without"
        raise UserError(
            f"batch_size 1 with norm '{name}': batch norm has no statistics "
            f"of one image ({len(in_the_way)} of such layers, the first {in_the_way[0]}"
            f"{', ' + no_maps if single else ''}); use a batch "
            "of 2 or more, or a normaliser without batch statistics such as 'wa' or 'gn'"
        )
    batch = next(iter(images), None)
    if batch is not None:
        _refuse_maps_of_one_position(network, layers, batch[:1])


def _refuse_maps_of_one_position(
    network: Network, layers: dict[str, nn.Module], image: Tensor
) -> None:
    """Refuses layers that one image ``(1, C, H, W)`` gives a single value per channel.

    Args:
        network: it is run once, in evaluation mode.
        layers: those that need more, by name.
        image: on the network's device or not.
    """
    short: list[str] = []

    def looked_at(name: str) -> Any:
        def look(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if inputs[0].shape[2:].numel() == 1:
                short.append(name)

        return look

    hooks = [layer.register_forward_pre_hook(looked_at(name)) for name, layer in layers.items()]
    try:
        with evaluating(network), uncompiled(network):
            network(image.to(next(network.parameters()).device), "source")
    finally:
        for hook in hooks:
            hook.remove()
    if short:
        raise UserError(
            f"batch_size 1: images of {image.shape[-2]} x {image.shape[-1]} are maps of one "
            f"position in {short[0]}, which have no statistics; use a batch of 2 or more, larger "
            "images, or a normaliser without batch statistics such as 'wa' or 'gn'"
        )
