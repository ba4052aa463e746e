"""What the service's process and its decoders say to each other over a socket."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

_FIELDS = struct.Struct("<32sIIBB?Q")
HEADER_BYTES = _FIELDS.size
PID = struct.Struct("<i")
TIME = struct.Struct("<d")
"""Before each frame: the seconds that it may take, more than 0."""
REPLY = struct.Struct("<Q")
"""Before each decoded frame: its length; 0 where the stream is refused."""


class CodedFrame(NamedTuple):
    """All that a decoder is told of a file: one compressed frame of one sample a pixel."""

    syntax: str
    """Transfer syntax UID."""
    rows: int
    columns: int
    sample_bytes: int
    """Bytes of one decoded sample."""
    bits_stored: int
    signed: bool
    content: bytes

    @property
    def decoded_bytes(self) -> int:
        """Bytes of the decoded frame."""
        return self.rows * self.columns * self.sample_bytes

    def header(self) -> bytes:
        """Everything but the content, whose length comes last; ``HEADER_BYTES`` long."""
        return _FIELDS.pack(self.syntax.encode(), *self[1:-1], len(self.content))


def parse_header(header: bytes) -> tuple[CodedFrame, int]:
    """The frame, still without its content, and the length of that."""
    syntax, rows, columns, sample_bytes, bits_stored, signed, length = _FIELDS.unpack(header)
    name = syntax.rstrip(b"\0").decode()
    return CodedFrame(name, rows, columns, sample_bytes, bits_stored, signed, b""), length


def receive(connection: socket.socket, length: int) -> bytearray:
    """Exactly so many bytes; none at all where the connection ends before."""
    content = bytearray(length)
    rest = memoryview(content)
    while rest:
        count = connection.recv_into(rest)
        if not count:
            return bytearray()
        rest = rest[count:]
    return content
