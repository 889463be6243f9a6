"""What tenants held over time, summed as people ask for it: replicas by state and class, cold starts, storage, checks.

The sister of `ledger.usage_report`, which sums calls. A function of a connection; it speaks SQLite and PostgreSQL. Whole
hours come from their roll-ups; those that are behind, and broken ones at the ends, from the stretches themselves.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import CompoundSelect, Connection, Dialect, String, and_, false, func, not_, or_, select, union_all
from sqlalchemy.sql.base import ReadOnlyColumnCollection
from sqlalchemy.sql.elements import ColumnElement

from roost_platform.database.money_tables import dirty_hours, resource_hours, resource_usage
from roost_platform.domain.errors import InvalidRequest
from roost_platform.domain.hours import HOUR, hour_of
from roost_platform.metering.resources import RESOURCES

Key = str | int

KEYS = ("tenant", "model", "version", "class", "day", "hour")
"""What resources can be grouped by."""
_HALF = 2**32
_MOST_RANGES = 100

Range = tuple[datetime, datetime]
"""[from, to)."""


@dataclass(frozen=True, slots=True)
class ResourceFigures:
    """Sums over stretches, in integer base units, as `ResourceUsage` has them."""

    setup_us: int = 0
    active_us: int = 0
    idle_us: int = 0
    reserved_us: int = 0
    cold_starts: int = 0
    pull_us: int = 0
    schedule_us: int = 0
    load_us: int = 0
    byte_seconds: int = 0
    job_us: int = 0

    def __add__(self, other: "ResourceFigures") -> "ResourceFigures":
        return ResourceFigures(*(getattr(self, name) + getattr(other, name) for name in FIGURES))

    @property
    def provisioned_us(self) -> int:
        """How long replicas were there: the sum of the four states that a replica can be in."""
        return self.setup_us + self.active_us + self.idle_us + self.reserved_us

    def to_json(self) -> dict[str, int]:
        return {"provisioned_us": self.provisioned_us} | {name: getattr(self, name) for name in FIGURES}


FIGURES = tuple(field.name for field in fields(ResourceFigures))


@dataclass(frozen=True, slots=True)
class ResourceRow:
    keys: dict[str, Key]
    """One value per dimension of the report's `group_by`, in that order."""
    figures: ResourceFigures


@dataclass(frozen=True, slots=True)
class ResourceReport:
    group_by: tuple[str, ...]
    rows: tuple[ResourceRow, ...]
    """Ordered by their keys; groups that held nothing are absent."""
    total: ResourceFigures
    """The sum of all rows."""

    def to_json(self) -> dict[str, Any]:
        return {
            "group_by": list(self.group_by),
            "rows": [row.keys | row.figures.to_json() for row in self.rows],
            "total": self.total.to_json(),
        }


def resource_report(
    connection: Connection,
    *,
    tenant: str | None,
    start: datetime,
    end: datetime,
    group_by: Collection[str] = (),
    model: str | None = None,
) -> ResourceReport:
    """Sum the stretches of a tenant (None = of all) that begin in [start, end).

    `group_by` is any choice of KEYS; `day` and `hour` are UTC, written as `ledger.usage_report` writes them. Raises
    InvalidRequest for another dimension.
    """
    names = tuple(dict.fromkeys(group_by))
    for name in names:
        if name not in KEYS:
            raise InvalidRequest(f"resources are grouped by {', '.join(KEYS)}, not {name!r}", field="group_by")
    held = _held(connection, tenant, start, end).subquery()
    dimensions = _dimensions(connection.dialect, held.c)
    keys = [dimensions[name].label(f"key_{name}") for name in names]
    query = select(*keys, func.count(), *_sums(held.c))
    if model is not None:
        query = query.where(held.c.model == model)
    rows = [
        ResourceRow(dict(zip(names, values[: len(names)], strict=True)), _figures(values[len(names) + 1 :]))
        for values in connection.execute(query.group_by(*keys).order_by(*keys))
        if values[len(names)]  # without a GROUP BY, SQL answers one row of nothing
    ]
    return ResourceReport(names, tuple(rows), sum((row.figures for row in rows), ResourceFigures()))


