"""Log lines: readable text with the fields behind the message, or one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
from typing import Final, Literal

LogFormat = Literal["text", "json"]

_STANDARD: Final = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}


def configure_logging(*, verbose: bool = False, form: LogFormat = "text") -> None:
    """Send the records of all ``antinfer.*`` loggers to standard error.

    Args:
        verbose: from INFO on (leases, drains, expiries); otherwise from WARNING on.
        form: ``text`` for people, ``json`` for collectors.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if form == "json" else _TextFormatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("antinfer")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO if verbose else logging.WARNING)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    # Libraries such as Ray put marks of their own on every record of a process.
    return {key: value for key, value in vars(record).items() if key not in _STANDARD and not key.startswith("_")}


class _TextFormatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{key}={value}" for key, value in _fields(record).items() if key != "action" and value not in ("", None))
        line = super().formatMessage(record)
        return f"{line}  [{fields}]" if fields else line


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        data = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            data["traceback"] = self.formatException(record.exc_info)
        return json.dumps(data, default=str)
