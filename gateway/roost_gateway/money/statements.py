"""Statements at work: made from the ledger as it is now, made final once, and everything that comes after that.

    one state of the database ──▶ rated, by a pure function ──▶ one transaction: the document is kept, if nothing of the
    (usage, documents so far)                                   tenant's documents has changed since; else once more

Killed anywhere, there is no document yet, and the next one to do it makes it; two at once find the first one's.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import Connection, func, select

from roost_gateway.money.metered import metered
from roost_platform.billing.late import EarlierMonth, still_corrected
from roost_platform.billing.lines import Category, MeteredUsage
from roost_platform.billing.months import Month, month_of
from roost_platform.billing.notes import Note
from roost_platform.billing.prices import PriceBooks
from roost_platform.billing.statement_store import (
    Listed,
    Mark,
    OutdatedError,
    add_note,
    documents_of,
    final_statement,
    keep,
    listed,
    set_mark,
    state_of,
    void_ids,
)
from roost_platform.billing.statements import Kind, Statement, make_statement, statement_id
from roost_platform.database.connection import Database
from roost_platform.database.money_tables import unknown_calls
from roost_platform.domain.errors import NotFound
from roost_platform.metering.hours import holds, rebuild
from roost_platform.metering.progress import first_use

log = logging.getLogger(__name__)

_DAY = timedelta(days=1)
_INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Inputs:
    """All that a statement is made from, in one state of the database."""

    final: Statement | None
    """It is there already; the rest does not matter then."""
    usage: tuple[MeteredUsage, ...]
    unknown_calls: int
    earlier: tuple[EarlierMonth, ...]
    seen: frozenset[str]
    """The tenant's documents (`statement_store.state_of`)."""


class Statements:
    """What people and the closing loop do with statements."""

    def __init__(
        self,
        *,
        database: Database,
        books: PriceBooks,
        drain: Callable[[], Awaitable[None]],
        clock: Callable[[], datetime],
    ) -> None:
        """`drain` brings what this gateway has metered to the database."""
        self._database = database
        self._books = books
        self._drain = drain
        self._clock = clock

    async def get(self, tenant: str, month: Month) -> Statement:
        """The final one; else as it would be now. Raises InvalidRequest for a month that has not begun, Unavailable."""
        await self._drain()
        return await self.current(tenant, month)

    async def current(self, tenant: str, month: Month) -> Statement:
        """`get` without what is still on its way to the ledger."""
        inputs = await self._database.read(read_inputs, tenant, month, books=self._books)
        return inputs.final or await self._make(tenant, month, inputs)

    async def finalize(self, tenant: str, month: Month, *, notes: Iterable[str] = ()) -> Statement:
        """Make a month final, if it is not. `notes`: sentences that its statement shall say.

        Raises InvalidRequest for a month that is not over, Unavailable.
        """
        await self._drain()
        await self._check_roll_ups(tenant, month)
        while True:
            inputs = await self._database.read(read_inputs, tenant, month, books=self._books)
            if inputs.final is not None:
                return inputs.final
            made = await self._make(tenant, month, inputs, final=True, notes=notes)
            try:
                kept = await self._database.write(keep, made, seen=inputs.seen)
            except OutdatedError:
                continue  # another month of this tenant has just become final: what it corrects is not to be billed twice
            log.info("statement_final", extra={"statement": kept.id, "total": f"{kept.total:f}"})
            return kept

    async def list(self, tenant: str | None) -> list[Listed]:
        """All final documents; the latest month first."""
        return await self._database.read(listed, tenant)

    async def note(self, of: str, note: Note) -> Statement:
        """Raises what `statement_store.add_note` does."""
        made = await self._database.write(add_note, of, note, now=self._clock())
        log.info("note_written", extra={"statement": made.id, "total": f"{made.total:f}"})
        return made

    async def get_note(self, tenant: str, month: Month, number: str) -> Statement:
        """A note by its number on the month's statement, like C1. Raises NotFound."""
        wanted = f"{statement_id(tenant, month)}-{number}"
        found = await self._database.read(documents_of, tenant, since=month)
        for each in found:
            if each.id == wanted and each.kind is not Kind.STATEMENT:
                return each
        raise NotFound("no such note", code="statement_not_found")

    async def mark(self, document_id: str, mark: Mark, text: str) -> Listed:
        """Raises what `statement_store.set_mark` does."""
        done = await self._database.write(set_mark, document_id, mark, text, now=self._clock())
        log.info("statement_marked", extra={"statement": document_id, "state": str(mark)})
        return done

    async def _make(
        self, tenant: str, month: Month, inputs: Inputs, *, final: bool = False, notes: Iterable[str] = ()
    ) -> Statement:
        # Rating is work for a thread: of a large tenant it would hold up every other request.
        make = partial(
            make_statement,
            tenant=tenant,
            month=month,
            usage=inputs.usage,
            books=self._books,
            now=self._clock(),
            unknown_calls=inputs.unknown_calls,
            earlier=inputs.earlier,
            final=final,
            notes=tuple(notes),
        )
        return await asyncio.to_thread(make)

    async def _check_roll_ups(self, tenant: str, month: Month) -> None:
        """What is final is made from sums that were held against the events: a cache that is wrong must cost nobody money.

        Day by day: no transaction takes long.
        """
        day = month.start
        while (used := await self._database.read(first_use, tenant, day)) is not None and used < month.end:
            day = used.replace(hour=0, minute=0, second=0, microsecond=0)
            if not await self._database.read(holds, tenant, day, day + _DAY):
                log.error("roll_ups_were_wrong", extra={"tenant": tenant, "day": f"{day:%Y-%m-%d}"})
                await self._database.write(rebuild, day, day + _DAY)
            day += _DAY


