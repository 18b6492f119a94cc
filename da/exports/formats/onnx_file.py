"""ONNX, for ONNX Runtime and whatever else reads it: any batch size, batch norms folded away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from da.errors import UserError
from da.exports.base import INPUT, KEY, OUTPUT, About, Exported, ExportFormat, about_of, refusing
from da.exports.plain_network import PlainClassifier, fold_all_batch_norms
from da.networks.network import Network


class Onnx(ExportFormat):
    """An ONNX model in one file; what it says of itself is in its metadata, each entry as JSON."""

    name: ClassVar[str] = "onnx"
    suffix: ClassVar[str] = ".onnx"
    writes_with: ClassVar[tuple[str, ...]] = ("onnx", "onnxscript")
    reads_with: ClassVar[tuple[str, ...]] = ("onnxruntime",)

    def write(self, network: Network, about: About, path: Path) -> None:
        """See :meth:`ExportFormat.write`."""
        import onnx

        fold_all_batch_norms(network)
        side = about.preparation.image_size
        example = torch.zeros(2, 3, side, side)  # of one, a batch of one would be a constant
        with refusing(self, "torch-export"):
            program: Any = torch.onnx.export(
                PlainClassifier(network).eval(),
                (example,),
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
            program.save(str(path), external_data=False)
        model = onnx.load(str(path))
        entries = {name: _as_text(value) for name, value in about.as_dict().items()}
        onnx.helper.set_model_props(model, {**entries, KEY: about.as_json()})
        onnx.save(model, str(path))

    def read(self, path: Path) -> Exported:
        """See :meth:`ExportFormat.read`."""
        import onnxruntime

        try:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3  # errors
            options.intra_op_num_threads = torch.get_num_threads()
            session = onnxruntime.InferenceSession(
                path.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own kinds
            reason = " ".join(str(error).split())
            raise UserError(f"'{path}' can't be read as ONNX: {reason}") from error
        entries = session.get_modelmeta().custom_metadata_map
        about = about_of(entries.get(KEY, ""), str(path))

        def logits(images: Tensor) -> Tensor:
            outputs = session.run([OUTPUT], {INPUT: images.float().numpy()})
            return torch.from_numpy(outputs[0])

        return Exported(logits, about)


def _as_text(value: object) -> str:
    """A text as it is, for people; all else, and what is no UTF-8, as JSON."""
    plain = isinstance(value, str) and value.isascii()
    return str(value) if plain else json.dumps(value)
