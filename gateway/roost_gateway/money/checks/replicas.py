"""Replicas: the stretches of each follow each other without a gap or an overlap, and their states sum to their length."""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, Dialect, Integer, String, and_, case, cast, func, or_, select
from sqlalchemy.sql.elements import ColumnElement

from roost_gateway.money.checks.check import MOST_FINDINGS, Check, Finding, Inquiry, Verdict, many
from roost_platform.database.money_tables import resource_usage
from roost_platform.database.tables import UtcTime
from roost_platform.domain.resources import ResourceKind
from roost_platform.metering.lines import scan
from roost_platform.metering.resource_lines import decode_lines
from roost_platform.metering.segments import DAMAGED, find_segments

_LONGEST = timedelta(hours=1)
"""Of a stretch: it is cut at full hours."""
_LARGEST_REST = 8 * 2**20
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class _Link:
    """A stretch that does not fit to the one before it, or into its own length."""

    tenant: str
    model: str
    replica: str
    start: datetime
    end: datetime
    length_us: int
    states_us: int
    before: datetime | None = None
    """When the stretch before it ended."""
    ended: bool = False
    """That one was said to be the last."""

    @property
    def scope(self) -> str:
        return f"tenant {self.tenant}, {self.model}, replica {self.replica}, {self.start.isoformat()}"


async def outbox(inquiry: Inquiry) -> Check:
    """What lies in this gateway's outbox files, against what is in the database."""
    check = Check("outbox", "stretches in outbox files", "of them in the database")
    waiting = await asyncio.to_thread(_waiting, inquiry.outbox)
    await inquiry.drain()
    for source, ids in sorted(waiting.items()):
        found = await inquiry.database.read(_count_of, source, sorted(ids))
        says = f"{many(len(ids) - found, 'line')} of the outbox cannot be brought to the database; see the server's log"
        check.compare(f"source {source}", len(ids), found, says)
    for path in sorted(inquiry.outbox.glob(f"*{DAMAGED}")):
        lines = path.read_bytes().count(b"\n")
        says = (
            f"{many(lines, 'line')} could not be read: nobody is charged for what it held, which is kept in {path.name}"
        )
        check.compare(f"file {path.name}", lines, 0, says)
    return check


async def states(inquiry: Inquiry) -> Check:
    """Setup + active + idle + reserved of each stretch against its length."""
    check = Check("states of replicas", "microseconds that replicas lived", "setup + active + idle + reserved")
    for start, end in inquiry.days():
        found = await inquiry.database.read(_states, start, end)
        check.compared += found.stretches
        check.left += found.lived_us
        check.right += found.states_us
        check.difference += found.difference_us
        check.more_findings += found.wrong - len(found.links)
        for link in found.links:
            says = f"the stretch lasts {link.length_us:,} µs, but its states add up to {link.states_us:,} µs"
            check.keep(Finding(link.scope, link.length_us, link.states_us, Verdict.DIFFERS, says))
    return check


async def chains(inquiry: Inquiry) -> Check:
    """The beginning of each stretch against the end of the one before it.

    An engine numbers the stretches of each replica. Where the next number begins at another time than the one before it
    ended, the machine's clock was set meanwhile: nothing is missing, since lengths come from a clock that does not jump.
    """
    check = Check("chains of replicas", "stretches of replicas", "that follow the one before them")
    for start, end in inquiry.days():
        count, broken, links = await inquiry.database.read(_chains, start, end)
        check.compared += count
        check.left += count
        check.right += count - broken
        check.difference += broken
        for link in links:
            check.keep(Finding(link.scope, 1, 0, Verdict.DIFFERS, _what_is_wrong(link)))
        check.more_findings += broken - len(links)
    return check


def _waiting(folder: Path) -> dict[str, set[str]]:
    """The ids of whole stretches in the folder's files, for each source."""
    found: dict[str, set[str]] = {}
    for segment in find_segments(folder):
        try:
            with segment.path.open("rb") as file:
                stretch = scan(file.read(_LARGEST_REST))
        except FileNotFoundError:  # shipped meanwhile
            continue
        for usage in decode_lines(stretch.sound + stretch.damaged)[0]:
            found.setdefault(usage.source, set()).add(usage.id)
    return found


def _count_of(connection: Connection, source: str, ids: list[str]) -> int:
    count = 0
    for at in range(0, len(ids), _AT_ONCE):
        mine = and_(resource_usage.c.source == source, resource_usage.c.id.in_(ids[at : at + _AT_ONCE]))
        count += connection.scalar(select(func.count()).select_from(resource_usage).where(mine)) or 0
    return count


