"""What the log says of a conversion of pretrained weights."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from da.norms import short_name
from da.norms.weight_align.coverage import Coverage

if TYPE_CHECKING:
    from da.networks.pretrained_conversion import ConversionPlan

log = logging.getLogger(__name__)

LOG_EVERY = 15.0
"""Seconds between two lines on the progress of a conversion."""

LEAST_KEPT = 0.9
"""Share of predictions below which a conversion is warned of."""


def title_of_norm(norm: str) -> str:
    """What messages call a normaliser.

    >>> title_of_norm("wa+gn"), title_of_norm("da.norms.WeightAlign")
    ('WA+GN', 'WA')
    """
    name = short_name(norm)
    return name if "." in name else name.upper()


def describe_conversion(
    plan: ConversionPlan, report: dict[str, Any], coverage: Coverage | None
) -> str:
    """One line for the user."""
    images = "source" if report["on"] == "source" else "source and target"
    how = "from cache" if report["cached"] else f"in {report['seconds']:.1f} s"
    text = (
        f"converted {plan.backbone} to {title_of_norm(plan.norm)} on {report['images']} {images}"
        f" images, {how}: "
    )
    if report["agreement"] is not None:
        low, high = (100 * end for end in report["agreement_interval"])
        text += (
            f"{100 * report['agreement']:.1f} % [{low:.1f}, {high:.1f}] of predictions kept on"
            f" {report['held_out']} others, "
        )
    text += (
        f"{100 * report['error']:.2g} % of the features' variance lost "
        f"(worst layer {report['worst_layer']}, {100 * report['worst_error']:.2g} %)"
    )
    return text if coverage is None else f"{text}; {coverage}"


def describe_loss(plan: ConversionPlan, report: dict[str, Any]) -> str:
    """The warning of a conversion that keeps too little."""
    norm = title_of_norm(plan.norm)
    if report["distilled"]:
        way = "statistics of each image can't do all that batch norm's did; start from 'wa+bn'"
    else:
        way = "leave layers plain with --model.norm_options.exclude or a higher min_weights"
    return (
        f"{plan.backbone} keeps {100 * report['agreement']:.1f} % of its predictions as {norm},"
        f" fewer than {100 * LEAST_KEPT:.0f} % (the layer that loses most is"
        f" {report['worst_layer']}): its results compare {norm} with BN from an unequal start;"
        f" {way}, or convert on more images with --model.conversion_images"
    )


def progress_logger(plan: ConversionPlan) -> Callable[[int, int], None]:
    """Logs the beginning, and from then on how far it is: a deep network takes minutes."""
    log.info("converting %s to %s …", plan.backbone, title_of_norm(plan.norm))
    last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= LOG_EVERY:
            last = time.monotonic()
            log.info(
                "converting %s to %s: %.0f %%",
                plan.backbone,
                title_of_norm(plan.norm),
                100 * done / total,
            )

    return progress
