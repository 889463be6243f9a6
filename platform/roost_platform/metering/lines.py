r"""How usage events are written to the journal, and how they are read back.

    ["<source>",<sequence>,<time>,…,"<request id>",<crc32 of the text before this comma>]\n      one line per event
    …
    <crc32 of all lines of the batch, 8 hex digits>\n\n                                          its commit mark

A line holds the fields of `UsageEvent` in their order, the time as microseconds since 1970 UTC; the last one, `requests`,
only where it is not 1. What was written at once
is a batch. It counts from its mark on: lines behind the last mark are a batch that was cut short, so nobody was answered
on their strength. JSON escapes line ends, so no value can forge a mark. The checksum of a batch lets a reader take it
whole; those of the lines save the rest of it when one is damaged.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any
from zlib import crc32

import orjson

from roost_platform.domain.usage import Outcome, UsageEvent

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)
_MARK_END = b"\n\n"
_MARK = 8  # hex digits
_TYPES = (str, int, int, str, str, int, str, int, int, int, int, int, int, int, str)
_WIDTHS = ((0, 32), (3, 63), (4, 63), (14, 128))  # of the ledger's text columns, by position
_TIME = 2
_OUTCOMES = frozenset(str(outcome) for outcome in Outcome)

_SUMMED = (*_TYPES, int)
_HOUR = re.compile(rb'\n\["[^"\\]*",\d+,(\d{8})\d{8},"([^"\\]*)",')
"""Of a line: its time in units of 100 s, of which an hour has 36, and its tenant."""

assert len(_SUMMED) == len(fields(UsageEvent))


def encode(values: Sequence[Any]) -> bytes:
    """One line with its newline; `values` are the fields of a UsageEvent in order, without `requests` where that is 1,
    the time as microseconds.

    Raises TypeError for what JSON cannot hold (an integer over 64 bits, a lone surrogate).
    """
    body = orjson.dumps(values)[:-1]
    return b"%b,%d]\n" % (body, crc32(body))


def encode_batch(lines: Sequence[bytes]) -> bytes:
    """Lines with the mark that makes them count."""
    text = b"".join(lines)
    return b"%b%08x\n\n" % (text, crc32(text))


def event_values(event: UsageEvent) -> tuple[Any, ...]:
    """The fields in order, the time as microseconds since 1970 UTC (what `encode` takes)."""
    values = [getattr(event, field.name) for field in fields(event)]
    values[_TIME] = (event.time - EPOCH) // MICROSECOND
    return tuple(values if event.requests != 1 else values[:-1])


@dataclass(frozen=True, slots=True)
class Stretch:
    """The whole batches in a stretch of a journal."""

    sound: bytes
    """The lines of batches whose checksum is right."""
    damaged: bytes
    """The lines and marks of the others."""
    consumed: int
    """Bytes from the start of the stretch to the end of its last whole batch."""

    @property
    def sound_lines(self) -> int:
        return self.sound.count(b"\n")


def scan(text: bytes) -> Stretch:
    """Find the whole batches of a text that begins at the start of a batch."""
    end = text.rfind(_MARK_END) + 2
    if end < 2:
        return Stretch(b"", b"", 0)
    sound, damaged = [], []
    for batch in text[: end - 2].split(_MARK_END):
        lines = batch[:-_MARK]
        if batch[-_MARK:] == b"%08x" % crc32(lines):
            sound.append(lines)
        else:
            damaged.append(batch + b"\n")
    return Stretch(b"".join(sound), b"".join(damaged), end)


def as_json(lines: bytes) -> str:
    """One or more sound lines as one JSON array of arrays, each with the line's checksum at its end."""
    return "[" + lines[:-1].replace(b"\n", b",").decode() + "]"


def hours_of(lines: bytes) -> set[tuple[str, datetime]]:
    """The tenants and hours (UTC) of sound lines."""
    found = _HOUR.findall(b"\n" + lines)
    if len(found) == lines.count(b"\n"):
        return {(tenant.decode(), EPOCH + timedelta(hours=int(time) // 36)) for time, tenant in set(found)}
    rows, _ = read_lines(lines)  # a tenant or a time such as no gateway writes
    return {(row[_TIME + 1], row[_TIME].replace(minute=0, second=0, microsecond=0)) for row in rows}


def read_lines(text: bytes) -> tuple[list[tuple[Any, ...]], list[bytes]]:
    """Look at each line on its own: the values of good ones in the order of UsageEvent's fields, and the damaged ones.

    The time is a datetime, and over-long text is cut to the ledger's column: one row that the database refuses would
    stop all others behind it. Marks are left out, and so is what follows the last newline.
    """
    rows: list[tuple[Any, ...]] = []
    damaged: list[bytes] = []
    for line in text.split(b"\n")[:-1]:
        if len(line) <= _MARK and not line.startswith(b"["):
            continue
        row = _decode(line)
        if row is None:
            damaged.append(line)
        else:
            rows.append(row)
    return rows, damaged


def _decode(line: bytes) -> tuple[Any, ...] | None:
    body, _, checksum = line.rpartition(b",")
    if checksum != b"%d]" % crc32(body):
        return None
    try:
        values = orjson.loads(body + b"]")
        kinds = tuple(map(type, values))
        if kinds == _TYPES:
            values.append(1)
        elif kinds != _SUMMED:
            return None
        source, sequence, time_us, tenant, model, version, outcome, status, *amounts, request_id, requests = values
        if outcome not in _OUTCOMES or max(sequence, requests, *amounts) >= 2**63 or max(version, status) >= 2**31:
            return None
        values[_TIME] = EPOCH + timedelta(microseconds=time_us)
    except (ValueError, OverflowError):
        return None
    if len(source) > 32 or len(tenant) > 63 or len(model) > 63 or len(request_id) > 128 or b"\\u0000" in body:
        for i, width in _WIDTHS:
            values[i] = values[i].replace("\0", "")[:width]
    return tuple(values)
