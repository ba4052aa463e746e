"""How commands end."""

from __future__ import annotations

OK, SOME_FAILED, UNUSABLE = 0, 1, 2


class UsageError(Exception):
    """What was asked for can't be done at all."""
