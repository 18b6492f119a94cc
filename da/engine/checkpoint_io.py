"""How the trainer writes and reads its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytorch_lightning.plugins.io import TorchCheckpointIO

from da.ops.tensor_files import read_tensors, write_checkpoint


class VerifiedCheckpointIO(TorchCheckpointIO):
    """Checkpoints on local disks that carry a checksum, compared whenever one is read.

    Lightning's own go through TMPDIR: on another file system a full disk costs the last good one,
    and a flipped bit is resumed from. These are written beside their target and renamed.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """See :func:`da.ops.tensor_files.write_checkpoint`; there are no storage options."""
        if storage_options is not None:
            raise TypeError("a checkpoint on a local disk takes no storage_options")
        write_checkpoint(Path(path), checkpoint)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """See :func:`da.ops.tensor_files.read_tensors`: on the CPU, without running any code.

        Args:
            path: the file.
            map_location: not heeded; the trainer moves what it takes.
            weights_only: not heeded; nothing else is ever loaded.
        """
        return read_tensors("checkpoint", str(path), "give a .ckpt that a run wrote")
