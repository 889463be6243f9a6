"""The columns of our FOCUS files, and what FOCUS 1.2 asks of each: the part of it that we claim, as data.

`faults` judges a file by it where FOCUS' own validator cannot run (it needs a newer Python than Roost does).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

import orjson

from roost_platform.billing.currencies import MINOR_UNITS

CRITERIA = (
    "ACCOUNT_NAMING_SUPPORTED",
    "BILLING_BASED_ON_PROVISIONED_RESOURCES_SUPPORTED",
    "NEGOTIATED_PRICING_SUPPORTED",
    "PUBLIC_PRICE_LIST_SUPPORTED",
    "REGION_SUPPORTED",
    "RESOURCE_TYPE_ASSIGNMENT_SUPPORTED",
    "UNIT_PRICING_SUPPORTED",
    "USAGE_MEASUREMENT_SUPPORTED",
)
"""What Roost has of what FOCUS makes optional. Not claimed: sub accounts, tags, commitments, capacity reservations,
availability zones, several pricing categories, several currencies."""


class Kind(StrEnum):
    TEXT = "text"
    DECIMAL = "decimal"
    PRICE = "price"
    """A decimal that is not negative."""
    TIME = "time"
    JSON = "json"
    CURRENCY = "currency"


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    kind: Kind = Kind.TEXT
    nullable: bool = False
    allowed: frozenset[str] = frozenset()
    """Empty where any text is."""


def _one_of(name: str, *allowed: str, nullable: bool = False) -> Column:
    return Column(name, nullable=nullable, allowed=frozenset(allowed))


COLUMNS = (
    Column("BilledCost", Kind.DECIMAL),
    Column("BillingAccountId"),
    Column("BillingAccountName"),
    Column("BillingCurrency", Kind.CURRENCY),
    Column("BillingPeriodEnd", Kind.TIME),
    Column("BillingPeriodStart", Kind.TIME),
    _one_of("ChargeCategory", "Usage", "Credit", "Adjustment"),
    _one_of("ChargeClass", "Correction", nullable=True),
    Column("ChargeDescription"),
    _one_of("ChargeFrequency", "Usage-Based", "One-Time"),
    Column("ChargePeriodEnd", Kind.TIME),
    Column("ChargePeriodStart", Kind.TIME),
    # Always empty: the validator looks at it when it judges ConsumedQuantity, whether one claims commitments or not.
    _one_of("CommitmentDiscountStatus", nullable=True),
    Column("ConsumedQuantity", Kind.DECIMAL, nullable=True),
    Column("ConsumedUnit", nullable=True),
    Column("ContractedCost", Kind.DECIMAL),
    Column("ContractedUnitPrice", Kind.PRICE, nullable=True),
    Column("EffectiveCost", Kind.DECIMAL),
    Column("InvoiceId"),
    Column("InvoiceIssuerName"),
    Column("ListCost", Kind.DECIMAL),
    Column("ListUnitPrice", Kind.PRICE, nullable=True),
    _one_of("PricingCategory", "Standard", nullable=True),
    Column("PricingCurrency", Kind.CURRENCY),
    Column("PricingCurrencyContractedUnitPrice", Kind.PRICE, nullable=True),
    Column("PricingCurrencyEffectiveCost", Kind.DECIMAL),
    Column("PricingCurrencyListUnitPrice", Kind.PRICE, nullable=True),
    Column("PricingQuantity", Kind.DECIMAL, nullable=True),
    Column("PricingUnit", nullable=True),
    Column("ProviderName"),
    Column("PublisherName"),
    Column("RegionId", nullable=True),
    Column("RegionName", nullable=True),
    Column("ResourceId", nullable=True),
    Column("ResourceName", nullable=True),
    _one_of("ResourceType", "Model", nullable=True),
    _one_of("ServiceCategory", "AI and Machine Learning"),
    Column("ServiceName"),
    _one_of("ServiceSubcategory", "AI Platforms"),
    Column("SkuId", nullable=True),
    Column("SkuMeter", nullable=True),
    Column("SkuPriceDetails", Kind.JSON, nullable=True),
    Column("SkuPriceId", nullable=True),
    # Our own, which FOCUS wants marked so and last.
    Column("x_CorrectedMonth", nullable=True),
    _one_of("x_StatementStatus", "open", "draft", "final"),
    Column("x_Tier", nullable=True),
)
NAMES = tuple(column.name for column in COLUMNS)

_DECIMAL = re.compile(r"-?[0-9]+\.[0-9]+")
_TIME = re.compile(r"[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?Z")
_TOGETHER = (
    ("ConsumedQuantity", "ConsumedUnit"),
    ("PricingQuantity", "PricingUnit"),
    ("RegionId", "RegionName"),
    ("ResourceId", "ResourceType"),
    ("SkuId", "SkuPriceId"),
    ("SkuId", "SkuMeter"),
)
"""Pairs of columns of which a row has both or none."""
_OF_USAGE = (
    "ConsumedQuantity", "ContractedUnitPrice", "ListUnitPrice", "PricingCategory", "PricingQuantity", "SkuId", "SkuPriceId",
)  # fmt: skip
"""What a charge for usage cannot leave out."""


def faults(names: Iterable[str], rows: Iterable[Mapping[str, str]]) -> list[str]:
    """What is wrong with a file's columns and the form of its values, a sentence each; rows count from 1."""
    names = tuple(names)
    found = [f"column {name} is missing" for name in NAMES if name not in names]
    found += [f"column {name} is not one of ours" for name in names if name not in NAMES]
    if found:
        return found
    return [f"row {number}: {fault}" for number, row in enumerate(rows, start=1) for fault in _of_row(row)]


