"""The ledger: every answered call once, for ever; and the questions that are asked of it.

Functions of a connection, to be run by `Database.write` and `Database.read`. They speak SQLite and PostgreSQL.
"""

from collections.abc import Collection
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Dialect, Integer, String, and_, case, func, select
from sqlalchemy.sql.elements import ColumnElement

from roost_platform.database.tables import usage_events
from roost_platform.domain.errors import InvalidRequest
from roost_platform.domain.usage import BILLED_OUTCOMES, Outcome
from roost_platform.metering.recording import record

__all__ = ["UsageFigures", "UsageReport", "UsageRow", "gaps", "record", "usage_report"]

Key = str | int


def gaps(connection: Connection, source: str) -> tuple[range, ...]:
    """The sequence numbers of a source that are missing between 0 and its last one; empty = nothing was lost."""
    sequence = usage_events.c.sequence
    before = func.lag(sequence, 1, -1).over(order_by=sequence)
    numbered = select(sequence, before.label("before")).where(usage_events.c.source == source).subquery()
    holes = (
        select(numbered.c.before, numbered.c.sequence)
        .where(numbered.c.sequence > numbered.c.before + 1)
        .order_by(numbered.c.sequence)
    )
    return tuple(range(before + 1, sequence) for before, sequence in connection.execute(holes))


@dataclass(frozen=True, slots=True)
class UsageFigures:
    """Sums over calls, in integer base units."""

    requests: int = 0
    """All answered calls, refused ones included."""
    billed_requests: int = 0
    """Those whose outcome is charged (BILLED_OUTCOMES)."""
    rows: int = 0
    compute_us: int = 0
    queue_us: int = 0
    cold_starts: int = 0
    """Calls that waited for a replica to wake."""
    cold_start_us: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    errors: int = 0
    """Calls that ended in any other way than `ok`; copies are none."""
    shadow_requests: int = 0
    """Copies to a shadow: part of `requests`, and of all amounts."""

    def __add__(self, other: "UsageFigures") -> "UsageFigures":
        return UsageFigures(*(getattr(self, name) + getattr(other, name) for name in _FIGURES))

    def to_json(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in _FIGURES}


_FIGURES = tuple(field.name for field in fields(UsageFigures))


@dataclass(frozen=True, slots=True)
class UsageRow:
    keys: dict[str, Key]
    """One value per dimension of the report's `group_by`, in that order."""
    figures: UsageFigures


@dataclass(frozen=True, slots=True)
class UsageReport:
    """What a tenant used in [start, end); all of them where `tenant` is None."""

    tenant: str | None
    start: datetime
    end: datetime
    group_by: tuple[str, ...]
    rows: tuple[UsageRow, ...]
    """Ordered by their keys; groups without a call are absent."""
    total: UsageFigures
    """The sum of all rows."""

    def to_json(self) -> dict[str, Any]:
        return {
            "tenant": self.tenant,
            "from": self.start.isoformat(),
            "to": self.end.isoformat(),
            "group_by": list(self.group_by),
            "rows": [row.keys | row.figures.to_json() for row in self.rows],
            "total": self.total.to_json(),
        }


def usage_report(
    connection: Connection,
    *,
    tenant: str | None,
    start: datetime,
    end: datetime,
    group_by: Collection[str] = ("model",),
    model: str | None = None,
) -> UsageReport:
    """Sum the calls of a tenant (None: of all; of one model, if given) whose answer was ready in [start, end).

    `group_by` is any choice of tenant, model, version, outcome, day and hour; the last two are UTC, written `2026-11-01`
    and `2026-11-01T10:00:00+00:00`. Raises InvalidRequest for another dimension or an interval that is not one.
    """
    if start.tzinfo is None or end.tzinfo is None:
        raise InvalidRequest("from and to must be times with an offset from UTC", field="from")
    if end <= start:
        raise InvalidRequest("to must be later than from", field="to")
    dimensions = _dimensions(connection.dialect)
    for name in group_by:
        if name not in dimensions:
            raise InvalidRequest(f"group_by takes {', '.join(dimensions)}, not {name!r}", field="group_by")
    names = tuple(dict.fromkeys(group_by))
    keys = [dimensions[name].label(f"key_{name}") for name in names]
    event = usage_events.c
    query = select(*keys, *_sums()).where(event.time >= start, event.time < end).group_by(*keys).order_by(*keys)
    if tenant is not None:
        query = query.where(event.tenant == tenant)
    if model is not None:
        query = query.where(event.model == model)
    rows = []
    for values in connection.execute(query):
        figures = UsageFigures(*(int(value or 0) for value in values[len(names) :]))
        if figures.requests:  # without a GROUP BY, SQL answers one row of nothing
            rows.append(UsageRow(dict(zip(names, values[: len(names)], strict=True)), figures))
    total = sum((row.figures for row in rows), UsageFigures())
    return UsageReport(tenant, start, end, names, tuple(rows), total)


def _dimensions(dialect: Dialect) -> dict[str, ColumnElement[Any]]:
    event = usage_events.c
    if dialect.name == "postgresql":
        utc = func.timezone("UTC", event.time)
        day = func.to_char(utc, "YYYY-MM-DD", type_=String)
        hour = func.to_char(utc, 'YYYY-MM-DD"T"HH24":00:00+00:00"', type_=String)
    else:  # SQLite keeps UTC as text
        day = func.strftime("%Y-%m-%d", event.time, type_=String)
        hour = func.strftime("%Y-%m-%dT%H:00:00+00:00", event.time, type_=String)
    columns = {name: event[name] for name in ("tenant", "model", "version", "outcome")}
    return columns | {"day": day, "hour": hour}


def _sums() -> list[ColumnElement[Any]]:
    """One expression for each field of UsageFigures, in their order."""
    event = usage_events.c
    expressions: dict[str, ColumnElement[Any]] = {
        "billed_requests": _count(event.outcome.in_(sorted(BILLED_OUTCOMES))),
        "cold_starts": _count(event.cold_start_us > 0),
        "errors": _count(event.outcome.not_in([Outcome.OK, Outcome.SHADOW])),
        "shadow_requests": _count(event.outcome == Outcome.SHADOW),
    }
    sums = [name for name in _FIGURES if name not in expressions]
    expressions |= {name: func.sum(event[name]) for name in sums}
    return [expressions[name].label(f"sum_{name}") for name in _FIGURES]


def _count(condition: ColumnElement[bool]) -> ColumnElement[int]:
    """Of calls: a row may stand for several."""
    return func.sum(case((and_(condition), usage_events.c.requests), else_=0), type_=Integer)
