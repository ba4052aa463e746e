"""Tables as Parquet, where pyarrow is installed."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

_TYPES = {bool: "bool_", int: "int64", float: "float64", str: "string"}


def can_write() -> bool:
    """Whether pyarrow is there."""
    return find_spec("pyarrow") is not None


def parquet(kinds: Mapping[str, type], rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows by column; the types are those of the table, so that all its parts fit together.

    Args:
        kinds: of each column bool, int, float or str.
        rows: cells by column; one that is missing is unknown.
    """
    arrow: Any = import_module("pyarrow")
    schema = arrow.schema([(name, getattr(arrow, _TYPES[kind])()) for name, kind in kinds.items()])
    stream = io.BytesIO()
    table = arrow.Table.from_pylist(list(rows), schema=schema)
    import_module("pyarrow.parquet").write_table(table, stream)
    return stream.getvalue()
