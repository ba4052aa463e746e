"""What can be wrong, as sentences of the domain.

Each class stands for one ``code`` of the HTTP contract; the status of each is in
``lungseg.web.errors``. A message never quotes file names, header values or pixel data.
"""

from __future__ import annotations


class LungsegError(Exception):
    """Base of every error that a caller can cause or must hear about."""

    code: str = "internal_error"

    def __init_subclass__(cls, *, code: str) -> None:
        super().__init_subclass__()
        cls.code = code


class MalformedRequest(LungsegError, code="malformed_request"):
    """The request is not of a form that the endpoint reads."""


class BodyTooLarge(LungsegError, code="body_too_large"):
    """The request has more bytes than the service accepts."""


class ImageTooLarge(LungsegError, code="image_too_large"):
    """The image has more pixels than the service accepts (found before decoding)."""


class TooManyItems(LungsegError, code="too_many_items"):
    """A batch has more items than the service accepts."""


class UnsupportedMediaType(LungsegError, code="unsupported_media_type"):
    """The content is of none of the accepted formats."""


class UndecodableImage(LungsegError, code="undecodable_image"):
    """The content claims a known format, but cannot be decoded."""


class MultiFrame(LungsegError, code="multi_frame"):
    """The file holds several frames, where one slice is expected."""


class NotCT(LungsegError, code="not_ct"):
    """A DICOM object that is no CT slice: another kind of image, or none."""


class NotGrey(LungsegError, code="not_grey"):
    """A colour picture."""


class InvalidParameter(LungsegError, code="invalid_parameter"):
    """A query parameter has a value outside its range."""


class VolumeTooLarge(LungsegError, code="volume_too_large"):
    """A volume has more slices or voxels than the service accepts (found before decoding)."""


class SeveralVolumes(LungsegError, code="several_volumes"):
    """What was sent holds several volumes, and nothing says which is meant."""


class InconsistentGeometry(LungsegError, code="inconsistent_geometry"):
    """Slices whose places in the patient are unknown, or fit no stack."""
