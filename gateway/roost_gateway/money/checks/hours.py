"""Roll-ups: the sums of each hour, against the sum of the events that they are made of, made here in another way."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Column, Connection, Dialect, Select, String, Table, case, func, select
from sqlalchemy.sql.elements import ColumnElement

from roost_gateway.money.checks.check import Check, Finding, Inquiry, Verdict
from roost_platform.database.money_tables import (
    call_hours,
    dirty_hours,
    resource_hours,
    resource_usage,
    usage_corrections,
)
from roost_platform.database.tables import usage_events

_CALL_KEYS = ("tenant", "model", "version", "outcome")
_CALL_FIGURES = (
    "requests", "rows", "compute_us", "queue_us", "cold_starts", "cold_start_us", "bytes_in", "bytes_out",
)  # fmt: skip
_CORRECTED = ("requests", "rows", "compute_us", "bytes_in", "bytes_out")
_HELD_KEYS = ("tenant", "model", "version", "resource_class")
_HELD_FIGURES = (
    "setup_us", "active_us", "idle_us", "reserved_us", "cold_starts", "pull_us", "schedule_us", "load_us",
    "byte_seconds", "job_us",
)  # fmt: skip

Group = tuple[Any, ...]
"""Tenant, the three other keys, and the hour as 2026-11-03T12."""
Sums = dict[Group, list[int]]


@dataclass(frozen=True, slots=True)
class _Hours:
    """What was found in a day: the sums of both sides, and the hours of tenants that wait to be rolled up again."""

    events: Sums
    rolled_up: Sums
    dirty: frozenset[tuple[str, str]]


async def call_roll_ups(inquiry: Inquiry) -> Check:
    """Hours of calls against ledger and corrections."""
    check = Check("roll-ups of calls", "calls in the ledger, with corrections", "calls in the hourly roll-ups")
    for start, end in inquiry.days():
        found = await inquiry.database.read(_call_hours, *_whole_hours(start, end))
        _compare(check, found, _CALL_FIGURES, total=1, now=inquiry.now)
    return check


async def resource_roll_ups(inquiry: Inquiry) -> Check:
    """Hours of what was held against the stretches."""
    check = Check(
        "roll-ups of resources", "microseconds of replicas that were told", "microseconds in the hourly roll-ups"
    )
    for start, end in inquiry.days():
        found = await inquiry.database.read(_held_hours, *_whole_hours(start, end))
        _compare(check, found, _HELD_FIGURES, total=4, now=inquiry.now)
    return check


def _compare(check: Check, found: _Hours, figures: Sequence[str], *, total: int, now: datetime) -> None:
    """The sums of the check are those of the first `total` figures; the others are compared beside them.

    The running hour is not rolled up before it is over, unless somebody asks for it: then it is marked, and left out here.
    """
    nothing = [0] * len(figures)
    for group in sorted({*found.events, *found.rolled_up}):
        tenant, model, version, variant, hour = group
        scope = " ".join(f"tenant {tenant}, {hour}:00Z, {model} {version} {variant}".split())
        left, right = found.events.get(group, nothing), found.rolled_up.get(group, nothing)
        pending = (tenant, hour) in found.dirty
        if pending and hour >= f"{now.astimezone(UTC):%Y-%m-%dT%H}":
            continue
        wrong = [
            f"{name} {there:,} instead of {should:,}"
            for name, should, there in zip(figures, left, right, strict=True)
            if should != there
        ]
        says = f"the roll-up has {', '.join(wrong)}" + (
            "; it waits to be made again" if pending else "; make the roll-ups again, after looking for the reason"
        )
        check.compare(scope, sum(left[:total]), sum(right[:total]), says, pending=pending)
        if wrong and sum(left[:total]) == sum(right[:total]):
            at = next(i for i, (a, b) in enumerate(zip(left, right, strict=True)) if a != b)
            verdict = Verdict.PENDING if pending else Verdict.DIFFERS
            check.keep(Finding(scope, left[at], right[at], verdict, says))


def _call_hours(connection: Connection, start: datetime, end: datetime) -> _Hours:
    event, corrected, dialect = usage_events.c, usage_corrections.c, connection.dialect
    figures: dict[str, ColumnElement[Any]] = {name: event[name] for name in _CALL_FIGURES if name in event}
    figures["cold_starts"] = case((event.cold_start_us > 0, event.requests), else_=0)
    query = _grouped(dialect, [event[key] for key in _CALL_KEYS], event.time, figures, _CALL_FIGURES)
    events = _sums(connection, query.where(event.time >= start, event.time < end))
    more = {name: corrected[name] for name in _CORRECTED}
    query = _grouped(dialect, [corrected[key] for key in _CALL_KEYS], corrected.time, more, _CALL_FIGURES)
    _add(events, _sums(connection, query.where(corrected.time >= start, corrected.time < end)))
    rolled_up = _rolled_up(connection, call_hours, _CALL_KEYS, _CALL_FIGURES, (start, end))
    return _Hours(events, rolled_up, _dirty(connection, "calls", start, end))


def _held_hours(connection: Connection, start: datetime, end: datetime) -> _Hours:
    stretch = resource_usage.c
    expressions = {name: stretch[name] for name in _HELD_FIGURES}
    keys = [stretch[key] for key in _HELD_KEYS]
    query = _grouped(connection.dialect, keys, stretch.start, expressions, _HELD_FIGURES)
    events = _sums(connection, query.where(stretch.start >= start, stretch.start < end))
    rolled_up = _rolled_up(connection, resource_hours, _HELD_KEYS, _HELD_FIGURES, (start, end))
    return _Hours(events, rolled_up, _dirty(connection, "resources", start, end))


def _rolled_up(
    connection: Connection, table: Table, keys: Sequence[str], figures: Sequence[str], day: tuple[datetime, datetime]
) -> Sums:
    row = table.c
    sums = {name: row[name] for name in figures}
    query = _grouped(connection.dialect, [row[key] for key in keys], row.hour, sums, figures)
    return _sums(connection, query.where(row.hour >= day[0], row.hour < day[1]))


def _grouped(
    dialect: Dialect,
    keys: Sequence[Column[Any]],
    time: Column[Any],
    expressions: Mapping[str, ColumnElement[Any]],
    figures: Sequence[str],
) -> Select[Any]:
    """Sums by keys and hour, one for each figure in their order; 0 for one that has no expression."""
    groups = [*keys, _hour(dialect, time)]
    sums = [func.coalesce(func.sum(expressions[name]), 0) if name in expressions else func.max(0) for name in figures]
    return select(*groups, *sums).group_by(*groups)


def _hour(dialect: Dialect, time: Column[Any]) -> ColumnElement[Any]:
    if dialect.name == "postgresql":
        return func.to_char(func.timezone("UTC", time), 'YYYY-MM-DD"T"HH24', type_=String)
    return func.strftime("%Y-%m-%dT%H", time, type_=String)


def _sums(connection: Connection, query: Select[Any]) -> Sums:
    """Groups whose sums are all 0 are the same as no group."""
    found = {tuple(row[:5]): [int(value) for value in row[5:]] for row in connection.execute(query)}
    return {group: sums for group, sums in found.items() if any(sums)}


def _add(to: Sums, more: Sums) -> None:
    for group, sums in more.items():
        before = to.get(group, [0] * len(sums))
        to[group] = [a + b for a, b in zip(before, sums, strict=True)]


def _dirty(connection: Connection, kind: str, start: datetime, end: datetime) -> frozenset[tuple[str, str]]:
    row = dirty_hours.c
    query = select(row.tenant, row.hour).where(row.kind == kind, row.hour >= start, row.hour < end)
    hours: dict[str, set[str]] = defaultdict(set)
    for tenant, hour in connection.execute(query):
        hours[tenant].add(f"{hour.astimezone(UTC):%Y-%m-%dT%H}")
    return frozenset((tenant, hour) for tenant, named in hours.items() for hour in named)


def _whole_hours(start: datetime, end: datetime) -> tuple[datetime, datetime]:
    """All hours that the period touches."""
    first = start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    last = end.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return first, last if last == end else last + timedelta(hours=1)
