"""FOCUS 1.2: statements as the rows that cost management tools take from every provider.

    tenant                  BillingAccount      model                       Resource
    sku and resource class  SkuId               book, sku, class and price  SkuPriceId
    what was metered        Consumed...         what is priced              Pricing...
    at the book's prices    ListCost            at the tenant's             ContractedCost
    what the line costs     BilledCost, EffectiveCost

ListCost and ContractedCost are exact products of quantity and price, as FOCUS asks; BilledCost is the amount on the
statement, rounded once per line, so that the sum over an InvoiceId is the statement's total. Nothing is amortized, so
EffectiveCost is the same. Free allowances are rows of ChargeCategory Credit, late usage of an earlier month has ChargeClass
Correction. Drafts carry the id that they will have when they are final.
"""

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import orjson

from roost_platform.billing.currencies import MINOR_UNITS
from roost_platform.billing.exports import wording
from roost_platform.billing.exports.csv import defuse
from roost_platform.billing.exports.decimals import decimal_text
from roost_platform.billing.exports.focus_columns import NAMES
from roost_platform.billing.exports.issuer import Issuer
from roost_platform.billing.lines import Category, Line
from roost_platform.billing.skus import NOT_CHARGED
from roost_platform.billing.statements import Kind, Statement

PLACES = 12
"""Digits after the point of quantities and costs, at most; unit prices have all of theirs."""
_UNITS = {
    "microseconds": ("Seconds", 10**6),
    "bytes": ("B", 1),
    "byte-seconds": ("B-Seconds", 1),
}
"""Base units as FOCUS writes them, and how many of ours make one; others are plain counts."""
_PRICED = {
    ("microseconds", 10**6): "Seconds",
    ("bytes", 2**30): "GiB",
    ("byte-seconds", 2**30 * 3600): "GiB-Hours",
}
_NOTES = {Kind.CREDIT_NOTE: "Credit", Kind.DEBIT_NOTE: "Adjustment"}


