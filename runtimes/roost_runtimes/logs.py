"""Log lines of a runtime process: one JSON object a line on stderr, in the Elastic Common Schema as the gateway's are."""

import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any

import orjson

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}
_LABELS = frozenset({"model", "version"})


class JsonFormatter(logging.Formatter):
    """The event is `message` and `event.action`; what was given as `extra` is under `labels` and `roost`."""

    def format(self, record: logging.LogRecord) -> str:
        event = record.getMessage()
        line: dict[str, Any] = {
            "@timestamp": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "log.level": record.levelname.lower(),
            "message": event,
            "ecs.version": "8.11.0",
            "service.name": "roost-runtime",
            "process.pid": os.getpid(),
            "log.logger": record.name,
        }
        if event.isidentifier():  # a sentence of a foreign library is no name of an event
            line["event.action"] = event
        given = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if labels := {key: str(value) for key, value in given.items() if key in _LABELS}:
            line["labels"] = labels
        if others := {key: value for key, value in given.items() if key not in _LABELS}:
            line["roost"] = others
        if record.exc_info and record.exc_info[0] is not None:
            line["error.type"] = record.exc_info[0].__name__
            line["error.message"] = str(record.exc_info[1])
            line["error.stack_trace"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def configure_logs() -> None:
    """Send everything from level info up to stderr; for programs, not for libraries."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # The server's own start and stop lines repeat ours.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
