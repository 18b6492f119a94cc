"""Classes of two domains, matched by name; images that have no class, or not one of the source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from da.errors import UserError

from .domain_checks import name_differences
from .layout import Listing

NO_CLASS = -1
"""Label of a target image of a class that the source does not have: it is not evaluated."""

NO_LABEL = -2
"""Label of an image whose class nobody has said: predicted and scored, and in no accuracy."""

ClassSets = Literal["same", "partial", "open"]


def relabel_target(
    listing: Listing, classes: Sequence[str], allowed: ClassSets, source: str, target: str
) -> NDArray[np.int64]:
    """The labels of a target in the source's classes, ``(N,)`` int64.

    Args:
        listing: of the target.
        classes: of the source.
        allowed: ``same`` classes in both; ``partial``: the target may lack some of them; ``open``:
            it may have others, too.
        source: name of the source.
        target: name of the target.

    Returns:
        ``NO_CLASS`` where an image is of another class, ``NO_LABEL`` where it has no label. A
        target that lacks labels may lack classes, whatever is allowed.

    Raises:
        UserError: where the classes differ more than is allowed; names them.
    """
    known = listing.labels >= 0
    missing = [name for name in classes if name not in listing.classes]
    extra = [name for name in listing.classes if name not in classes]
    lacking = missing and allowed == "same" and known.all()
    if (extra and allowed != "open") or lacking:
        hint = f"set class_sets to {'open' if extra else 'partial'}"
        if len(extra) == len(listing.classes):
            hint += (
                f"; or, if these folders are no classes and '{target}' has no labels, move them "
                f"into {target}/unlabelled"
            )
        raise UserError(
            f"{name_differences(source, classes, target, listing.classes)}; rename or remove "
            f"them so that both agree, or {hint}"
        )
    if extra and len(extra) == len(listing.classes):
        raise UserError(f"'{source}' and '{target}' have no class in common")
    place = {name: label for label, name in enumerate(classes)}
    table = np.array([place.get(name, NO_CLASS) for name in listing.classes], np.int64)
    labels = listing.labels.copy()
    labels[known] = table[listing.labels[known]]
    return labels
