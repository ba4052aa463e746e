"""Encodings: bytes to core values and back. Nothing else in the service knows a file format."""
