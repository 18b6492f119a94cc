"""What a conversion of trained weights refuses, before anything is fitted."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor, fx, nn

from da.errors import UserError
from da.norms.surgery import title_of_model
from da.norms.weight_align.layers import Aligned


def refuse_out_of_sight(target: nn.Module, graph: fx.Graph, aligned: Collection[str]) -> None:
    """Refuses aligned layers within a call that is taken as one, so that none could be fitted."""
    called = {str(node.target) for node in graph.nodes if node.op == "call_module"}
    for name in aligned:
        for whole in called:
            if name.startswith(f"{whole}."):
                holder, layer = whole.partition(".")[2], name.partition(".")[2]
                raise UserError(
                    f"'{layer}' of {title_of_model(target)} is aligned, and '{holder}' calls it out"
                    f" of sight, so it can't be fitted; leave it out with exclude='{layer}'"
                )


def refuse_affine_of_others(converted: nn.Module, served: Collection[str]) -> None:
    """Refuses aligned layers whose scale or shift a batch norm that stays would serve as.

    Args:
        converted: the network.
        served: names of the layers whose scale and shift are those of a normaliser that is fitted.
    """
    for name, layer in converted.named_modules():
        alone = name not in served
        if isinstance(layer, Aligned) and alone and (layer.g is None or layer.bias is None):
            raise UserError(
                f"'{name}' of {title_of_model(converted)} feeds a normaliser that is excluded from"
                f" 'wa', so it has no g and b of its own to be fitted; exclude '{name}' as well"
            )


def refuse_other_outputs(original: nn.Module, chunk: Tensor) -> None:
    """Refuses a network whose outputs can't be compared, before its layers are fitted."""
    output = original(chunk)
    if not isinstance(output, Tensor) or output.dim() < 2:
        raise UserError(
            f"{title_of_model(original)} gives a {type(output).__name__}, and conversion needs"
            " a network that gives one tensor (N, ...); wrap it in one that does"
        )
