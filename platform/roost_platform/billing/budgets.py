"""Budgets: what a tenant means to spend in a calendar month (UTC), and what follows from what it has spent. Pure.

Nothing here stops spending by itself. A hard cap refuses predictions; replicas that are kept ready, and stored files,
cost on. It is decided from time to time and from what is in the ledger by then, so more than the budget can be spent: what
is spent between two looks, until the usage is in the ledger, until it is rated, and until every gateway knows.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from roost_platform.billing.currencies import MINOR_UNITS
from roost_platform.billing.months import Month
from roost_platform.domain.errors import InvalidRequest

MOST_THRESHOLDS = 20
LARGEST_PERCENT = 1000
_LARGEST = Decimal(10) ** 12
_TOO_EARLY = timedelta(days=1)
"""A forecast from less than this says nothing."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What a tenant means to spend in each calendar month (UTC). Raises InvalidRequest that names the field at fault."""

    tenant: str
    amount: Decimal
    """More than 0, with no more digits than the currency's minor unit has."""
    currency: str
    """ISO 4217 code."""
    thresholds: tuple[int, ...]
    """Percents of the amount, ascending: when this much is spent, somebody is told."""
    hard_cap: bool
    """Refuse predictions once the amount is spent, until the month ends or the budget is raised."""
    changed_at: datetime

    def __post_init__(self) -> None:
        digits = MINOR_UNITS[self.currency]
        if not (self.amount.is_finite() and 0 < self.amount < _LARGEST) or round(self.amount, digits) != self.amount:
            raise InvalidRequest(
                f"a budget must be over 0 and under 10^12, with at most {digits} decimals in {self.currency}",
                field="amount",
            )
        if len(self.thresholds) > MOST_THRESHOLDS or list(self.thresholds) != sorted(set(self.thresholds)):
            raise InvalidRequest(
                f"thresholds must be at most {MOST_THRESHOLDS} different percents, ascending", field="thresholds"
            )
        if not all(1 <= percent <= LARGEST_PERCENT for percent in self.thresholds):
            raise InvalidRequest(f"a threshold must be 1 to {LARGEST_PERCENT} percent", field="thresholds")

    def text(self, amount: Decimal) -> str:
        """An amount with all digits of the currency: `12.50`."""
        return f"{amount:.{MINOR_UNITS[self.currency]}f}"

    def due(self, spent: Decimal, told: Collection[int]) -> tuple[int, ...]:
        """The thresholds that `spent` has reached and nobody was told of yet, in this month and for this amount."""
        return tuple(p for p in self.thresholds if p not in told and spent * 100 >= self.amount * p)

    def exhausted(self, spent: Decimal) -> bool:
        """Whether its hard cap holds when this much is spent."""
        return self.hard_cap and spent >= self.amount

    def ratio(self, spent: Decimal) -> Decimal:
        """The part of it that is spent, to four digits, rounded down: 1 is shown when it is, not before."""
        return Decimal(int(Fraction(spent) / Fraction(self.amount) * 10_000)).scaleb(-4)

    def forecast(self, spent: Decimal, month: Month, now: datetime) -> Decimal | None:
        """What the month will cost if it goes on as it went so far: a straight line through its start and now.

        Spending is seldom so even; it is a hint, not a promise. None in a month's first 24 hours, which say too little.
        """
        elapsed = min(now, month.end) - month.start
        if elapsed < _TOO_EARLY:
            return None
        digits, microsecond = MINOR_UNITS[self.currency], timedelta(microseconds=1)
        part = Fraction(elapsed // microsecond, (month.end - month.start) // microsecond)
        return Decimal(round(Fraction(spent) / part * 10**digits)).scaleb(-digits)


@dataclass(frozen=True, slots=True)
class Cap:
    """A budget that is used up: predictions are refused until the month ends."""

    until: datetime
    limit: Decimal
    used: Decimal
    """When it was found."""
    currency: str


@dataclass(frozen=True, slots=True)
class Alert:
    """A threshold was reached. One for each tenant, month, amount and threshold."""

    tenant: str
    month: str
    threshold: int
    """Percent of the amount."""
    amount: Decimal
    currency: str
    spent: Decimal
    """When it was found, which may be more than the threshold."""
    at: datetime
    tries: int = 0
    """How often it was sent in vain."""
    next_try_at: datetime | None = None
    """None when nobody has to be told any more, or nobody wanted to be."""
    delivered_at: datetime | None = None

    @property
    def id(self) -> str:
        """The same for the same alert, whoever sends it and how often."""
        return f"{self.tenant}/{self.month}/{self.amount}/{self.threshold}"


def pause_before(tries: int) -> timedelta:
    """How long to wait after an alert was sent in vain so many times: 1 s, doubling, at most an hour."""
    return timedelta(seconds=min(3600, 2 ** min(tries - 1, 12)))
