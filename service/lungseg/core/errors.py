"""What can be wrong, as sentences of the domain.

Each class stands for one ``code`` of the HTTP contract; the status of each is in
``lungseg.web.errors``. A message never quotes file names, header values or pixel data.
"""

from __future__ import annotations

from typing import ClassVar


class LungsegError(Exception):
    """Base of every error that a caller can cause or must hear about."""

    code: ClassVar[str] = "internal_error"


class MalformedRequest(LungsegError):
    """The request is not of a form that the endpoint reads."""

    code = "malformed_request"


class Unauthorized(LungsegError):
    """API keys are configured and the request carries none that is known."""

    code = "unauthorized"


class Forbidden(LungsegError):
    """The operator has switched this off."""

    code = "forbidden"


class BodyTooLarge(LungsegError):
    """The request has more bytes than the service accepts."""

    code = "body_too_large"


class ImageTooLarge(LungsegError):
    """The image has more pixels than the service accepts (found before decoding)."""

    code = "image_too_large"


class TooManyItems(LungsegError):
    """A batch has more items than the service accepts."""

    code = "too_many_items"


class UnsupportedMediaType(LungsegError):
    """The content is of none of the accepted formats."""

    code = "unsupported_media_type"


class UndecodableImage(LungsegError):
    """The content claims a known format, but cannot be decoded."""

    code = "undecodable_image"


class MultiFrame(LungsegError):
    """The file holds several frames, where one slice is expected."""

    code = "multi_frame"


class NotCT(LungsegError):
    """A DICOM object that is not an axial CT slice."""

    code = "not_ct"


class NotGrey(LungsegError):
    """A colour picture."""

    code = "not_grey"


class InvalidParameter(LungsegError):
    """A query parameter has a value outside its range."""

    code = "invalid_parameter"


class Draining(LungsegError):
    """The service is shutting down and takes no new work."""

    code = "draining"
