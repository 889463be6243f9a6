"""What a month would have cost with other prices: the same usage, rated twice. Nothing is kept."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from sqlalchemy import Connection, select

from roost_gateway.money.metered import metered
from roost_platform.billing.currencies import rounded
from roost_platform.billing.lines import MeteredUsage
from roost_platform.billing.months import Month
from roost_platform.billing.price_diff import percent
from roost_platform.billing.prices import PriceBooks
from roost_platform.billing.rating import rate, total_of
from roost_platform.database.connection import Database
from roost_platform.database.money_tables import call_hours, dirty_hours, resource_hours
from roost_platform.domain.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Compared:
    """A tenant's month with the prices in force, and with the other ones."""

    tenant: str
    billed: Decimal
    other: Decimal

    @property
    def difference(self) -> Decimal:
        return self.other - self.billed

    @property
    def percent(self) -> str | None:
        """Of what is billed, with two places; None of nothing."""
        return percent(self.difference, self.billed)


async def what_if(
    database: Database, *, books: PriceBooks, other: PriceBooks, month: Month, tenants: Iterable[str]
) -> tuple[Compared, ...]:
    """Each tenant's month, rated with both. Raises InvalidRequest where the currencies differ."""
    if books.currency != other.currency:
        message = f"the prices in force are in {books.currency}, those in the body in {other.currency}"
        raise InvalidRequest(message, code="invalid_price_book", field="currency")
    found = []
    for tenant in tenants:
        edges = {month.start, month.end}
        for each in (books, other):
            edges |= {period.start for period in each.periods(month.start, month.end, tenant=tenant)}
        usage = await database.read(metered, tenant=tenant, edges=sorted(edges))
        # Rating is work for a thread: of a large tenant it would hold up every other request.
        billed, wanted = await asyncio.to_thread(_totals, usage, tenant, month, (books, other))
        found.append(Compared(tenant, billed, wanted))
    return tuple(found)


def _totals(usage: list[MeteredUsage], tenant: str, month: Month, lists: Iterable[PriceBooks]) -> list[Decimal]:
    return [total_of(rate(usage, tenant=tenant, month=month, books=each), each.currency) for each in lists]


def sum_of(compared: Iterable[Compared], currency: str) -> Compared:
    """All of them together, without a name."""
    pairs = [(Fraction(each.billed), Fraction(each.other)) for each in compared]
    billed, other = (sum((pair[i] for pair in pairs), Fraction(0)) for i in (0, 1))
    return Compared("", rounded(billed, currency), rounded(other, currency))


def tenants_with_usage(connection: Connection, month: Month) -> list[str]:
    """Whoever used anything in the month, deleted tenants as well."""
    found: set[str] = set()
    for table in (call_hours, resource_hours, dirty_hours):  # an hour of usage is rolled up, or has a mark
        hours = select(table.c.tenant).where(table.c.hour >= month.start, table.c.hour < month.end)
        found |= set(connection.scalars(hours.distinct()))
    return sorted(found)
