"""A state dict of torch.save, under the names of torchvision or timm."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from da.errors import UserError
from da.exports.base import KEY, About, Exported, ExportFormat, about_of
from da.exports.library_network import build_library_network, library_network
from da.networks.network import Network
from da.ops.tensor_files import read_tensors, refuse_unsafe_loading, write_checkpoint

ADVICE = "give a file that export wrote"


class Torch(ExportFormat):
    """``{"state_dict": …, "da_export": JSON}``; torch.load reads it with ``weights_only=True``."""

    name: ClassVar[str] = "torch"
    suffix: ClassVar[str] = ".pth"

    def write(self, network: Network, about: About, path: Path) -> None:
        """See :meth:`ExportFormat.write`."""
        named = library_network(network, about.facts["backbone"])
        about = about._replace(facts={**about.facts, "architecture": named.facts()})
        write_checkpoint(path, {"state_dict": dict(named.state), KEY: about.as_json()})

    def read(self, path: Path) -> Exported:
        """See :meth:`ExportFormat.read`."""
        content = read_tensors("network", str(path), ADVICE)
        return exported_of(content["state_dict"], content[KEY], str(path))

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """See :meth:`ExportFormat.recognises`; other files have this suffix, too."""
        if path.suffix.lower() != cls.suffix or not path.is_file():
            return False
        refuse_unsafe_loading("checkpoint")
        try:
            content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception:  # said by whoever reads it as a checkpoint
            return False
        return isinstance(content, dict) and {KEY, "state_dict"} <= content.keys()


def exported_of(state: dict[str, Tensor], text: object, path: str) -> Exported:
    """The network of tensors under a library's names, and of what their file says of them."""
    about = about_of(str(text), path)
    try:
        network: nn.Module = build_library_network(about.facts["architecture"], state)
    except (KeyError, UserError) as error:
        raise UserError(f"network: '{path}' can't be built again: {error}") from error

    def logits(images: Tensor) -> Tensor:
        with torch.no_grad():
            out: Tensor = network(images.float())
            return out

    return Exported(logits, about)
