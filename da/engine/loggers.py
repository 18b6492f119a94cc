"""Loggers of a training by name: losses of its steps and accuracies of its evaluations."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from da.errors import UserError, unknown

#: The packages that a logger needs besides those of the library.
PACKAGES = {
    "csv": (),
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "mlflow": ("mlflow", "sqlalchemy"),
}


def loggers(names: str | Sequence[str], folder: Path) -> list[Any]:
    """Lightning's loggers of a run, each writing below the run's folder and nowhere else.

    - ``csv``: ``metrics/metrics.csv``; ``metrics-2`` and so on for a run that was resumed.
    - ``tensorboard``: ``tensorboard/``; look at it with ``tensorboard --logdir FOLDER``.
    - ``wandb``: ``wandb/``, offline; ``wandb sync FOLDER/wandb/offline-run-…`` sends it.
    - ``mlflow``: the SQLite file ``mlflow.db``; look at it with
      ``mlflow ui --backend-store-uri sqlite:///FOLDER/mlflow.db``.

    Args:
        names: of loggers, also as one text with commas; ``none`` for none.
        folder: of the run.

    Raises:
        UserError: for a name that does not exist, or whose package is not installed.
    """
    return [_MAKERS[name](Path(folder)) for name in logger_names(names)]


def logger_names(names: str | Sequence[str]) -> list[str]:
    """The names of loggers, checked.

    >>> logger_names("none"), logger_names("csv, csv")
    ([], ['csv'])

    Raises:
        UserError: for a name that does not exist, or whose package is not installed.
    """
    words = names.split(",") if isinstance(names, str) else list(names)
    chosen = list(dict.fromkeys(word.strip() for word in words))
    for name in chosen:
        if name not in (*PACKAGES, "none"):
            raise unknown("logger", name, [*PACKAGES, "none"])
    if "none" in chosen and len(chosen) > 1:
        raise UserError(f"logger: expected none or names of loggers, got {', '.join(chosen)}")
    chosen = [name for name in chosen if name != "none"]
    for name in chosen:
        missing = [p for p in PACKAGES[name] if importlib.util.find_spec(p) is None]
        if missing:
            raise UserError(
                f"logger: '{name}' needs the package '{missing[0]}', which is not installed: "
                f"pip install {' '.join(PACKAGES[name])}"
            )
    return chosen


def _csv(folder: Path) -> Any:
    from pytorch_lightning.loggers import CSVLogger

    # It empties its folder, so a resumed run logs into another one.
    parts = len(list(folder.glob("metrics*")))
    return CSVLogger(folder, name="", version=f"metrics-{parts + 1}" if parts else "metrics")


def _tensorboard(folder: Path) -> Any:
    from pytorch_lightning.loggers import TensorBoardLogger

    return TensorBoardLogger(folder, name="", version="tensorboard", default_hp_metric=False)


def _wandb(folder: Path) -> Any:
    import wandb
    from pytorch_lightning.loggers import WandbLogger

    class OneRun(WandbLogger):
        """Ends its run with the training: the next one of this process has its own."""

        def finalize(self, status: str) -> None:
            super().finalize(status)
            if self._experiment is not None:
                self._experiment.finish()

    folder.mkdir(parents=True, exist_ok=True)  # else it goes to a temporary folder
    return OneRun(
        name=folder.name,
        project="da",
        save_dir=folder,
        offline=True,
        settings=wandb.Settings(silent=True, console="off"),
    )


def _mlflow(folder: Path) -> Any:
    from pytorch_lightning.loggers import MLFlowLogger

    for chatty, level in (("mlflow", "WARNING"), ("pytorch_lightning.loggers.mlflow", "ERROR")):
        logging.getLogger(chatty).setLevel(level)
    folder = folder.absolute()
    return MLFlowLogger(
        experiment_name="da",
        run_name=folder.name,
        tracking_uri=f"sqlite:///{folder / 'mlflow.db'}",
        artifact_location=(folder / "mlflow").as_uri(),
    )


_MAKERS: dict[str, Callable[[Path], Any]] = {
    "csv": _csv,
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
}
