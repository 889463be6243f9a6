"""How stretches of held resources are written to the outbox, and how they are read back.

A line is that of the journal (`lines.py`: a JSON array with its own checksum, in batches that count from their mark on). Its
values are the fields of `ResourceUsage` in their order, times as microseconds since 1970 UTC.
"""

from dataclasses import fields
from datetime import timedelta
from typing import Any
from zlib import crc32

import orjson

from roost_platform.database.money_tables import resource_usage
from roost_platform.domain.resources import ResourceKind, ResourceUsage
from roost_platform.metering.lines import EPOCH, MICROSECOND, encode

COLUMNS = tuple(field.name for field in fields(ResourceUsage))
_TIMES = ("start", "end")
_TYPES = {"kind": str, "start": int, "end": int} | {
    field.name: field.type for field in fields(ResourceUsage) if field.type in (str, int, bool)
}
_WIDTHS = {name: length for name in COLUMNS if (length := getattr(resource_usage.c[name].type, "length", None))}
_WIDEST = {
    name: 2**31 if name == "version" else 2**63 for name in COLUMNS if _TYPES[name] is int and name not in _TIMES
}
_MARK = 8  # hex digits; a batch's own checksum

assert set(_TYPES) == set(COLUMNS) == {column.name for column in resource_usage.c}


def to_values(usage: ResourceUsage) -> list[Any]:
    """The fields in order, as JSON can hold them."""
    values = {name: getattr(usage, name) for name in COLUMNS}
    for name in _TIMES:
        values[name] = (values[name] - EPOCH) // MICROSECOND
    return list(values.values())


def encode_usage(usage: ResourceUsage) -> bytes:
    """One line. Raises ValueError for what the table has no room for: nothing behind it could be stored either."""
    values = to_values(usage)
    try:
        line = encode(values)
    except TypeError as error:
        raise ValueError("a stretch that JSON cannot hold") from error
    if not _fits(values):
        raise ValueError("a stretch that the table cannot hold")
    return line


def decode_lines(text: bytes) -> tuple[list[ResourceUsage], list[bytes]]:
    """The good lines, and the damaged ones. Marks of batches are left out, and so is what follows the last newline."""
    found: list[ResourceUsage] = []
    damaged: list[bytes] = []
    for line in text.split(b"\n")[:-1]:
        if len(line) <= _MARK and not line.startswith(b"["):
            continue
        usage = _decode(line)
        if usage is None:
            damaged.append(line)
        else:
            found.append(usage)
    return found, damaged


def _decode(line: bytes) -> ResourceUsage | None:
    body, _, checksum = line.rpartition(b",")
    if checksum != b"%d]" % crc32(body):
        return None
    try:
        values = orjson.loads(body + b"]")
        if not _fits(values):
            return None
        given = dict(zip(COLUMNS, values, strict=True))
        times = {name: EPOCH + timedelta(microseconds=given[name]) for name in _TIMES}
        return ResourceUsage(**(given | times | {"kind": ResourceKind(given["kind"])}))
    except (ValueError, OverflowError):
        return None


def _fits(values: list[Any]) -> bool:
    """Whether each value is of its column's kind and no longer than that; amounts are never negative."""
    if len(values) != len(COLUMNS):
        return False
    given = dict(zip(COLUMNS, values, strict=True))
    return (
        all(isinstance(given[name], kind) for name, kind in _TYPES.items())
        and all(len(given[name]) <= width and "\0" not in given[name] for name, width in _WIDTHS.items())
        and all(0 <= given[name] < most for name, most in _WIDEST.items())
    )
