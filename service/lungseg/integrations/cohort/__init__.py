"""``lungseg cohort``: the studies of an index, by several workers, in runs that may be stopped."""

from __future__ import annotations

from lungseg.integrations.cohort.command import add_to

__all__ = ["add_to"]