def _what_is_wrong(link: _Link) -> str:
    assert link.before is not None
    if link.ended:
        return f"the replica had ended at {link.before.isoformat()}, and yet it goes on"
    if link.start > link.before:
        return f"nothing is known of the {link.start - link.before} before it: a stretch was lost, or deleted"
    return f"it overlaps the one before by {link.before - link.start}: that time is counted twice"


@dataclass(frozen=True, slots=True)
class _States:
    stretches: int
    lived_us: int
    states_us: int
    difference_us: int
    """Of all stretches, each without its sign."""
    wrong: int
    """Stretches in which the two differ,"""
    links: list[_Link]
    """and some of them."""


def _states(connection: Connection, start: datetime, end: datetime) -> _States:
    stretch = resource_usage.c
    length, states = _length_us(connection.dialect), _states_us()
    mine = and_(stretch.kind == ResourceKind.REPLICA, stretch.start >= start, stretch.start < end)
    differ = func.coalesce(func.sum(func.abs(length - states)), 0)
    wrong = func.coalesce(func.sum(case((length != states, 1), else_=0)), 0)
    sums = [func.count(), func.coalesce(func.sum(length), 0), func.coalesce(func.sum(states), 0), differ, wrong]
    stretches, lived_us, states_us, difference_us, faulty = map(
        int, connection.execute(select(*sums).where(mine)).one()
    )
    query = (
        select(stretch.tenant, stretch.model, stretch.replica, stretch.start, stretch.end, length, states)
        .where(mine, length != states)
        .order_by(stretch.start)
        .limit(MOST_FINDINGS)
    )
    links = [_Link(*row) for row in connection.execute(query)]
    return _States(stretches, lived_us, states_us, difference_us, faulty, links)


def _chains(connection: Connection, start: datetime, end: datetime) -> tuple[int, int, list[_Link]]:
    """How many stretches there are, how many do not follow the one before, and some of those."""
    stretch = resource_usage.c
    order: dict[str, Any] = {
        "partition_by": [stretch.tenant, stretch.model, stretch.revision, stretch.replica],
        "order_by": [stretch.start, stretch.end],
    }
    seen = (
        select(
            *(stretch.tenant, stretch.model, stretch.replica, stretch.start, stretch.end, stretch.id),
            func.lag(stretch.end, type_=UtcTime()).over(**order).label("before"),
            func.lag(case((stretch.final, 1), else_=0)).over(**order).label("ended"),
            func.lag(stretch.id).over(**order).label("id_before"),
        )
        # From a little earlier on, so that the first one of the period finds the one before it.
        .where(stretch.kind == ResourceKind.REPLICA, stretch.start >= start - _LONGEST, stretch.start < end)
        .subquery()
    )
    mine = seen.c.start >= start
    count = connection.scalar(select(func.count()).where(mine).select_from(seen)) or 0
    torn = and_(mine, seen.c.before.is_not(None), or_(seen.c.before != seen.c.start, seen.c.ended == 1))
    broken = 0
    links: list[_Link] = []
    for tenant, model, replica, begin, stop, name, before, ended, name_before in connection.execute(
        select(seen).where(torn).order_by(seen.c.start)
    ):
        if not ended and _are_neighbours(name_before, name):
            continue
        broken += 1
        if len(links) < MOST_FINDINGS:
            links.append(_Link(tenant, model, replica, begin, stop, 0, 0, before, bool(ended)))
    return count, broken, links


def _are_neighbours(first: str, second: str) -> bool:
    """Whether two ids, `<replica>/<number>`, are of stretches that follow each other, in either order of time."""
    of, _, number = first.rpartition("/")
    other, _, next_number = second.rpartition("/")
    if not of or of != other or not number.isdecimal() or not next_number.isdecimal():
        return False
    return abs(int(next_number) - int(number)) == 1


def _states_us() -> ColumnElement[int]:
    stretch = resource_usage.c
    return stretch.setup_us + stretch.active_us + stretch.idle_us + stretch.reserved_us


def _length_us(dialect: Dialect) -> ColumnElement[int]:
    return _since_1970_us(dialect, resource_usage.c.end) - _since_1970_us(dialect, resource_usage.c.start)


def _since_1970_us(dialect: Dialect, time: Column[Any]) -> ColumnElement[int]:
    if dialect.name == "postgresql":
        return cast(func.extract("epoch", time) * 1_000_000, BigInteger)
    text = cast(time, String)  # 2026-11-03 12:00:00.000000
    seconds = cast(func.strftime("%s", time), Integer)
    return seconds * 1_000_000 + cast(func.substr(text, 21, 6), Integer)
