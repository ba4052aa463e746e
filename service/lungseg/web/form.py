"""Forms: their files, and their fields, which say what a query parameter of that name would."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from lungseg.core.errors import InvalidParameter, MalformedRequest, TooManyItems
from lungseg.web.layers.refusals import sentences

Q = TypeVar("Q", bound=BaseModel)
MAX_FORM_FIELDS = 16
"""Parts of a form that are no files: more than there are parameters."""
MAX_FIELD_BYTES = 1024
"""The longest value that a parameter can have is far shorter."""
MAX_NAMES = 8
"""How many names of parts are repeated to who sent them."""
MAX_NAME_CHARACTERS = 40
"""How much of each."""
NO_FIELDS: Mapping[str, Sequence[str]] = {}


class Part:
    """One part of a form; ``filename`` is the client's word, never a path to open."""

    __slots__ = ("_joined", "_only", "filename", "name")

    def __init__(self) -> None:
        self.name = ""
        self.filename = ""
        self._only = memoryview(b"")
        self._joined: io.BytesIO | None = None

    def add(self, piece: memoryview) -> None:
        """Adds to the content; one piece is not copied, and usually there is only one."""
        if self._joined is None and not self._only:
            self._only = piece
            return
        if self._joined is None:
            self._joined = io.BytesIO()
            self._joined.write(self._only)
        self._joined.write(piece)

    @property
    def content(self) -> memoryview:
        """The bytes, as a part of the body that they came in."""
        return self._joined.getbuffer() if self._joined else self._only


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What a form holds: files, and the values of each field."""

    files: Sequence[Part]
    fields: Mapping[str, Sequence[str]]


def is_form(content_type: str) -> bool:
    """Whether a body of that type has parts."""
    return content_type.lower().startswith("multipart/")


def read_form(body: bytes, content_type: str, names: Sequence[str], max_files: int) -> Form:
    """Splits a form into files, parts of some names, and fields, parts of other names.

    Raises:
        MalformedRequest: it is damaged, has no such file, or files of other names.
        TooManyItems: it has more parts than can be meant.
        InvalidParameter: a field is longer than a parameter can be, or no text.
    """
    parts = split_form(body, content_type, max_files)
    files = [part for part in parts if part.name in names]
    others = [part for part in parts if part.name not in names]
    if not files or any(part.filename for part in others):
        wanted = " or ".join(names)
        raise MalformedRequest(f"expected a form part named {wanted}, received {_names(parts)}")
    fields: defaultdict[str, list[str]] = defaultdict(list)
    for part in others:
        fields[part.name].append(_text(part))
    return Form(files=files, fields=fields)


def read_query(
    kind: type[Q], request: Request, fields: Mapping[str, Sequence[str]] = NO_FIELDS
) -> Q:
    """What is asked by the address and by the fields of a form; where both say it, the address.

    The surfaces document it by ``openapi.request_of``: FastAPI would look at the model's fields
    anew with every request.

    Raises:
        InvalidParameter: a name or value is not accepted, or one is repeated.
    """
    in_address = request.query_params.multi_items()
    given = {name: values[0] for name, values in fields.items()} | dict(in_address)
    try:
        query = kind.model_validate(given)
    except ValidationError as error:
        raise InvalidParameter(sentences(error.errors())) from None
    named = [name for name, _ in in_address]
    repeated = [name for name in kind.model_fields if named.count(name) > 1]
    repeated += [name for name, values in fields.items() if len(values) > 1]
    if repeated:
        raise InvalidParameter(f"{', '.join(repeated)}: expected once, received several times")
    return query


def split_form(body: bytes, content_type: str, max_files: int) -> list[Part]:
    """Splits a ``multipart/form-data`` body (RFC 7578).

    Raises:
        MalformedRequest: it is damaged, truncated or has no boundary.
        TooManyItems: it has more parts than can be meant.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise MalformedRequest("expected multipart/form-data with a boundary")
    parts = _Parts(max_files + MAX_FORM_FIELDS)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": parts.begin,
                "on_header_field": parts.take_field,
                "on_header_value": parts.take_value,
                "on_header_end": parts.end_header,
                "on_part_data": parts.take_content,
                "on_end": parts.end,
            },
        )
        parser.write(body)
        parser.finalize()
    except FormParserError:
        raise MalformedRequest("the multipart form is damaged") from None
    if not parts.ended:
        raise MalformedRequest("the multipart form is truncated")
    return parts.found


def _names(parts: Sequence[Part]) -> str:
    """The names of parts, short and without anything that could be more than a name."""
    names = list(dict.fromkeys(part.name for part in parts))
    shown = [ascii(name[:MAX_NAME_CHARACTERS]) for name in names[:MAX_NAMES]]
    more = ["others"] if len(names) > MAX_NAMES else []
    return ", ".join(shown + more) or "no part"


def _text(part: Part) -> str:
    if len(part.content) > MAX_FIELD_BYTES:
        raise InvalidParameter(f"expected form fields of at most {MAX_FIELD_BYTES} bytes")
    try:
        return bytes(part.content).decode()
    except UnicodeDecodeError:
        raise InvalidParameter("expected form fields in UTF-8") from None


class _Parts:
    """Collects what the parser reports."""

    def __init__(self, limit: int) -> None:
        self.found: list[Part] = []
        self.ended = False
        self._limit = limit
        self._field = bytearray()
        self._value = bytearray()

    def begin(self) -> None:
        if len(self.found) >= self._limit:
            raise TooManyItems(f"expected at most {self._limit} form parts, received more")
        self.found.append(Part())

    def take_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def take_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def take_content(self, data: bytes, start: int, end: int) -> None:
        # The whole body is parsed at once, so this is mostly a part of it, and nothing is copied.
        self.found[-1].add(memoryview(data)[start:end])

    def end_header(self) -> None:
        if bytes(self._field).lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._value))
            part = self.found[-1]
            part.name = options.get(b"name", b"").decode("utf-8", "replace")
            part.filename = options.get(b"filename", b"").decode("utf-8", "replace")
        self._field.clear()
        self._value.clear()

    def end(self) -> None:
        self.ended = True
