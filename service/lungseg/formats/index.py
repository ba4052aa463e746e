"""Tables that users write, of studies or of slices: CSV as spreadsheets save it, with a header."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence

DELIMITERS = ",;\t"
"""Spreadsheets save the one that their language's numbers leave free."""


def numbered_rows(text: str, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """The rows of a table by its header, each with its line; blanks around names and cells go.

    Rows without a cell, which spreadsheets save where something was deleted, are left out.

    Args:
        text: the table.
        columns: those that it has to have.

    Raises:
        ValueError: it is no such table; the sentence says why.
    """
    plain = text.removeprefix("\ufeff")
    delimiter = max(DELIMITERS, key=plain.partition("\n")[0].count)
    stream = io.StringIO(plain, newline="")
    reader = csv.DictReader(stream, delimiter=delimiter, restval="", strict=True)
    try:
        reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise ValueError(f"expected a table in CSV, received another text ({error})") from None
    if missing := [name for name in columns if name not in reader.fieldnames]:
        wanted, found = " and ".join(columns), " and no ".join(missing)
        raise ValueError(f"expected rows with the columns {wanted}, found no {found}")
    for line, row in rows:
        if None in row:
            raise ValueError(
                f"expected as many cells in each row as in the header, line {line}: more cells "
                "than columns; put names that hold a comma in quotes"
            )
    named = ((line, {name: cell.strip() for name, cell in row.items()}) for line, row in rows)
    return [(line, row) for line, row in named if any(row.values())]


def named_rows(text: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a table whose columns are filled in each row, and whose first one names it.

    Raises:
        ValueError: see ``numbered_rows``; or there is no row, or two have one name.
    """
    rows = numbered_rows(text, columns)
    if not rows:
        raise ValueError(f"expected rows with the columns {' and '.join(columns)}, found none")
    for line, row in rows:
        if missing := [name for name in columns if not row[name]]:
            raise ValueError(f"expected {missing[0]} in each row, received none in line {line}")
    names = Counter(row[columns[0]] for _, row in rows)
    if (most := names.most_common(1)[0])[1] > 1:
        raise ValueError(f"two rows are called {most[0]}")
    return [row for _, row in rows]