def read_inputs(connection: Connection, tenant: str, month: Month, *, books: PriceBooks) -> Inputs:
    """To be run by `Database.read`."""
    final = final_statement(connection, tenant, month)
    if final is not None:
        return Inputs(final, (), 0, (), frozenset())
    return Inputs(
        final=None,
        usage=_usage(connection, tenant, month, books),
        unknown_calls=_unknown_calls(connection, tenant, month),
        earlier=_earlier(connection, tenant, month, books),
        seen=state_of(connection, tenant),
    )


def _usage(connection: Connection, tenant: str, month: Month, books: PriceBooks) -> tuple[MeteredUsage, ...]:
    # Summed on each side of a change of prices on its own: a sum across it could not be rated.
    periods = books.periods(month.start, month.end, tenant=tenant)
    return tuple(metered(connection, tenant=tenant, edges=[month.start, *(period.end for period in periods)]))


def _earlier(connection: Connection, tenant: str, month: Month, books: PriceBooks) -> tuple[EarlierMonth, ...]:
    """The months that are final and that this one's statement corrects."""
    before = _corrected_by(month)
    documents = [each for each in documents_of(connection, tenant, since=before[0]) if each.kind is Kind.STATEMENT]
    void = void_ids(connection, tenant)
    found = []
    for earlier in before:
        own = next((each for each in documents if each.month == earlier), None)
        if own is None or own.id in void:
            continue
        others = [each for each in documents if any(line.month == str(earlier) for line in each.lines)]
        billed = [line for line in own.lines if line.category is not Category.CORRECTION]
        billed += [line for each in others for line in each.lines if line.month == str(earlier)]
        ids = (own.id, *(each.id for each in others))
        usage = _usage(connection, tenant, earlier, books)
        found.append(EarlierMonth(earlier, usage, tuple(billed), ids, own.price_books))
    return tuple(found)


def _corrected_by(month: Month) -> list[Month]:
    """The months before this one that its statement corrects, the oldest first."""
    found = [month_of(month.start - _INSTANT)]
    while still_corrected(before := month_of(found[0].start - _INSTANT), month):
        found.insert(0, before)
    return found


def _unknown_calls(connection: Connection, tenant: str, month: Month) -> int:
    row = unknown_calls.c
    query = select(func.count()).where(row.tenant == tenant, row.time >= month.start, row.time < month.end)
    return connection.scalar(query) or 0
