"""Calls: what this gateway counted, what is in its journal, what each run took on, and what the ledger holds.

A gateway goes on while it is asked. What it counts is read before and after the ledger, and the ledger's number must lie
between the two: on a quiet gateway they are the same, and so the comparison is exact.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, func, select

from roost_gateway.money.checks.check import Check, Inquiry, many
from roost_platform.database.money_tables import ledger_conflicts, sources, unknown_calls
from roost_platform.database.tables import journal_positions, usage_events
from roost_platform.metering.ledger import gaps
from roost_platform.metering.lines import read_lines, scan
from roost_platform.metering.segments import DAMAGED, find_segments
from roost_platform.metering.sources import Balance, Counted, count_events, last_sequence, requests_of, slices

_LARGEST_REST = 8 * 2**20
"""Bytes of a segment that are looked at behind its position; what was there a moment ago is far less."""


async def counters(inquiry: Inquiry) -> Check:
    """The gateway's own counters of answered calls against its events in the ledger, tenant by tenant."""
    check = Check("counters", "calls this gateway answered", "calls of this run in the ledger")
    run = inquiry.run
    before = dict(run.answered())
    await inquiry.drain()
    in_ledger = await _requests_by_tenant(inquiry, run.source)
    after, in_flight = run.answered(), run.in_flight()
    for tenant in sorted({*before, *after, *in_ledger}):
        right = in_ledger[tenant]
        left = _within(right, before.get(tenant, 0), after.get(tenant, 0) + in_flight)
        check.compare(
            f"tenant {tenant}",
            left,
            right,
            f"this gateway (run {run.source}) answered {many(left, 'call')} since it started, but the ledger holds {right:,} "
            "of them" + _lost_or_added(left - right),
        )
    return check


async def taken_on(inquiry: Inquiry) -> Check:
    """Calls that this gateway has taken on, against those in the ledger, refused for want of room, or under way."""
    check = Check("calls taken on", "calls this gateway took on", "calls in the ledger, not stored, or under way")
    run = inquiry.run
    before = run.opened() - run.in_flight()
    await asyncio.sleep(0)  # what ended in this turn of the loop is in the journal after it
    await inquiry.drain()
    in_ledger = sum((await _requests_by_tenant(inquiry, run.source)).values())
    right = in_ledger + run.unstored()
    left = _within(right, before, run.opened())
    check.compare(
        f"run {run.source}",
        left,
        right,
        f"{many(left, 'call')} ended here; {in_ledger:,} are in the ledger and {run.unstored():,} could not be stored"
        + _lost_or_added(left - right),
    )
    return check


async def balances(inquiry: Inquiry) -> Check:
    """Of each run that has ended: opened = completed + unstored + unknown."""
    check = Check("balance of runs", "calls opened", "calls completed, not stored, or unknown")
    for run in await _runs(inquiry):
        if run.closed:
            left, right = run.balance.opened, run.balance.opened - run.balance.unaccounted
            figures = f"{run.balance.completed:,} completed + {run.balance.unstored:,} not stored"
            check.compare(
                f"run {run.balance.source}",
                left,
                right,
                f"{many(left, 'call')} were opened, but {figures} + {run.balance.unknown:,} unknown are {right:,}: it is not "
                "known what became of the others (a power cut may take the last second's counts)",
            )
    return check


async def completed(inquiry: Inquiry) -> Check:
    """What each run's row says was completed, against the ledger as it is now."""
    check = Check("completed calls", "calls completed, as the run was closed", "calls of the run in the ledger")
    for run in await _runs(inquiry):
        if run.closed:
            source = run.balance.source
            counted = await _count(inquiry, source)
            left, right = run.balance.completed, counted.requests
            says = f"the ledger held {many(left, 'call')} when the run was closed, now it holds {right:,}"
            check.compare(f"run {source}", left, right, says + _lost_or_added(left - right))
    return check


