"""What can be wrong with models and with computing in time, as sentences of the domain."""

from __future__ import annotations

from lungseg.core.errors import LungsegError


class UnknownModel(LungsegError):
    """No model of that name or version is loaded."""

    code = "unknown_model"


class ModelNotReady(LungsegError):
    """The model is known, but cannot serve (yet)."""

    code = "model_not_ready"


class BundleError(LungsegError):
    """A model folder disagrees with itself: hash, names, shapes or golden output."""

    code = "model_not_ready"


class Overloaded(LungsegError):
    """The queue is full.

    Attributes:
        retry_after_s: when a retry has a chance, in seconds.
    """

    code = "overloaded"

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(LungsegError):
    """The time since the request's arrival is used up."""

    code = "deadline_exceeded"