def _held(connection: Connection, tenant: str | None, start: datetime, end: datetime) -> CompoundSelect[Any]:
    """Roll-ups and stretches together, each with the columns of both: the time is a roll-up's hour, or a stretch's start."""
    dirty, hour, stretch = dirty_hours.c, resource_hours.c, resource_usage.c
    first, last = _next_full_hour(start), hour_of(end)
    behind = select(dirty.hour).where(dirty.kind == RESOURCES, dirty.hour >= first, dirty.hour < last).distinct()
    if tenant is not None:
        behind = behind.where(dirty.tenant == tenant)
    # An hour that is behind for one tenant is read from the stretches for all of them: it is mostly the running one.
    told_hours = _merged(connection.scalars(behind.order_by(dirty.hour)))
    ends = [(start, min(first, end)), (max(last, min(first, end)), end)]
    columns = ("tenant", "model", "version", "resource_class", *FIGURES)
    rolled_up = select(hour.hour.label("time"), *(hour[name] for name in columns)).where(
        hour.hour >= first, hour.hour < last, not_(_within(hour.hour, told_hours))
    )
    told = select(stretch.start.label("time"), *(stretch[name] for name in columns)).where(
        _within(stretch.start, [*ends, *told_hours])
    )
    if tenant is not None:
        rolled_up, told = rolled_up.where(hour.tenant == tenant), told.where(stretch.tenant == tenant)
    return union_all(rolled_up, told)


def _merged(hours: Iterable[datetime]) -> list[Range]:
    """Rising hours as ranges; one that holds all of them where they lie too scattered for a query."""
    found: list[Range] = []
    for hour in hours:
        if found and found[-1][1] == hour:
            found[-1] = (found[-1][0], hour + HOUR)
        else:
            found.append((hour, hour + HOUR))
    return found if len(found) <= _MOST_RANGES else [(found[0][0], found[-1][1])]


def _within(time: ColumnElement[Any], ranges: Iterable[Range]) -> ColumnElement[bool]:
    return or_(false(), *(and_(time >= a, time < b) for a, b in ranges if a < b))


def _next_full_hour(at: datetime) -> datetime:
    hour = hour_of(at)
    return hour if hour == at else hour + HOUR


def _dimensions(dialect: Dialect, held: ReadOnlyColumnCollection[str, Any]) -> dict[str, ColumnElement[Any]]:
    if dialect.name == "postgresql":
        utc = func.timezone("UTC", held.time)
        day = func.to_char(utc, "YYYY-MM-DD", type_=String)
        hour = func.to_char(utc, 'YYYY-MM-DD"T"HH24":00:00+00:00"', type_=String)
    else:  # SQLite keeps UTC as text
        day = func.strftime("%Y-%m-%d", held.time, type_=String)
        hour = func.strftime("%Y-%m-%dT%H:00:00+00:00", held.time, type_=String)
    return dict(zip(KEYS, (held.tenant, held.model, held.version, held.resource_class, day, hour), strict=True))


def _sums(held: ReadOnlyColumnCollection[str, Any]) -> list[ColumnElement[Any]]:
    """One sum for each figure, but two for byte-seconds.

    A few terabytes over a month are more of those than SQLite's sum can hold (2^63), so their upper and lower halves are
    summed apart.
    """
    sums: list[ColumnElement[Any]] = []
    for name in FIGURES:
        if name == "byte_seconds":
            sums += [func.sum(held[name] // _HALF), func.sum(held[name] % _HALF)]
        else:
            sums.append(func.sum(held[name]))
    return sums


def _figures(sums: Sequence[Any]) -> ResourceFigures:
    at = FIGURES.index("byte_seconds")
    numbers = [int(value) for value in sums]
    numbers[at : at + 2] = [numbers[at] * _HALF + numbers[at + 1]]
    return ResourceFigures(**dict(zip(FIGURES, numbers, strict=True)))