async def unknown(inquiry: Inquiry) -> Check:
    """How many calls each run's row says are unknown, against the calls that are written down so."""
    check = Check("unknown calls", "unknown calls, as the run was closed", "unknown calls that are written down")
    for run in await _runs(inquiry):
        if run.closed:
            source = run.balance.source
            right = await inquiry.database.read(_unknown_of, source)
            says = f"the run left {many(run.balance.unknown, 'unknown call')}, but {right:,} are listed"
            check.compare(f"run {source}", run.balance.unknown, right, says)
    return check


async def sequences(inquiry: Inquiry) -> Check:
    """The sequence numbers of each run that has events in the period: none may be missing."""
    check = Check("sequence numbers", "numbers given out", "events in the ledger")
    for source in await _sources_in(inquiry):
        last = await inquiry.database.read(last_sequence, source)
        counted = await _count(inquiry, source)
        missing = "" if last + 1 == counted.events else await _missing(inquiry, source)
        check.compare(
            f"run {source}",
            last + 1,
            counted.events,
            f"missing: {missing}. Usage was lost on the way from the journal to the ledger, or deleted there",
        )
    return check


async def journal(inquiry: Inquiry) -> Check:
    """Events in this gateway's journal files, against the ledger."""
    check = Check("journal", "events in journal files", "of them in the ledger")
    await inquiry.drain()
    positions = await inquiry.database.read(_positions)
    waiting = await asyncio.to_thread(_waiting, inquiry.journal, positions)
    await inquiry.drain()
    for source, events in sorted(waiting.items()):
        there = await inquiry.database.read(requests_of, source, events)
        found = sum(1 for sequence, requests in events.items() if there.get(sequence, 0) >= requests)
        says = (
            f"{many(len(events) - found, 'event')} of the journal cannot be brought to the ledger; see the server's log"
        )
        check.compare(f"run {source}", len(events), found, says)
    for path, lines in await asyncio.to_thread(_damaged, inquiry.journal, inquiry.start):
        says = (
            f"{many(lines, 'line')} could not be read: the ledger lacks what it held, which is kept in journal/{path}"
        )
        check.compare(f"file {path}", lines, 0, says)
    return check


async def conflicts(inquiry: Inquiry) -> Check:
    """Events that came again under a known key with other content. The first is kept; a person has to look."""
    check = Check("conflicts", "events with a known key and other content", "none")
    found = await inquiry.database.read(_conflicts, inquiry.start, inquiry.end)
    for source, count in sorted(found.items()):
        says = (
            f"{many(count, 'event')} came again with other content; the first counts, the other is in ledger_conflicts"
        )
        check.compare(f"source {source}", count, 0, says)
    return check


@dataclass(frozen=True, slots=True)
class _Run:
    balance: Balance
    closed: bool


async def _runs(inquiry: Inquiry) -> list[_Run]:
    """Those that lived at some time of the period."""
    return await inquiry.database.read(_runs_between, inquiry.start, inquiry.end)


def _runs_between(connection: Connection, start: datetime, end: datetime) -> list[_Run]:
    row = sources.c
    query = (
        select(row.closed_at, row.source, row.opened, row.completed, row.unstored, row.unknown)
        .where(row.started_at < end, row.closed_at.is_(None) | (row.closed_at >= start))
        .order_by(row.started_at, row.source)
    )
    return [_Run(Balance(*balance), closed is not None) for closed, *balance in connection.execute(query)]


async def _sources_in(inquiry: Inquiry) -> list[str]:
    """Runs with events in the period, by their first and last ones."""
    found, source = [], await inquiry.database.read(_next_source, "")
    while source is not None:
        first, last = await inquiry.database.read(_span, source)
        if first < inquiry.end and last >= inquiry.start:
            found.append(source)
        source = await inquiry.database.read(_next_source, source)
    return found


def _next_source(connection: Connection, after: str) -> str | None:
    """From key to key, without a look at what is between."""
    found: str | None = connection.scalar(select(func.min(usage_events.c.source)).where(usage_events.c.source > after))
    return found


