"""Source-only: the baseline that every adaptation method is compared with."""

from __future__ import annotations

from da.methods.base import Method, Needs


class SourceOnly(Method):
    """Cross-entropy on the source. The target is never forwarded in training mode."""

    needs = Needs(target=False)
