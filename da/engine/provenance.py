"""What a result depends on besides its specification: packages, code, the machine."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import da
from da.types import DataModule

log = logging.getLogger(__name__)


@cache
def package_versions() -> dict[str, str]:
    """Versions of what a result depends on, and a hash of this library's own code."""
    packages = ["torch", "torchvision", "pytorch-lightning", "numpy", "scikit-learn"]
    with suppress(PackageNotFoundError):  # optional
        version("timm")
        packages.append("timm")
    digest = hashlib.sha256()
    for file in sorted(Path(da.__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return {
        "da": da.__version__,
        "code": digest.hexdigest()[:16],
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


@cache
def describe_machine() -> str:
    """Processor, cores and system, in words."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":")[1].strip()
            for line in info.read_text(encoding="utf-8", errors="replace").splitlines()
            if "model name" in line
        ]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def say_remarks(data: DataModule) -> list[str]:
    """What users should know of the images, each line said once and kept with the result."""
    remarks = list(data.remarks())
    for text in remarks:
        log.warning("data: %s", text)
    return remarks
