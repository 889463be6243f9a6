"""A month over all tenants, as the operator asks for it: what it brings in, from whom, with which models, and what idle
replicas cost. The amounts are those of the statements.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from sqlalchemy import Connection, func, select

from roost_platform.billing.currencies import rounded
from roost_platform.billing.lines import Category, Line
from roost_platform.billing.months import Month
from roost_platform.billing.prices import Period, PriceBooks
from roost_platform.billing.skus import MEASURES, Sku
from roost_platform.billing.statements import Statement
from roost_platform.database.connection import Database
from roost_platform.database.money_tables import statements, unknown_calls
from roost_platform.metering.progress import first_use, users
from roost_platform.metering.resource_report import ResourceFigures, resource_report

StatementOf = Callable[[str, Month], Awaitable[Statement]]
"""A tenant's statement of a month as it is now."""

_IDLE_SKUS = (Sku.IDLE_SECONDS, Sku.RESERVED_SECONDS)
_COMPARABLE = (Sku.RESERVED_SECONDS, Sku.IDLE_SECONDS, Sku.ACTIVE_SECONDS, Sku.COMPUTE_SECONDS)


@dataclass(frozen=True, slots=True)
class Idle:
    """Replicas that were ready and did nothing, and what that was worth."""

    idle_us: int
    """More replicas than `min-scale` asks for."""
    reserved_us: int
    """Those it does ask for."""
    unpriced_us: int
    """Of both: for which no price is known at all. They are in no amount."""
    worth: Decimal
    """What these seconds cost by the price book. Those that are free in it: what a second of that class costs in it when
    it is reserved, idle, active, or computing, the first of these that is not free.
    """
    billed: Decimal
    """What the tenant pays for them, after discounts and allowances."""

    @property
    def not_billed(self) -> Decimal:
        """What the operator bears of it."""
        return self.worth - self.billed

    def __add__(self, other: "Idle") -> "Idle":
        return Idle(
            self.idle_us + other.idle_us,
            self.reserved_us + other.reserved_us,
            self.unpriced_us + other.unpriced_us,
            self.worth + other.worth,
            self.billed + other.billed,
        )


@dataclass(frozen=True, slots=True)
class TenantMonth:
    statement: Statement
    unknown_calls: int
    cold_starts: int
    """Replicas that were woken by a request."""
    idle: Idle

    @property
    def calls(self) -> int:
        return sum(self.statement.calls.values())

    def models(self) -> list[tuple[str, Decimal]]:
        """Amounts by model, the largest first."""
        amounts: dict[str, Decimal] = {}
        for line in self.statement.lines:
            amounts[line.model] = amounts.get(line.model, Decimal(0)) + line.amount
        return sorted(amounts.items(), key=lambda model: (-model[1], model[0]))


@dataclass(frozen=True, slots=True)
class Overview:
    month: Month
    currency: str
    tenants: tuple[TenantMonth, ...]
    """Who used anything in that month, or has a statement of it; the largest amount first."""
    amount: Decimal
    """Of all of them."""
    idle: Idle

    def models(self) -> list[tuple[str, str, Decimal]]:
        """Tenant, model and amount, the largest first."""
        found = [(each.statement.tenant, *model) for each in self.tenants for model in each.models()]
        return sorted(found, key=lambda model: (-model[2], *model[:2]))


async def make_overview(month: Month, *, database: Database, books: PriceBooks, statement_of: StatementOf) -> Overview:
    """Statements are made one after the other, so this takes as long as all of them. Raises Unavailable."""
    unknown = await database.read(_unknown_calls, month)
    tenants = []
    for tenant in await database.read(_tenants, month):
        statement = await statement_of(tenant, month)
        periods = books.periods(month.start, month.end, tenant=tenant)
        held = await database.read(_held, tenant, periods)
        idle = idle_of(held, statement.lines, currency=statement.currency)
        cold_starts = sum(figures.cold_starts for _, _, figures in held)
        tenants.append(TenantMonth(statement, unknown[tenant], cold_starts, idle))
    tenants.sort(key=lambda each: (-each.statement.total, each.statement.tenant))
    nothing = rounded(Fraction(0), books.currency)
    return Overview(
        month=month,
        currency=books.currency,
        tenants=tuple(tenants),
        amount=sum((each.statement.total for each in tenants), nothing),
        idle=sum((each.idle for each in tenants), Idle(0, 0, 0, nothing, nothing)),
    )


Held = tuple[Period, str, ResourceFigures]
"""What a tenant held of one resource class while its prices stayed the same."""


def idle_of(held: Iterable[Held], lines: Iterable[Line], *, currency: str) -> Idle:
    """What idle and reserved seconds cost: `lines` are those of the tenant's statement of the same time."""
    lines = [line for line in lines if line.sku in _IDLE_SKUS]
    idle_us = reserved_us = unpriced_us = 0
    would_cost = Fraction(0)
    for period, variant, figures in held:
        idle_us += figures.idle_us
        reserved_us += figures.reserved_us
        for sku, quantity in zip(_IDLE_SKUS, (figures.idle_us, figures.reserved_us), strict=True):
            if quantity and _list_price(period, sku, variant) is None:
                cost = _comparable_cost(period, variant, quantity)
                unpriced_us += quantity if cost is None else 0
                would_cost += cost or 0
    charged = sum((line.list_amount for line in lines if line.category is Category.USAGE), Decimal(0))
    billed = sum((line.amount for line in lines), rounded(Fraction(0), currency))
    return Idle(idle_us, reserved_us, unpriced_us, rounded(would_cost + Fraction(charged), currency), billed)


def _comparable_cost(period: Period, variant: str, quantity: int) -> Fraction | None:
    """At the first tier that is not free; None when no such second costs anything."""
    for sku in _COMPARABLE:
        price = _list_price(period, sku, variant)
        if price is not None:
            return Fraction(price) * quantity / MEASURES[sku].per
    return None


def _list_price(period: Period, sku: Sku, variant: str) -> Decimal | None:
    """Of the first tier that is not free; None when it is free altogether."""
    found = period.price(sku, variant if MEASURES[sku].by_class else "")
    return None if found is None else next((tier.price for tier in found[0].tiers if tier.price), None)


def _held(connection: Connection, tenant: str, periods: Iterable[Period]) -> list[Held]:
    return [
        (period, str(row.keys["class"]), row.figures)
        for period in periods
        for row in resource_report(
            connection, tenant=tenant, start=period.start, end=period.end, group_by=("class",)
        ).rows
    ]


def _tenants(connection: Connection, month: Month) -> list[str]:
    found = set(connection.scalars(select(statements.c.tenant).where(statements.c.month == str(month))))
    for tenant in users(connection):
        used = first_use(connection, tenant, month.start)
        if used is not None and used < month.end:
            found.add(tenant)
    return sorted(found)


def _unknown_calls(connection: Connection, month: Month) -> Counter[str]:
    row = unknown_calls.c
    query = select(row.tenant, func.count()).where(row.time >= month.start, row.time < month.end).group_by(row.tenant)
    return Counter({tenant: count for tenant, count in connection.execute(query)})  # noqa: C416 (rows are no pairs)