def to_focus(*statements: Statement, issuer: Issuer) -> str:
    """One CSV file with a row per line of each statement; null is an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, NAMES, lineterminator="\r\n")
    writer.writeheader()
    for statement in statements:
        writer.writerows(focus_rows(statement, issuer=issuer))
    return text.getvalue()


def focus_rows(statement: Statement, *, issuer: Issuer) -> Iterator[dict[str, str]]:
    head = _head(statement, issuer)
    for line in statement.lines:
        yield head | _what(line, statement) | _charge(line, statement) | _costs(line, statement)


def _head(statement: Statement, issuer: Issuer) -> dict[str, str]:
    """What all rows of a statement share."""
    name, region = defuse(issuer.name), defuse(issuer.region)
    return dict.fromkeys(NAMES, "") | {
        "BillingAccountId": f"tenants/{statement.tenant}",
        "BillingAccountName": defuse(statement.tenant),
        "BillingCurrency": statement.currency,
        "BillingPeriodStart": _time(statement.month.start),
        "BillingPeriodEnd": _time(statement.month.end),
        "InvoiceId": defuse(statement.id),
        "InvoiceIssuerName": name,
        "PricingCurrency": statement.currency,
        "ProviderName": name,
        "PublisherName": name,
        "RegionId": region,
        "RegionName": region,
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "Model serving",
        "ServiceSubcategory": "AI Platforms",
        "x_StatementStatus": str(statement.status),
    }


def _what(line: Line, statement: Statement) -> dict[str, str]:
    """Which model and which price. A note has neither."""
    if statement.kind in _NOTES:
        return {}
    sku = f"{line.sku}/{line.variant}" if line.variant else line.sku
    details = {"x_PriceBook": line.price_book, "x_ResourceClass": line.variant}
    model = {
        "ResourceId": f"tenants/{statement.tenant}/models/{line.model}",
        "ResourceName": defuse(line.model),
        "ResourceType": "Model",
    }
    return {
        "SkuId": defuse(sku),
        "SkuMeter": "Requests" if line.sku == NOT_CHARGED else wording.item_name(line.sku),
        # By its list price, not by its tier: a tenant's own tiers are not the book's, and an id has one list price for all.
        "SkuPriceId": f"{line.price_book or 'no-book'}/{sku}/{line.list_price:f}",
        "SkuPriceDetails": orjson.dumps({key: value for key, value in details.items() if value}).decode(),
        "x_Tier": str(line.tier) if line.tier else "",
        **(model if line.model else {}),
    }


def _charge(line: Line, statement: Statement) -> dict[str, str]:
    """What kind of charge it is, and for when."""
    note = _NOTES.get(statement.kind, "")
    late = line.category is Category.CORRECTION
    return {
        "ChargeCategory": note or ("Credit" if line.category is Category.CREDIT else "Usage"),
        "ChargeClass": "Correction" if note or late else "",
        "ChargeDescription": _description(line, statement),
        "ChargeFrequency": "One-Time" if note else "Usage-Based",
        "ChargePeriodStart": _time(line.start),
        "ChargePeriodEnd": _time(line.end),
        "x_CorrectedMonth": line.month,
    }


def _description(line: Line, statement: Statement) -> str:
    if statement.kind in _NOTES:
        return f"{str(statement.kind).replace('_', ' ').capitalize()} for {statement.of}"
    words = {Category.CREDIT: "Free allowance: ", Category.CORRECTION: f"Correction of {line.month}: "}
    about = f"{wording.item(line)} by {line.model}" if line.model else wording.item(line)
    return f"{words.get(line.category, '')}{about}"


def _costs(line: Line, statement: Statement) -> dict[str, str]:
    amount = _money(line.amount, statement)
    costs = {"BilledCost": amount, "EffectiveCost": amount, "PricingCurrencyEffectiveCost": amount}
    if statement.kind in _NOTES or line.category is Category.CREDIT:
        # A credit is no product of its own: FOCUS has it cost the same by every measure, and without a quantity.
        return costs | {"ListCost": amount, "ContractedCost": amount}
    quantity = _decimal(Fraction(line.quantity, line.per))
    if line.category is Category.CORRECTION:
        # The difference of two ratings, usage and credits together: FOCUS does not ask it to be a product.
        costs |= {"ListCost": _money(line.list_amount, statement), "ContractedCost": amount}
    else:
        costs |= {
            "ListCost": _product(quantity, line.list_price),
            "ContractedCost": _product(quantity, line.unit_price),
        }
    consumed_unit, size = _UNITS.get(line.unit, (line.unit.title(), 1))
    return costs | {
        "ConsumedQuantity": _decimal(Fraction(line.quantity, size)),
        "ConsumedUnit": consumed_unit,
        "ContractedUnitPrice": _price(line.unit_price),
        "ListUnitPrice": _price(line.list_price),
        "PricingCategory": "Standard",
        "PricingCurrencyContractedUnitPrice": _price(line.unit_price),
        "PricingCurrencyListUnitPrice": _price(line.list_price),
        "PricingQuantity": quantity,
        "PricingUnit": _pricing_unit(line),
    }


def _pricing_unit(line: Line) -> str:
    count = f"{line.per} " if line.per != 1 else ""
    return _PRICED.get((line.unit, line.per), f"{count}{line.unit.title()}")


def _product(quantity: str, price: Decimal) -> str:
    """Of the quantity as it is written, so that a reader who multiplies finds the same."""
    return _decimal(Fraction(quantity) * Fraction(price))


def _money(amount: Decimal, statement: Statement) -> str:
    return decimal_text(Fraction(amount), most=PLACES, least=max(1, MINOR_UNITS[statement.currency]))


def _decimal(number: Fraction) -> str:
    return decimal_text(number, most=PLACES, least=1)


def _price(price: Decimal) -> str:
    text = f"{price:f}"
    return text if "." in text else f"{text}.0"


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
