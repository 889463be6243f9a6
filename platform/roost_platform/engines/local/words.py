"""What a replica says on its link, read as the words of a process that may be hostile: sound, or None."""

import re
import struct

import orjson

from roost_platform.engines.port import UpstreamResponse
from roost_runtimes.frames import FIGURES, Buffer

_MOST_US = 2**31
_MOST_HEADERS = 32
_NAME = re.compile(r"[a-z0-9-]{1,64}")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]{0,1024}")
_REASON = re.compile(r"[A-Za-z]{1,40}")
_LONGEST_MESSAGE = 1000
_REMEMBERED = 16
_TIMES = b"roost-decode-us"
"""Answers of traced requests have it, and no two of them are alike."""

Headers = list[tuple[bytes, bytes]]


class AnswerReader:
    """Reads the answers of one replica, which mostly carry the same few sets of headers."""

    def __init__(self) -> None:
        self._headers: dict[bytes, Headers] = {}

    def read(self, status: int, meta: Buffer, body: Buffer) -> UpstreamResponse | None:
        """The answer, when its status is one that may be passed on, and its figures and headers are well-formed."""
        try:
            compute_us, queue_us, rows = FIGURES.unpack_from(meta)
        except struct.error:
            return None
        text = bytes(meta[FIGURES.size :])
        headers = self._headers.get(text)
        if headers is None:
            headers = _read_headers(text)
            if headers is None:
                return None
            if _TIMES not in text:
                if len(self._headers) >= _REMEMBERED:
                    self._headers.clear()
                self._headers[text] = headers
        if not 200 <= status <= 599:
            return None
        return UpstreamResponse(status, headers, body, compute_us, queue_us, rows)


def read_ready(meta: Buffer) -> int | None:
    """Microseconds that a run takes; 0 = not known."""
    document = _object(meta)
    run_us = document.get("run_us") if document else None
    return run_us if isinstance(run_us, int) and 0 <= run_us <= _MOST_US else None


def read_failure(meta: Buffer) -> tuple[str, str] | None:
    """Reason and sentence, the latter cut where it is long."""
    document = _object(meta) or {}
    reason, message = document.get("reason"), document.get("message")
    if not isinstance(reason, str) or not isinstance(message, str) or not _REASON.fullmatch(reason):
        return None
    return reason, message[:_LONGEST_MESSAGE]


def _read_headers(text: bytes) -> Headers | None:
    try:
        pairs = [(str(name), str(value)) for name, value in orjson.loads(text)]
    except (ValueError, TypeError):
        return None
    if len(pairs) > _MOST_HEADERS or not all(_NAME.fullmatch(n) and _VALUE.fullmatch(v) for n, v in pairs):
        return None
    return [(name.encode(), value.encode("latin-1")) for name, value in pairs]


def _object(meta: Buffer) -> dict[str, object] | None:
    try:
        document = orjson.loads(meta)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
