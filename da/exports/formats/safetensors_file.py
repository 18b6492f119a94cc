"""A safetensors file, under the names of torchvision or timm."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from da.exports.base import KEY, About, Exported, ExportFormat
from da.exports.formats.torch_file import ADVICE, exported_of
from da.exports.library_network import library_network
from da.networks.network import Network
from da.ops.tensor_files import read_tensors


class Safetensors(ExportFormat):
    """Tensors, and what the file says of itself as JSON in its header's metadata."""

    name: ClassVar[str] = "safetensors"
    suffix: ClassVar[str] = ".safetensors"

    def write(self, network: Network, about: About, path: Path) -> None:
        """See :meth:`ExportFormat.write`."""
        from safetensors.torch import save_file

        named = library_network(network, about.facts["backbone"])
        about = about._replace(facts={**about.facts, "architecture": named.facts()})
        # "format" is what other readers ask for.
        save_file(dict(named.state), path, metadata={"format": "pt", KEY: about.as_json()})

    def read(self, path: Path) -> Exported:
        """See :meth:`ExportFormat.read`."""
        state = read_tensors("network", str(path), ADVICE)
        return exported_of(state, _metadata(path).get(KEY, ""), str(path))

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """See :meth:`ExportFormat.recognises`; other files have this suffix, too."""
        return path.suffix.lower() == cls.suffix and KEY in _metadata(path)


def _metadata(path: Path) -> dict[str, str]:
    """Of the header; empty where it can't be read, which whoever reads the tensors says."""
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except Exception:  # of the file system, or the package's own
        return {}
