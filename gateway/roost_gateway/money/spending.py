"""What a tenant's month costs so far: the sum of the lines that its statement would have now."""

import asyncio
from decimal import Decimal

from roost_gateway.money.metered import metered
from roost_platform.billing.lines import MeteredUsage
from roost_platform.billing.months import Month
from roost_platform.billing.prices import PriceBooks
from roost_platform.billing.rating import rate, total_of
from roost_platform.database.connection import Database


class Spending:
    """Asked by budgets. Only what is in the ledger counts."""

    def __init__(self, *, database: Database, books: PriceBooks) -> None:
        self._database = database
        self._books = books

    async def __call__(self, tenant: str, month: Month) -> Decimal:
        """Raises Unavailable."""
        periods = self._books.periods(month.start, month.end, tenant=tenant)
        edges = [*(period.start for period in periods), month.end]
        usage = await self._database.read(metered, tenant=tenant, edges=edges)
        # Rating is work for a thread: of a large tenant it would hold up calls.
        return await asyncio.to_thread(self._total, usage, tenant, month)

    def _total(self, usage: list[MeteredUsage], tenant: str, month: Month) -> Decimal:
        return total_of(rate(usage, tenant=tenant, month=month, books=self._books), self._books.currency)
