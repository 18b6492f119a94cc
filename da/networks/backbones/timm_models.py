"""Models of timm (Wightman, pytorch-image-models), by name: ``timm/resnet50_gn``.

timm is optional (the extra ``timm``) and imported only when one of its models is built.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from da.errors import UserError, unknown
from da.networks.backbones.base import Backbone, Preprocessing, download_weights, load_weights
from da.norms.joined_layers import split_joined_layers
from da.ops.tensor_files import refuse_unsafe_loading


class TimmModel(Backbone):
    """A model of timm without its classifier: pooled features.

    The name may say which of timm's weights are meant, ``timm/resnet50.a1_in1k``; without, those
    that timm takes by default. Layers in which timm joins several of PyTorch's come apart (see
    :func:`da.norms.joined_layers.split_joined_layers`). Without weights, all batch norms start at a
    scale of 1, as torchvision's do; timm starts the last of a residual branch at 0, and WeightAlign
    would take that over as its g.

    Args:
        name: ``timm/`` and a name of ``timm.list_models``.
        weights: None for random weights, ``"imagenet"`` for timm's weights of that name, or the
            path of a file with timm's own names of tensors, as its releases are.
    """

    prefix = "timm/"
    library = "timm"

    def __init__(self, name: str, weights: str | None = None):
        super().__init__(name, weights)
        timm = _import_timm(name)
        model = name.removeprefix(self.prefix)
        _check_name(timm, model)
        network: Any
        if weights == "imagenet":
            network = _create_pretrained(timm, model)
        else:
            network = timm.create_model(model, num_classes=0)
            if weights is None:
                for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
                    nn.init.ones_(norm.weight)
            else:
                heads = tuple(_classifier_prefixes(network))
                load_weights(network, weights, heads, lambda: _find_twin(timm, model, network))
        self.size: tuple[int, ...] = tuple(network.pretrained_cfg["input_size"])
        self.num_features = _measure_width(name, network, self.size)
        self.head = next((name.removesuffix(".") for name in _classifier_prefixes(network)), "")
        self.network = split_joined_layers(network)

    def forward(self, images: Tensor) -> Tensor:
        """Features ``(B, num_features)`` of images ``(B, 3, H, W)``."""
        try:
            return self.network(images)
        except AssertionError as error:  # how timm's models refuse a size that is not theirs
            got, own = (" × ".join(map(str, shape[-2:])) for shape in (images.shape, self.size))
            raise UserError(
                f"backbone '{self.name}' does not take images of {got} ({_first_line(error)}); "
                f"its own size is {own}: give images of that"
            ) from error

    def library_model(self) -> nn.Module:
        """See :meth:`Backbone.library_model`."""
        return self.network

    @classmethod
    def build_library_model(cls, name: str) -> nn.Module:
        """See :meth:`Backbone.build_library_model`; timm's joined layers are joined."""
        model: nn.Module = _import_timm(name).create_model(
            name.removeprefix(cls.prefix), num_classes=0
        )
        return model

    @classmethod
    def preprocessing(cls, name: str) -> Preprocessing | None:
        """See :meth:`Backbone.preprocessing`; as timm's entry for the weights says."""
        timm, model = _import_timm(name), name.removeprefix(cls.prefix)
        _check_name(timm, model)
        entry = timm.models.get_pretrained_cfg(model)
        if entry is None:
            return None
        return Preprocessing(tuple(entry.mean), tuple(entry.std), int(entry.input_size[-1]))

    def example(self) -> Tensor:
        """An image ``(1, 3, H, W)``, for the normalisers where the model can't be traced."""
        return torch.zeros(1, *self.size)


def _import_timm(name: str) -> Any:
    try:
        import timm
    except ImportError as error:
        raise UserError(
            f"backbone '{name}' needs timm, which can't be imported ({error}): pip install timm"
        ) from error
    return timm


