"""When a training may go on from a checkpoint: with the same settings, on the same images."""

from __future__ import annotations

import logging
from typing import Any

from da.engine.checkpoints import without_defaults
from da.engine.components import find_data, find_method
from da.engine.spec import NOT_OF_THE_DATA, RunSpec
from da.errors import UserError
from da.ops.domain_names import name_of_domain
from da.types import DataModule, Role

log = logging.getLogger(__name__)

LENGTH = ("epochs", "trainer.max_steps", "trainer.max_time", "trainer.min_epochs")
"""Settings that may change: a training may go on for longer."""


def refuse_other_spec(now: RunSpec, before: RunSpec, path: str) -> None:
    """Refuses to resume with other settings, some of which Lightning would silently ignore.

    Args:
        now: what is asked for.
        before: of the checkpoint.
        path: of the checkpoint, for the message.

    Raises:
        UserError: naming the first setting that differs.
    """
    new, old = flatten_spec(now), flatten_spec(before)
    for key in sorted({*new, *old}):
        if new.get(key) != old.get(key):
            raise UserError(
                f"{key}: '{path}' was trained with {old.get(key)}, now {new.get(key)}; "
                "resume with the same settings, or start a new run"
            )


def flatten_spec(spec: RunSpec) -> dict[str, Any]:
    """What has to be the same, by the name that the command line has for it."""
    content = spec.model_dump(mode="json")
    method_args = without_defaults(
        {**spec.model_args, **spec.method_args}, find_method(spec.method)
    )
    data_args = without_defaults(spec.data_args, find_data(spec.data))
    flat: dict[str, Any] = {"model": spec.method, "data": spec.data}
    flat |= {f"model.{key}": value for key, value in method_args.items()}
    flat |= {f"data.{k}": v for k, v in data_args.items() if k not in NOT_OF_THE_DATA}
    flat |= {f"trainer.{key}": value for key, value in content["trainer"].items()}
    for name in ("source", "target", "batch_size", "steps_per_epoch"):
        flat[f"data.{name}"] = content[name]
    flat["data.target"] = name_of_domain(spec.target)
    flat.pop("data.target_labels", None)  # what they say is compared with the images
    for name in ("norm", "norm_options", "lr"):
        flat[f"model.{name}"] = content[name]
    flat |= {"trainer.precision": spec.precision, "seed_everything": spec.seed}
    return {key: value for key, value in flat.items() if key not in LENGTH}


def describe_images(data: DataModule) -> dict[str, Any]:
    """What a checkpoint keeps of the images: the manifest, and of either domain's training images
    their number and a checksum, to say which of them have changed."""
    sets = {}
    roles: tuple[tuple[Role, str], ...] = (("source", data.source), ("target", data.target))
    for role, domain in roles:
        images = data.set_of(role, "train")
        sets[f"{role} '{domain}'"] = [len(images), images.fingerprint()]
    return {"data_manifest": data.manifest, "data_sets": sets}


def refuse_other_data(now: dict[str, Any], before: dict[str, Any] | None, path: str) -> None:
    """Refuses to resume on other images; some checkpoints don't say which theirs were.

    Args:
        now: of :func:`describe_images`.
        before: content of the checkpoint, if any.
        path: of the checkpoint, for the message.
    """
    manifest = now["data_manifest"]
    if not before or before.get("data_manifest", manifest) == manifest:
        return
    if "data_sets" not in before:  # written before manifests described contents
        log.warning("'%s' is older than the record of images: they are not compared", path)
        return
    changes = []
    for name, (number, checksum) in now["data_sets"].items():
        old_number, old_checksum = before["data_sets"].get(name, (number, checksum))
        if old_number != number:
            changes.append(f"{name}: {old_number} images then, {number} now")
        elif old_checksum != checksum:
            changes.append(f"{name}: {number} images as then, but not the same")
    said = "; ".join(changes) or "files were added, removed or changed"
    raise UserError(
        f"data: '{path}' was trained on other images than there are now ({said}); put them back, "
        "or start a new run"
    )