def _span(connection: Connection, source: str) -> tuple[datetime, datetime]:
    """The times of a run's first and last event, by their numbers."""
    event = usage_events.c
    query = select(event.time).where(event.source == source).limit(1)
    ends = [connection.scalar(query.order_by(order)) for order in (event.sequence, event.sequence.desc())]
    assert ends[0] is not None
    assert ends[1] is not None
    return ends[0], ends[1]


async def _count(inquiry: Inquiry, source: str) -> Counted:
    counted = Counted()
    for part in slices(await inquiry.database.read(last_sequence, source)):
        counted += await inquiry.database.read(count_events, source, part)
    return counted


async def _requests_by_tenant(inquiry: Inquiry, source: str) -> Counter[str]:
    counted: Counter[str] = Counter()
    for part in slices(await inquiry.database.read(last_sequence, source)):
        counted += Counter(await inquiry.database.read(_tenants_of, source, part))
    return counted


def _tenants_of(connection: Connection, source: str, part: range) -> dict[str, int]:
    event = usage_events.c
    query = (
        select(event.tenant, func.sum(event.requests))
        .where(event.source == source, event.sequence >= part.start, event.sequence < part.stop)
        .group_by(event.tenant)
    )
    return {tenant: int(requests) for tenant, requests in connection.execute(query)}


def _unknown_of(connection: Connection, source: str) -> int:
    query = select(func.count()).select_from(unknown_calls).where(unknown_calls.c.source == source)
    return connection.scalar(query) or 0


async def _missing(inquiry: Inquiry, source: str) -> str:
    holes = await inquiry.database.read(gaps, source)
    named = [str(hole.start) if len(hole) == 1 else f"{hole.start} to {hole.stop - 1}" for hole in holes[:5]]
    return ", ".join(named) + (" and more" if len(holes) > len(named) else "")


def _positions(connection: Connection) -> dict[str, int]:
    rows = connection.execute(select(journal_positions.c.segment, journal_positions.c.offset))
    return {segment: offset for segment, offset in rows}  # noqa: C416 (rows are no pairs)


def _waiting(folder: Path, positions: dict[str, int]) -> dict[str, dict[int, int]]:
    """Of whole batches behind the positions: requests by sequence, for each run."""
    found: dict[str, dict[int, int]] = {}
    for segment in find_segments(folder):
        try:
            with segment.path.open("rb") as file:
                file.seek(positions.get(segment.name, 0))
                stretch = scan(file.read(_LARGEST_REST))
        except FileNotFoundError:  # shipped meanwhile
            continue
        for source, sequence, requests in _events(read_lines(stretch.sound + stretch.damaged)[0]):
            events = found.setdefault(source, {})
            events[sequence] = max(events.get(sequence, 0), requests)
    return found


def _events(rows: Iterable[tuple[object, ...]]) -> Iterable[tuple[str, int, int]]:
    return ((str(row[0]), int(str(row[1])), int(str(row[-1]))) for row in rows)


def _damaged(folder: Path, since: datetime) -> list[tuple[str, int]]:
    """Files of damaged lines that were written since then, and how many lines each has."""
    files = [path for path in folder.glob(f"*{DAMAGED}") if path.stat().st_mtime >= since.timestamp()]
    return [(path.name, path.read_bytes().count(b"\n")) for path in sorted(files)]


def _conflicts(connection: Connection, start: datetime, end: datetime) -> dict[str, int]:
    row = ledger_conflicts.c
    query = select(row.source, func.count()).where(row.seen_at >= start, row.seen_at < end).group_by(row.source)
    return {source: count for source, count in connection.execute(query)}  # noqa: C416 (rows are no pairs)


def _within(number: int, low: int, high: int) -> int:
    """The nearest to `number` that lies between the two."""
    return min(max(number, low), high)


def _lost_or_added(difference: int) -> str:
    return (
        f": it lacks {many(difference, 'call')}" if difference > 0 else f": it has {many(-difference, 'call')} too many"
    )
