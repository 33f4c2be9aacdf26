"""Log lines in RabbitMQ's shape, or as JSON.

A text line is `2026-11-21 13:33:50.677845+00:00 [info] <0.3796.0> text`. Scripts and client suites
match such lines, so the shape is a promise. What stands in the angle brackets names the connection
(or another part of the broker) a line is about. Whoever logs gives it with
`extra={"process_id": "<0.3796.0>"}` (`process` is a name the logging module keeps for itself);
a line that gives none is about the broker itself.

Much of what is logged was chosen by a client: names of queues, users, connections. No such text may
look like a line of its own, so every line of a message of several lines begins with the same time
and process (as in RabbitMQ), and what cannot be printed is written as an escape.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final, TextIO

BROKER_PROCESS: Final = "<0.1.0>"

# What every log record has; the rest was given by the caller as `extra`.
_STANDARD_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",
    "process_id",
}


def configure(level: str, format: str) -> None:
    """Write log lines of `level` and above to stderr, in `format`: `text` or `json`."""
    logging.basicConfig(
        level=level.upper(), handlers=[make_handler(format, sys.stderr)], force=True
    )


def make_handler(format: str, stream: TextIO) -> logging.Handler:
    """A handler that writes `text` or `json` lines to `stream`."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JSONFormatter() if format == "json" else TextFormatter())
    return handler


class TextFormatter(logging.Formatter):
    """Lines of time, level, process and text."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"{_time(record)} [{_level(record)}] {_process(record)} "
        text = record.getMessage()
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        return "\n".join(prefix + _printable(line) for line in text.splitlines() or [""])


class JSONFormatter(logging.Formatter):
    """One object per line: `time`, `level`, `process`, `msg` and the caller's `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": _time(record),
            "level": _level(record),
            "process": _process(record),
            "msg": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        for name, value in vars(record).items():
            if name not in _STANDARD_FIELDS:
                entry.setdefault(name, value)
        return json.dumps(entry, default=str)


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(sep=" ", timespec="microseconds")


def _level(record: logging.LogRecord) -> str:
    return record.levelname.lower()


def _process(record: logging.LogRecord) -> str:
    return str(getattr(record, "process_id", BROKER_PROCESS))


def _printable(line: str) -> str:
    if line.isprintable():
        return line
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in line
    )
