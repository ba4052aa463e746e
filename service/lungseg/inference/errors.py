"""What can be wrong with models and with computing in time, as sentences of the domain."""

from __future__ import annotations

from lungseg.core.errors import LungsegError


class UnknownModel(LungsegError, code="unknown_model"):
    """No model of that name or version is loaded."""


class ModelNotReady(LungsegError, code="model_not_ready"):
    """The model is known, but cannot serve (yet)."""


class BundleError(LungsegError, code="model_not_ready"):
    """A model folder disagrees with itself: hash, names, shapes or golden output."""


class BundleUnreadable(BundleError, code="model_not_ready"):
    """A file of a bundle is there and cannot be read now: it may be readable later, unchanged."""


class Overloaded(LungsegError, code="overloaded"):
    """The queue is full; a retry has a chance after ``retry_after_s`` seconds."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(LungsegError, code="deadline_exceeded"):
    """The time since the request's arrival is used up."""
