r"""How one usage event is written as a line of the journal, and how lines are read back.

    ["<source>",<sequence>,<time>,…,"<request id>"] <crc32 of the array, 8 hex digits>\n

The array holds the fields of `UsageEvent` in their order, the time as microseconds since 1970 UTC. What was written at
once (a batch) ends with an empty line, its commit mark: lines after the last mark are a batch that was cut short, so
nobody was answered on their strength and they do not count. JSON escapes line ends, so no value can forge a mark.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any
from zlib import crc32

import orjson

from roost_platform.domain.usage import Outcome, UsageEvent

COMMIT_MARK = b"\n"

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_CHECKSUM = 9  # a space and 8 hex digits
_TYPES = (str, int, int, str, str, int, str, int, int, int, int, int, int, int, str)
_WIDTHS = ((0, 32), (3, 63), (4, 63), (14, 128))  # of the ledger's text columns, by position
_TIME = 2
_OUTCOMES = frozenset(str(outcome) for outcome in Outcome)

assert len(_TYPES) == len(fields(UsageEvent))


def encode(values: Sequence[Any]) -> bytes:
    """One line with its newline; `values` are the fields of a UsageEvent in order, the time as microseconds.

    Raises TypeError for what JSON cannot hold (an integer over 64 bits, a lone surrogate).
    """
    body = orjson.dumps(values)
    return b"%b %08x\n" % (body, crc32(body))


@dataclass(frozen=True, slots=True)
class Scan:
    """What a stretch of a journal holds."""

    rows: list[tuple[Any, ...]]
    """The values of good lines, in the order of UsageEvent's fields; the time is a datetime."""
    damaged: list[bytes]
    """Lines whose checksum or content is wrong, as they were found."""
    consumed: int
    """Bytes from the start of the stretch to the end of its last whole batch."""


def scan(stretch: bytes) -> Scan:
    """Read all whole batches of a stretch that begins at the start of a line."""
    end = stretch.rfind(b"\n" + COMMIT_MARK) + 2
    if end < 2:
        return Scan([], [], 0)
    rows, damaged = read_lines(stretch[:end])
    return Scan(rows, damaged, end)


def read_lines(text: bytes) -> tuple[list[tuple[Any, ...]], list[bytes]]:
    """The good and the damaged lines of `text`, marks left out; what follows its last newline is ignored."""
    rows: list[tuple[Any, ...]] = []
    damaged: list[bytes] = []
    for line in text.split(b"\n")[:-1]:
        if not line:
            continue
        row = _decode(line)
        if row is None:
            damaged.append(line)
        else:
            rows.append(row)
    return rows, damaged


def event_values(event: UsageEvent) -> tuple[Any, ...]:
    """The fields in order, the time as microseconds since 1970 UTC (what `encode` takes)."""
    values = [getattr(event, field.name) for field in fields(event)]
    values[_TIME] = (event.time - EPOCH) // _MICROSECOND
    return tuple(values)


def _decode(line: bytes) -> tuple[Any, ...] | None:
    """The values of one line, or None when it is damaged. What comes out fits the ledger's columns.

    One row that the database refuses would stop all others behind it, so over-long text is cut to its column.
    """
    body = line[:-_CHECKSUM]
    if line[-_CHECKSUM:] != b" %08x" % crc32(body):
        return None
    try:
        values = orjson.loads(body)
        if type(values) is not list or tuple(map(type, values)) != _TYPES:
            return None
        source, sequence, time_us, tenant, model, version, outcome, status, *amounts, request_id = values
        if outcome not in _OUTCOMES or max(sequence, *amounts) >= 2**63 or max(version, status) >= 2**31:
            return None
        values[_TIME] = EPOCH + timedelta(microseconds=time_us)
    except (ValueError, OverflowError):
        return None
    if len(source) > 32 or len(tenant) > 63 or len(model) > 63 or len(request_id) > 128 or b"\\u0000" in body:
        for i, width in _WIDTHS:
            values[i] = values[i].replace("\0", "")[:width]
    return tuple(values)
