"""The loop that rolls up hours and makes the months that are over final; one gateway of several does it, the one that leads.

A month is made final for a tenant when it ended `grace_s` ago and is complete: every run of a gateway that began before its
end has said that its usage is in the database, or is closed. A run that was killed with its machine never says so: after
`wait_s` the month is made final without it, its statement says that, and what comes later is on the next one's, as all late
usage is. The oldest month of a tenant comes first. Whoever used anything gets a statement, deleted tenants as well; and a
month in which a tenant used nothing gets one when there is something of an earlier month to bill, or to give back.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from sqlalchemy.exc import SQLAlchemyError

from roost_gateway.money.closing_figures import ClosingFigures
from roost_gateway.money.due import Due, find_due, is_final, just_over
from roost_gateway.money.statements import Statements
from roost_platform.billing.late import LATEST, still_corrected
from roost_platform.billing.months import month_of
from roost_platform.database.connection import Database
from roost_platform.domain.errors import RoostError
from roost_platform.domain.hours import HOUR, hour_of
from roost_platform.metering.hours import RolledUp, ahead, refresh
from roost_platform.metering.progress import note_shipped, runs_behind

log = logging.getLogger(__name__)

EARLIEST = timedelta(minutes=5)
"""How far ahead of this gateway's clock a call's time may be: clocks differ."""
_SLACK = timedelta(minutes=5)
"""Usage may be written down so much later than it happened: refusals are summed by the minute, clocks are set."""
_HOURS_AT_ONCE = 4
"""Rolled up in one transaction, which holds up other writers on SQLite."""
_RECENT = timedelta(days=100)
"""How far back every look goes for months that have no statement; the first look goes back to the beginning."""


class Closing:
    """One gateway's part in it: every one says how far it has brought its usage, the one that leads does the rest."""

    def __init__(
        self,
        *,
        database: Database,
        statements: Statements,
        source: str,
        drain: Callable[[], Awaitable[None]],
        leads: Callable[[], bool],
        clock: Callable[[], datetime],
        grace_s: float = 3600.0,
        wait_s: float = 86_400.0,
        interval_s: float = 60.0,
    ) -> None:
        """`source`: this run of the gateway. `drain` brings what lies on its disk to the database. `interval_s`: pause
        between two looks.
        """
        self.figures = ClosingFigures()
        self._database = database
        self._statements = statements
        self._source = source
        self._drain = drain
        self._leads = leads
        self._clock = clock
        self._grace = timedelta(seconds=grace_s)
        self._wait = timedelta(seconds=wait_s)
        self._interval_s = interval_s
        self._looked_back = False
        self._told: set[Due] = set()
        self._nothing: set[Due] = set()
        """Quiet months that were found without corrections; looked at again when their tenant's usage changes."""

    async def run(self) -> None:
        """Look once per interval until cancelled. Failures are logged and tried again."""
        while True:
            try:
                await self.step()
            except RoostError as error:
                log.warning("months_not_closed", extra={"reason": error.message})
            except (SQLAlchemyError, OSError, ValueError, ArithmeticError):  # one look must not be the last of all
                log.exception("months_not_closed")
            await asyncio.sleep(self._interval_s)

    async def step(self) -> None:
        """One look. Raises RoostError, SQLAlchemyError or OSError; what is done stays, the rest is done at the next one."""
        now = self._clock()
        await self._drain()
        await self._database.write(note_shipped, self._source, now - _SLACK)
        if not self._leads():
            self._looked_back = False
            self._nothing.clear()
            return
        await self._roll_up(now)
        await self._close(now)

    async def _roll_up(self, now: datetime) -> None:
        """All hours that are over."""
        while done := await self._database.write(refresh, _HOURS_AT_ONCE, before=hour_of(now)):
            changed = {each.tenant for each in done}
            self._nothing = {due for due in self._nothing if due.tenant not in changed}
            for each in done:
                if each.more_calls and each.hour + HOUR <= now - LATEST:
                    await self._came_late(each, now)
        self.figures.ahead_calls = await self._database.read(ahead, now + EARLIEST)
        if self.figures.ahead_calls:
            log.warning("usage_is_ahead", extra={"calls": self.figures.ahead_calls})

    async def _came_late(self, added: RolledUp, now: datetime) -> None:
        """What no statement to come will take up is told to people."""
        month = month_of(added.hour)
        to_come = [each for each in (month_of(now), *just_over(now)) if still_corrected(month, each)]
        for each in (month, *to_come):
            if not await self._database.read(is_final, added.tenant, each):
                return
        self.figures.late_calls += added.more_calls
        log.error(
            "usage_too_late",
            extra={"tenant": added.tenant, "hour": added.hour.isoformat(), "calls": added.more_calls},
        )

    async def _close(self, now: datetime) -> None:
        since = now - _RECENT if self._looked_back else None
        waiting = 0
        held_up: set[str] = set()
        for due in await self._database.read(find_due, before=now - self._grace, since=since):
            if not self._leads():
                return
            if due in self._nothing:
                continue
            if due.tenant in held_up:  # the older month comes first: it may be corrected on this one
                waiting += 1
                continue
            behind = await self._database.read(runs_behind, due.month.end)
            if behind and now < due.month.end + self._grace + self._wait:
                held_up.add(due.tenant)
                waiting += 1
                self._tell(due, behind)
                continue
            try:
                await self._finalize(due, notes=[_without(behind)] if behind else [])
            except RoostError as error:  # of one tenant; the others' months are closed nevertheless
                held_up.add(due.tenant)
                waiting += 1
                log.error("month_not_closed", extra={"statement": str(due.month), "reason": error.message})  # noqa: TRY400
        self.figures.waiting = waiting
        self._looked_back = True

    async def _finalize(self, due: Due, *, notes: list[str]) -> None:
        if due.quiet and not (await self._statements.current(due.tenant, due.month)).lines:
            self._nothing.add(due)
            return
        await self._statements.finalize(due.tenant, due.month, notes=notes)
        self.figures.finalized += 1

    def _tell(self, due: Due, behind: list[str]) -> None:
        """Once for each."""
        if due not in self._told:
            self._told.add(due)
            log.warning(
                "month_waits_for_usage",
                extra={"tenant": due.tenant, "month": str(due.month), "runs": ", ".join(behind[:10])},
            )


def _without(runs: list[str]) -> str:
    several = len(runs) != 1
    return (
        f"{len(runs)} {'runs' if several else 'run'} of a gateway had not told all usage when this became final; "
        "what comes of it is on a later statement."
    )
