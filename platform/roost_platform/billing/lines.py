"""A line of a statement: one sku of one model at one price, and what it costs."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from roost_platform.domain.meters import Meter


@dataclass(frozen=True, slots=True)
class MeteredUsage:
    """How much of one meter a model used within [start, end). What rating takes; a tenant's, for a month."""

    model: str
    meter: Meter
    variant: str
    """The outcome of calls, the resource class of replicas, else empty."""
    start: datetime
    end: datetime
    quantity: int
    """In the meter's base unit; negative where corrections outweigh what they correct."""


class Category(StrEnum):
    """As FOCUS' ChargeCategory and ChargeClass have them."""

    USAGE = "usage"
    CREDIT = "credit"
    """A free allowance: negative."""
    CORRECTION = "correction"
    """Usage of an earlier month that became known after its statement was final; of either sign."""


@dataclass(frozen=True, slots=True)
class Line:
    category: Category
    model: str
    """Empty for what concerns the tenant as a whole."""
    sku: str
    variant: str
    """The resource class where prices differ by it, else empty."""
    price_book: str
    """Version of the book that the price is from; empty when none was in force."""
    tier: int
    """From 1 upwards where a price has tiers, else 0."""
    start: datetime
    end: datetime
    """[start, end): the part of the month in which that book was in force."""
    quantity: int
    """In `unit`s."""
    unit: str
    list_price: Decimal
    """For `per` units, as the book has it."""
    unit_price: Decimal
    """For `per` units, as this tenant pays it."""
    per: int
    list_amount: Decimal
    amount: Decimal
    """quantity x unit_price / per, rounded once to the currency's minor unit, halves to even."""
    month: str = ""
    """Of corrections: the month that the usage belongs to, as 2026-11."""
