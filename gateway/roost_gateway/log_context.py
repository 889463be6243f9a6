"""What is known of the request under way, for the lines that are logged meanwhile: its id, and its trace."""

import re
from collections.abc import Iterable, Mapping
from contextvars import ContextVar

_NOTHING: Mapping[str, str] = {}
_about: ContextVar[Mapping[str, str]] = ContextVar("roost_log", default=_NOTHING)
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*", re.DOTALL)
_NO_TRACE = "0" * 32


def current() -> dict[str, str]:
    return dict(_about.get())


def log_with(about: Mapping[str, str]) -> None:
    """From here on every line logged by this task tells `about`, too."""
    _about.set(about)


def trace_of(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The trace that a request belongs to, by its `traceparent`; empty where it names none that is well formed."""
    values = [value for name, value in headers if name == b"traceparent"]
    found = _TRACEPARENT.fullmatch(values[0]) if len(values) == 1 else None
    trace = found[1].decode() if found else _NO_TRACE
    return {} if trace == _NO_TRACE else {"trace_id": trace}
