"""What of the environment a training heeds: nothing that would change what it computes."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from lightning_fabric.plugins.environments import LightningEnvironment
from pytorch_lightning.utilities.rank_zero import rank_zero_only

log = logging.getLogger(__name__)

#: Variables by which Lightning takes a process for one of several, or of a cluster's job.
RANKS = {
    *("RANK", "LOCAL_RANK", "GLOBAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE"),
    *("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS", "JSM_NAMESPACE_RANK"),
}


#: Variables that Lightning sets itself where a seed is given.
OWN = {"PL_GLOBAL_SEED", "PL_SEED_WORKERS"}


class OneProcess(LightningEnvironment):
    """A training is one process on one device, whatever variables say."""

    def __init__(self) -> None:
        super().__init__()
        vars(rank_zero_only)["rank"] = 0  # read from the environment when Lightning was imported

    @property
    def creates_processes_externally(self) -> bool:
        """No launcher started this process as one of several."""
        return True

    def world_size(self) -> int:
        """Always 1."""
        return 1

    def set_world_size(self, size: int) -> None:
        """It stays one."""

    def global_rank(self) -> int:
        """The first, and only one."""
        return 0

    def set_global_rank(self, rank: int) -> None:
        """It stays the first."""

    def local_rank(self) -> int:
        """The first, and only one."""
        return 0

    def node_rank(self) -> int:
        """The first, and only one."""
        return 0


#: Variables that Lightning sets itself, in this process, when it seeds.
OF_SEEDING = {"PL_GLOBAL_SEED", "PL_SEED_WORKERS"}


def ignored_variables(environment: Mapping[str, str]) -> list[str]:
    """The variables that Lightning would heed and a training here does not, sorted.

    >>> ignored_variables({"PL_TRAINER_MAX_EPOCHS": "1", "SLURM_NTASKS": "2", "HOME": "/"})
    ['PL_TRAINER_MAX_EPOCHS', 'SLURM_NTASKS']
    """
    names = [name for name in environment if name.startswith("PL_") or name in RANKS]
    return sorted(name for name in names if name not in OF_SEEDING)


def ignored_checkpoints(folder: Path) -> list[str]:
    """Checkpoints that Lightning would go on from under Slurm, without being told to."""
    return sorted(path.name for path in folder.glob("hpc_ckpt_*.ckpt"))


@cache
def say_what_is_ignored() -> None:
    """One line, once in a process, for what is set or lies about, and changes nothing here."""
    if names := [*ignored_variables(os.environ), *ignored_checkpoints(Path())]:
        log.warning(
            "ignored, a training is one process and told all it needs: %s", ", ".join(names)
        )
