"""Files that can't be opened, or hold no image, found before a training begins."""

from __future__ import annotations

import logging

import numpy as np

from da.errors import UserError
from da.ops.files import cache_folder
from da.ops.sealed_json import parse_sealed, write_sealed

from ..files.checking import named, unreadable
from ..files.image_probe import touched
from ..files.image_sets import FileImages

log = logging.getLogger(__name__)


def refuse_unreadable(files: FileImages) -> None:
    """Refuses files that aren't there, point nowhere, are empty or may not be read; opens none.

    Raises:
        UserError: names the first, and says how many there are.
    """
    places = (files.root / path for path in files.paths)
    bad = [(place, reason) for place in places if (reason := touched(place))]
    if not bad:
        return
    more = f", and {len(bad) - 1} more can't" if len(bad) > 1 else ""
    raise UserError(
        f"{named(*bad[0])}{more}; repair or remove it, or set skip_unreadable to leave such images "
        "out"
    )


def without_unreadable(files: FileImages, domain: str) -> FileImages:
    """The files that can be decoded; says in one line how many can't.

    All are decoded once; what was found is kept, and holds until one of them changes.
    """
    bad = _known(files)
    if not bad:
        return files
    log.warning(
        "domain '%s': %d of %d images can't be read and are left out, the first '%s' "
        "(data check names all)",
        *(domain, len(bad), len(files), files.paths[bad[0]]),
    )
    good = np.setdiff1d(np.arange(len(files)), bad)
    if not len(good):
        raise UserError(f"domain '{domain}' has no image that can be read")
    return FileImages(
        files.root, [files.paths[i] for i in good], files.labels[good], files.classes, files.reading
    )


def _known(files: FileImages) -> list[int]:
    try:
        key = files.fingerprint()
    except UserError:  # a file is missing: nothing to look up
        return sorted(unreadable(files))
    path = cache_folder() / "unreadable" / f"{key}.json"
    try:
        content, sealed = parse_sealed(path.read_bytes())
        if not sealed:
            raise ValueError("it has no checksum")
        return [int(i) for i in content["unreadable"]]
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError) as error:
        log.warning("%s is broken (%s): decoding all images again", path, error)
    bad = sorted(unreadable(files))
    try:
        write_sealed(path, {"unreadable": bad})
    except OSError as error:
        log.warning("%s can't be written (%s): it is not kept", path, error.strerror)
    return bad
