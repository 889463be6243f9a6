"""The server's log: one JSON object a line, in the fields of the Elastic Common Schema (docs/logs.md)."""

import logging
import os
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, TextIO

import orjson
import structlog

from roost_gateway.log_context import current

ECS_VERSION = "8.11.0"
Event = MutableMapping[str, Any]

_ECS = {"request_id": "http.request.id", "tenant": "organization.id", "trace_id": "trace.id"}
"""Fields of an event that the schema has a name for."""
_LABELS = frozenset({"model", "revision", "version", "replica", "engine"})
"""Those by which one looks for events: keywords, so as text. All others are under `roost`, as they are."""


def configure_logs(stream: TextIO = sys.stderr, level: int = logging.INFO) -> None:
    """Send everything logged through `logging` to `stream` as JSON lines. Called by programs, never by libraries."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.ExtraAdder(),
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                # Without local variables: those hold keys and bodies.
                structlog.processors.ExceptionRenderer(
                    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
                ),
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                CommonSchema(),
                structlog.processors.JSONRenderer(serializer=_text),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)  # six lines at each start about itself
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells each URL it asks, and a webhook's may hold a secret


class CommonSchema:
    """A structlog processor: an event in the schema's fields, with what is known of the request that it belongs to."""

    def __init__(self) -> None:
        self._always = {
            "ecs.version": ECS_VERSION,
            "service.name": "roost",
            "service.version": version("roost"),
            "process.pid": os.getpid(),
        }

    def __call__(self, _logger: Any, _method: str, event: Event) -> Event:
        name = str(event.pop("event"))
        made: dict[str, Any] = {
            "@timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "log.level": event.pop("level"),
            "message": name,
            **self._always,
            "log.logger": event.pop("logger"),
        }
        if name.isidentifier():  # a sentence of a foreign library is no name of an event
            made["event.action"] = name
        failure = event.pop("exception", None)
        labels: dict[str, str] = {}
        others: dict[str, Any] = {}
        for field, value in {**current(), **event}.items():
            if field in _ECS:
                made[_ECS[field]] = value
            elif field in _LABELS:
                labels[field] = str(value)
            else:
                others[field] = value
        if labels:
            made["labels"] = labels
        if others:
            made["roost"] = others
        if failure:
            made |= _error(failure)
        return made


def _error(chain: list[dict[str, Any]]) -> dict[str, str]:
    """The outermost error of a chain, and where each of the chain came from. No value of any variable is told."""
    lines = [
        line
        for error in chain
        for line in (
            f"{error['exc_type']}: {error['exc_value']}",
            *(f"  {frame['filename']}:{frame['lineno']} {frame['name']}" for frame in error["frames"]),
        )
    ]
    return {
        "error.type": chain[0]["exc_type"],
        "error.message": chain[0]["exc_value"],
        "error.stack_trace": "\n".join(lines),
    }


def _text(event: Event, **_how: Any) -> str:
    """JSON, whatever an event holds: what has no JSON form is told as Python shows it."""
    return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
