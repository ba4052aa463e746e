"""Tables as Parquet, where pyarrow is installed."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

_TYPES = {bool: "bool_", int: "int64", float: "float64", str: "string"}


def parquet(kinds: Mapping[str, type], rows: Sequence[Mapping[str, Any]]) -> bytes | None:
    """Rows by column, of bool, int, float or str as its kind says; None without pyarrow."""
    if find_spec("pyarrow") is None:
        return None
    arrow: Any = import_module("pyarrow")
    schema = arrow.schema([(name, getattr(arrow, _TYPES[kind])()) for name, kind in kinds.items()])
    stream = io.BytesIO()
    table = arrow.Table.from_pylist([*rows], schema=schema)
    import_module("pyarrow.parquet").write_table(table, stream)
    return stream.getvalue()
