"""Budgets at work: one gateway of several looks at what tenants have spent, tells, and has capped ones refused by all.

How far over its budget a capped tenant gets is what it spends from the moment the budget is used up until every gateway
refuses. That is at most: until its usage is in the ledger (ROOST_JOURNAL_SHIP_INTERVAL_S, 1 s; what replicas hold, 10 s), the
pause between two looks (`interval_s`, 10 s), twice the time that it takes to rate all tenants with a budget (a look that has
just missed it is finished first), and until all gateways have heard (1 s). Calls in flight then are answered. While no
gateway leads, or the database is away, nothing is decided, and what was decided stays.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import Connection

from roost_gateway.access.directory import Directory
from roost_gateway.money.budget_figures import BudgetFigures
from roost_platform.billing.budget_store import Kept, Settled, alerts_of, kept, put_budget, remove_budget, settle
from roost_platform.billing.budgets import Alert, Budget
from roost_platform.billing.months import Month, month_of
from roost_platform.database.connection import Database
from roost_platform.domain.errors import Conflict, NotFound, RoostError
from roost_platform.registry.finishing import KeyedLocks

log = logging.getLogger(__name__)

Spent = Callable[[str, Month], Awaitable[Decimal]]
"""What a tenant's month costs so far, by the same rating as its statement. Raises RoostError."""

_LATE = timedelta(minutes=15)
"""For so long after a month's end it is looked at, too: its last usage may have come to the ledger in the next one."""


@dataclass(frozen=True, slots=True)
class Report:
    """A budget and how it stands in the running month."""

    kept: Kept
    month: Month
    spent: Decimal
    forecast: Decimal | None
    alerts: tuple[Alert, ...]
    now: datetime


class Budgets:
    """What the operator does with budgets, and the loop that watches them."""

    def __init__(
        self,
        *,
        database: Database,
        directory: Directory,
        spent: Spent,
        currency: str,
        leads: Callable[[], bool],
        clock: Callable[[], datetime],
        interval_s: float = 10.0,
        tells: bool = False,
    ) -> None:
        """`currency`: of the price books, and so of every budget. `leads`: whether this gateway is to look. `interval_s`:
        pause between two looks. `tells`: somebody is to be told of alerts (`roost_gateway.money.alerts`).
        """
        self.currency = currency
        self.figures = BudgetFigures()
        self.alerted = asyncio.Event()
        """Set when this gateway has raised an alert."""
        self._database = database
        self._directory = directory
        # What is decided first is in the directory first. Not the directory's own lock: a tenant that is being deleted
        # holds that until its calls have ended. What a reload by another's change gets wrong, its own change sets right.
        self._deciding = KeyedLocks()
        self._spent = spent
        self._leads = leads
        self._clock = clock
        self._interval_s = interval_s
        self._tells = tells

    async def run(self) -> None:
        """Look again and again while this gateway leads, until cancelled. Outages are logged and outlasted."""
        while True:
            if self._leads():
                try:
                    await self.look()
                except RoostError as error:
                    log.warning("budgets_not_looked_at", extra={"reason": error.message})
                except Exception:  # a mistake in one look must not be the last of all looks
                    log.exception("budgets_not_looked_at")
            else:
                self.figures.forget()
            await asyncio.sleep(self._interval_s)

    async def look(self) -> None:
        """Look once at every budget. One that cannot be looked at holds up no other. Raises RoostError."""
        now = self._clock()
        month = month_of(now)
        if now - month.start < _LATE:
            before = month_of(month.start - timedelta(microseconds=1))
            for found in await self._database.read(kept, before):
                await self._look_at(found, before, now)
        budgets = await self._database.read(kept, month)
        for found in budgets:
            spent = await self._look_at(found, month, now)
            if spent is not None:
                self.figures.used(found.budget.tenant, found.budget.ratio(spent))
        self.figures.keep({found.budget.tenant for found in budgets})

    async def _look_at(self, found: Kept, month: Month, now: datetime) -> Decimal | None:
        """What is spent; None when that cannot be known."""
        budget = found.budget
        if budget.currency != self.currency:
            log.warning("budget_in_other_currency", extra={"tenant": budget.tenant, "currency": budget.currency})
            return None
        try:
            spent = await self._spent(budget.tenant, month)
            if found.changes(spent, month, now):
                async with self._deciding.hold(budget.tenant):
                    settled = await self._database.write(
                        settle, budget.tenant, month=month, spent=spent, now=now, tell=self._tells
                    )
                    self._take(budget, settled)
        except RoostError as error:
            log.warning("budget_not_looked_at", extra={"tenant": budget.tenant, "reason": error.message})
            return None
        return spent

    async def report(self, tenant: str) -> Report:
        """How a tenant's budget stands. Raises NotFound when it has none, Conflict when prices have another currency now."""
        now = self._clock()
        month = month_of(now)
        found, alerts = await self._database.read(_kept_with_alerts, tenant, month)
        if found.budget.currency != self.currency:
            message = f"the budget is in {found.budget.currency}, prices are in {self.currency}: set it anew"
            raise Conflict(message, code="budget_currency")
        spent = await self._spent(tenant, month)
        return Report(found, month, spent, found.budget.forecast(spent, month, now), tuple(alerts), now)

    async def put(self, budget: Budget) -> None:
        """Set a tenant's budget, and act on what is spent already. Raises NotFound when there is no such tenant."""
        now = self._clock()
        month = month_of(now)
        spent = await self._spent(budget.tenant, month)
        async with self._deciding.hold(budget.tenant):
            settled = await self._database.write(
                _put_and_settle, budget, month=month, spent=spent, now=now, tell=self._tells
            )
            self._take(budget, settled)
        log.info(
            "budget_set", extra={"tenant": budget.tenant, "amount": str(budget.amount), "hard_cap": budget.hard_cap}
        )

    async def remove(self, tenant: str) -> None:
        """No harm when there is none."""
        async with self._deciding.hold(tenant):
            await self._database.write(remove_budget, tenant)
            self._directory.put_cap(tenant, None)
        self.figures.drop(tenant)
        log.info("budget_removed", extra={"tenant": tenant})

    def _take(self, budget: Budget, settled: Settled | None) -> None:
        if settled is None:  # removed meanwhile
            return
        tenant = budget.tenant
        before = self._directory.caps.get(tenant)
        self._directory.put_cap(tenant, settled.cap)
        if settled.cap != before:
            log.info("budget_capped" if settled.cap else "budget_uncapped", extra={"tenant": tenant})
        for alert in settled.raised:
            self.figures.alerted(tenant)
            log.warning(
                "budget_alert",
                extra={
                    "tenant": tenant,
                    "month": alert.month,
                    "threshold": alert.threshold,
                    "amount": str(alert.amount),
                    "spent": str(alert.spent),
                    "currency": alert.currency,
                },
            )
        if settled.raised:
            self.alerted.set()


def _put_and_settle(
    connection: Connection, budget: Budget, *, month: Month, spent: Decimal, now: datetime, tell: bool
) -> Settled | None:
    put_budget(connection, budget)
    return settle(connection, budget.tenant, month=month, spent=spent, now=now, tell=tell)


def _kept_with_alerts(connection: Connection, tenant: str, month: Month) -> tuple[Kept, list[Alert]]:
    found = kept(connection, month, tenant=tenant)
    if not found:
        raise NotFound("this tenant has no budget", code="no_budget")
    return found[0], alerts_of(connection, tenant, month)
