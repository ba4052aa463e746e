"""Log lines: JSON for machines, or short text for a console. Only named fields are written."""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import sys
import time
import warnings
from typing import Any

_STANDARD_ERROR = 2


class _Lines(logging.Formatter):
    converter = time.gmtime

    def __init__(self, form: str) -> None:
        super().__init__(datefmt="%Y-%m-%dT%H:%M:%S")
        self._as_json = form == "json"

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": f"{self.formatTime(record, self.datefmt)}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields: dict[str, Any] = {**getattr(record, "fields", {})}
        if record.exc_info and record.exc_info[0]:
            # Not its text: that may quote what a client sent.
            fields["error"] = record.exc_info[0].__qualname__
        if self._as_json:
            return json.dumps(line | fields, default=str)
        return " ".join([*line.values(), *(f"{name}={value}" for name, value in fields.items())])


def configure_logging(form: str, level: str) -> None:
    """Sends every log line of the process to standard error in one form.

    Args:
        form: ``json`` or ``console``.
        level: the lowest level that is written.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(form))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    # These quote header values, file names or addresses at their lower levels.
    for name in ("pydicom", "PIL", "python_multipart", "asyncio", "httpx"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("uvicorn.access").disabled = True
    warnings.simplefilter("ignore")  # their text is no line of the log, and may quote a file


def keep_standard_error() -> None:
    """Leaves standard error to Python alone, for the rest of the process.

    Libraries in C write plain text to file descriptor 2, between the lines of the log, and quote
    files in it. That number leads nowhere from here on, in child processes as well; what Python
    writes, the log, tracebacks and the stacks of a crash, goes to the old file under another
    number. It is done once, before there are threads: nothing is switched to and fro.
    """
    kept = os.dup(_STANDARD_ERROR)
    sys.stderr = open(kept, "w", buffering=1, encoding="utf-8", errors="backslashreplace")  # noqa: PTH123, SIM115
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _STANDARD_ERROR)
    os.close(nowhere)
    faulthandler.enable(sys.stderr)


def drop_lost_lines() -> None:
    """Forgets what standard error does not take, its disk full or its reader gone.

    Python would try once more at its end, and make a status of its own of that.
    """
    try:
        sys.stderr.flush()
    except OSError:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
