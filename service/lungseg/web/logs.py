"""Log lines: JSON for machines, or short text for a console. Only named fields are written."""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from typing import Any


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0]:
            # Not its text: that may quote what a client sent.
            line["error"] = record.exc_info[0].__qualname__
        return json.dumps(line, default=str)


class _ConsoleFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        text = " ".join(f"{key}={value}" for key, value in fields.items())
        moment = time.strftime("%H:%M:%S", time.localtime(record.created))
        return f"{moment} {record.levelname:7} {record.getMessage()} {text}".rstrip()


def configure_logging(form: str, level: str) -> None:
    """Sends every log line of the process to standard error in one form.

    Args:
        form: ``json`` or ``console``.
        level: the lowest level that is written.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if form == "json" else _ConsoleFormatter())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    # These quote header values, file names or addresses at their lower levels.
    for name in ("pydicom", "PIL", "python_multipart", "asyncio", "httpx"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("uvicorn.access").disabled = True
    for module in ("pydicom", "PIL"):
        warnings.filterwarnings("ignore", module=module)