def _of_row(row: Mapping[str, str]) -> Iterator[str]:
    for column in COLUMNS:
        if fault := _of_value(column, row[column.name]):
            yield f"{column.name} {fault}, but is {row[column.name]!r}"
    for one, other in _TOGETHER:
        if bool(row[one]) != bool(row[other]):
            yield f"{one} and {other} must both be there or both be empty"
    if row["ChargeCategory"] != "Usage" and row["ConsumedQuantity"]:
        yield "ConsumedQuantity must be empty for what is no usage"
    if row["ChargeCategory"] == "Usage" and not row["ChargeClass"]:
        yield from (f"{name} must be there for usage" for name in _OF_USAGE if not row[name])
    if len({row["ProviderName"], row["PublisherName"], row["InvoiceIssuerName"]}) != 1:
        yield "provider, publisher and issuer must be one"
    if row["ResourceName"] and row["ResourceName"] == row["ResourceId"]:
        yield "ResourceName must not repeat ResourceId"


def _of_value(column: Column, value: str) -> str:
    """What the value must be and is not; empty for a good one."""
    if not value:
        return "" if column.nullable else "must be there"
    if column.allowed and value not in column.allowed:
        return f"must be one of {', '.join(sorted(column.allowed))}"
    if not value.isascii() or not value.strip():
        return "must be ASCII text"
    return _of_kind(column.kind, value)


def _of_kind(kind: Kind, value: str) -> str:
    if kind is Kind.TIME and not _TIME.fullmatch(value):
        return "must be a time like 2026-11-01T00:00:00Z"
    if kind is Kind.CURRENCY and value not in MINOR_UNITS:
        return "must be an ISO 4217 code"
    if kind in (Kind.DECIMAL, Kind.PRICE) and not _DECIMAL.fullmatch(value):
        return "must be a decimal with a point"
    if kind is Kind.PRICE and Decimal(value) < 0:
        return "must not be negative"
    return "must be an object of plain values" if kind is Kind.JSON and not _is_flat_object(value) else ""


def _is_flat_object(value: str) -> bool:
    try:
        content = orjson.loads(value)
    except orjson.JSONDecodeError:
        return False
    return isinstance(content, dict) and not any(isinstance(part, dict | list) for part in content.values())