def _check_name(timm: Any, name: str) -> None:
    """Refuses a model that timm doesn't have, or weights of it that it doesn't name."""
    prefix = TimmModel.prefix
    if not timm.is_model(name):
        available = timm.list_models()
        near = difflib.get_close_matches(name, available, n=5, cutoff=0.4)
        hint = (
            f"; did you mean one of: {', '.join(prefix + model for model in near)}" if near else ""
        )
        raise UserError(
            f"unknown backbone '{prefix}{name}': timm {timm.__version__} has {len(available)} "
            f"models, and not that{hint}"
        )
    model, _, tag = name.partition(".")
    tagged = timm.list_models(f"{model}.*", include_tags=True)
    if tag and name not in tagged:
        raise unknown("backbone", prefix + name, (prefix + other for other in [model, *tagged]))


def _find_twin(timm: Any, name: str, network: Any) -> str | None:
    """The network whose tensors have the same shapes, though it pads and divides otherwise.

    timm has many as TensorFlow computes them and as PyTorch does, ``tf_NAME`` and ``NAME``.
    """
    model, _, _ = name.partition(".")
    other = model.removeprefix("tf_") if model.startswith("tf_") else f"tf_{model}"
    if not timm.is_model(other):
        return None
    with torch.device("meta"):
        theirs = timm.create_model(other, num_classes=0).state_dict()
    shapes = [[v.shape for v in state.values()] for state in (network.state_dict(), theirs)]
    return f"{TimmModel.prefix}{other}" if shapes[0] == shapes[1] else None


def _create_pretrained(timm: Any, name: str) -> Any:
    """The model with timm's weights and without its classifier.

    The classifier goes last: with it every tensor must fit, where timm passes over what is missing
    when the number of classes is another. No code in a file is run.
    """
    if not timm.models.is_model_pretrained(name):
        raise UserError(f"weights: timm has none for '{name}'; give a file, or leave weights out")
    refuse_unsafe_loading("weights")
    overlay = {"file": _fetch_weights(timm.models.get_pretrained_cfg(name)), "custom_load": False}
    try:
        network = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay)
    except Exception as error:  # whatever a broken file or one of another model provokes
        raise UserError(
            f"weights: '{overlay['file']}' is not what timm takes for '{name}' "
            f"({_first_line(error)}); remove that file, or give another: --model.weights FILE"
        ) from error
    network.reset_classifier(0)
    return network


def _fetch_weights(source: Any) -> str:
    """The file of timm's weights, from the caches, the release or the Hugging Face hub.

    A release with its checksum in the name is preferred, since that is verified; the hub's files
    are compared by their size alone.

    Args:
        source: timm's entry for the weights.
    """
    checked = source.url and torch.hub.HASH_REGEX.search(source.url.rpartition("/")[2])
    if checked or not source.hf_hub_id:
        return download_weights(source.url)
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    model, _, version = source.hf_hub_id.partition("@")
    file, revision = source.hf_hub_filename or "model.safetensors", version or None
    cached = try_to_load_from_cache(model, file, revision=revision)
    if isinstance(cached, str):
        return cached
    try:
        return hf_hub_download(model, file, revision=revision)
    except Exception as error:  # no network, no such file, one that is cut short
        raise UserError(
            f"weights: could not download {file} of {model} ({_first_line(error)}); fetch it by "
            "hand and give the file: --model.weights FILE"
        ) from error


def _measure_width(name: str, network: Any, size: tuple[int, ...]) -> int:
    """Features per image, measured: timm's ``num_features`` leaves out what some heads add.

    The measurement is on the meta device, which knows shapes and computes nothing.

    Args:
        name: of the backbone, for errors.
        network: without its classifier.
        size: of an image, (channels, height, width).
    """
    tensors = dict(network.named_parameters()) | dict(network.named_buffers())
    on_meta = {key: tensor.to("meta") for key, tensor in tensors.items()}
    network.eval()  # where one image is enough, and no random number is drawn
    with torch.no_grad():
        shape = functional_call(network, on_meta, (torch.empty(1, *size, device="meta"),)).shape
    network.train()
    if len(shape) != 2:
        raise UserError(
            f"backbone '{name}' gives an output of shape {tuple(shape)} for one image, and a "
            "backbone gives a vector; choose a model that pools its features"
        )
    return int(shape[1])


def _classifier_prefixes(network: Any) -> Iterator[str]:
    """First parts of the names of the classifier's tensors."""
    names = network.pretrained_cfg.get("classifier") or ()
    for name in (names,) if isinstance(names, str) else names:
        yield f"{name}."


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].strip()
