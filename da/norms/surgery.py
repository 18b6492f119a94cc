"""The surgery that normalisers share: what can be removed, what takes its place, and where."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor, nn

from da.errors import UserError
from da.norms.flow import Flow, sole_feeder
from da.norms.tracing import NORMS, is_layer

# The batch norms that surgery replaces: these very classes, with the dimensions of their maps.
# A subclass may do more than normalise (timm's has the activation inside).
BATCH_NORMS: dict[type[nn.Module], int] = {
    nn.BatchNorm1d: 1,
    nn.BatchNorm2d: 2,
    nn.BatchNorm3d: 3,
    nn.SyncBatchNorm: 2,
}


class Affine(nn.Module):
    """Scale and shift of each channel: what remains of a batch norm that no single layer feeds.

    Attributes:
        weight, bias: ``(C,)`` float parameters.
    """

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter):
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, ...)`` to the same shape."""
        shape = (-1, *(1 for _ in range(x.dim() - 2)))
        return x * self.weight.view(shape) + self.bias.view(shape)

    def extra_repr(self) -> str:
        """What ``print`` shows of the layer."""
        return str(len(self.weight))


def affine_parameters(norm: nn.Module) -> tuple[nn.Parameter, nn.Parameter]:
    """Scale and shift of a batch norm, ``(C,)`` each: its own parameters, or new ones that do
    nothing where it has none."""
    own = norm._parameters
    where = next((t.device for t in norm.buffers()), None)
    size = int(norm.num_features)  # type: ignore[arg-type]
    weight, bias = own.get("weight"), own.get("bias")
    return (
        nn.Parameter(torch.ones(size, device=where)) if weight is None else weight,
        nn.Parameter(torch.zeros(size, device=where)) if bias is None else bias,
    )


def scalable_layers(model: nn.Module) -> set[nn.Module]:
    """The layers that can take a scale of each output into their weight.

    They are torch.nn's own: a subclass may standardise its weight, and a scale would be lost. Not
    among them are transposed convolutions, whose weight has the outputs second, and layers whose
    weight is computed from other parameters.
    """
    return {
        layer
        for layer in model.modules()
        if is_layer(layer)
        and type(layer).__module__.startswith("torch.nn.modules.")
        and "weight" in layer._parameters
        and not getattr(layer, "transposed", False)
    }


def refuse_tied_weights(model: nn.Module, layers: Collection[nn.Module], what: str) -> None:
    """Refuses layers whose weight is also another module's, since it is changed in place.

    Args:
        model: that they are of.
        layers: whose weights are to be changed.
        what: changes them; the beginning of a clause.
    """
    owners: dict[int, str] = {}
    changed: set[int] = set()
    for name, module in model.named_modules():
        for kind, parameter in module.named_parameters(recurse=False):
            first = owners.setdefault(id(parameter), name)
            if module in layers and kind == "weight":
                changed.add(id(parameter))
            if first != name and id(parameter) in changed:
                raise UserError(
                    f"'{first}' and '{name}' of {title_of_model(model)} share one weight, and"
                    f" {what} one without the other; give each a weight of its own"
                )


def copy_parameter(parameter: Tensor, like: Tensor) -> nn.Parameter:
    """A parameter of its own with the same values, of the dtype and device of ``like``."""
    values = parameter.detach().to(like, copy=True)
    return nn.Parameter(values, requires_grad=parameter.requires_grad)


@torch.no_grad()
def fold_affine(layer: nn.Module, scale: Tensor, shift: Tensor) -> None:
    """Gives a layer the scale and shift, ``(O,)`` each, of what it puts out; changed in place.

    Args:
        layer: a convolution, not a transposed one, or a linear layer. It has a bias afterwards,
            which is trained where its weight is.
    """
    weight, bias = layer.get_parameter("weight"), layer._parameters["bias"]
    weight.mul_(scale.view(-1, *(1 for _ in weight.shape[1:])))
    layer.bias = copy_parameter(shift, weight).requires_grad_(weight.requires_grad)
    if bias is not None:
        layer.bias.add_(bias * scale)


def replacements_of_removed(
    norms: Iterable[nn.Module], absorbed: Collection[nn.Module]
) -> dict[nn.Module, nn.Module]:
    """What stands where batch norms were removed: nothing where a layer took over the affine."""
    return {n: nn.Identity() if n in absorbed else Affine(*affine_parameters(n)) for n in norms}


def replace_modules(model: nn.Module, swaps: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """Puts modules in the place of others, wherever those stand: the one traversal.

    A module that is shared stands in several places; all of them get the same new one.

    Args:
        model: changed in place.
        swaps: old module to new; new ones may contain the old.

    Returns:
        The model, or what replaces it.
    """
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child is not None and child in swaps:
                parent._modules[name] = swaps[child]
    return swaps.get(model, model)


def removable_batch_norms(
    model: nn.Module, excluded: Collection[nn.Module] = ()
) -> list[nn.Module]:
    """The batch norms of a model, without those in ``excluded``.

    Raises:
        UserError: where a module keeps running statistics in a way that is not known.
    """
    batch_norms = []
    for name, module in model.named_modules():
        if module in excluded:
            continue
        if type(module) in BATCH_NORMS:
            batch_norms.append(module)
        elif isinstance(module, nn.modules.batchnorm._BatchNorm) or "running_mean" in dict(
            module.named_buffers(recurse=False)
        ):
            raise UserError(
                f"'{name}' of {title_of_model(model)} is a {type(module).__name__}, and only"
                " torch.nn's own batch norms can be replaced; build the network with those"
            )
    return batch_norms


def refuse_other_normalisers(
    model: nn.Module, by: str, excluded: Collection[nn.Module] = ()
) -> None:
    """Refuses a network with other normalisers than batch norm, but for those in ``excluded``."""
    for name, module in model.named_modules():
        batch = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if _normalises(module) and not batch and module not in excluded:
            raise UserError(
                f"{title_of_model(model)} has another normaliser than batch norm ('{name}' is a"
                f" {type(module).__name__}), which '{by}' does not remove;"
                " use 'bn' to leave the network as it is"
            )


def _normalises(module: nn.Module) -> bool:
    """Whether it is a normaliser of torch.nn, or by its name one of another library (timm's RMS
    norms and EvoNorms): it is called so and has a scale for each channel."""
    scale = module._parameters.get("weight")
    named = "norm" in type(module).__name__.lower() and scale is not None and scale.dim() == 1
    return isinstance(module, NORMS) or named


def sole_feeders(
    flow: Flow, norms: Iterable[nn.Module], layers: Collection[nn.Module]
) -> dict[nn.Module, nn.Module]:
    """The layers that can take over the affine of the batch norm that follows them.

    That is where the layer's output goes nowhere else, in every call of the layer, every call of
    the batch norm is fed so by one of ``layers``, and nothing else uses the layer's weight.

    Returns:
        Layer to batch norm. A batch norm that is shared stands beside several layers.
    """
    followed_by: dict[nn.Module, nn.Module] = {}
    for norm in norms:
        sources = [sole_feeder(call) for call in flow.calls.get(norm, [])]
        fed = [
            s.module
            for s in sources
            if s is not None and s.module in layers and not flow.is_read(s.module)
        ]
        every = [call for layer in fed if layer is not None for call in flow.calls[layer]]
        if sources and len(fed) == len(sources) and set(every) == set(sources):
            followed_by.update((layer, norm) for layer in fed if layer is not None)
    return followed_by


def title_of_model(model: nn.Module) -> str:
    """How errors name a model."""
    return type(model).__name__
