"""What networks make of images, as NumPy files for other programs."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from da.analysis.trained_networks import ROLES, Subject, TrainedNetwork
from da.ops.files import write_atomically


def write_features(out: Path, networks: Sequence[TrainedNetwork], subject: Subject) -> list[Path]:
    """Writes ``features-NAME.npz`` for every network.

    Of each domain there are ``source_features`` ``(N, F)`` float32, ``source_logits`` ``(N, K)``
    float32, ``source_labels`` ``(N,)`` int64, negative where there is none, and ``source_names``
    ``(N,)`` of the images' files, or their positions; and ``classes`` ``(K,)``, ``domains``
    ``(2,)`` and ``split``. ``numpy.load`` needs no pickles for it.

    Args:
        out: folder.
        networks: their names make those of the files.
        subject: names of classes and domains.
    """
    files: list[Path] = []
    for network in networks:
        content: dict[str, Any] = {
            "classes": np.array(subject.data.classes),
            "domains": np.array([subject.data.domain_of(role) for role in ROLES]),
            "split": np.array(subject.split),
        }
        for role in ROLES:
            sample = network.sample(role)
            content[f"{role}_features"] = sample.features
            content[f"{role}_logits"] = sample.logits
            content[f"{role}_labels"] = sample.labels
            content[f"{role}_names"] = np.array(sample.names)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **content)
        slug = re.sub(r"[^\w.+@-]+", "-", network.name).strip("-")
        path = out / f"features-{slug}.npz"
        if path in files:
            path = out / f"features-{slug}-{len(files) + 1}.npz"
        write_atomically(path, buffer.getvalue())
        files.append(path)
    return files
