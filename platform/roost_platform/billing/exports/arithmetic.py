"""Whether the figures of a statement, or of a FOCUS file, follow from each other. Exact; says what does not, in sentences.

FOCUS' own validator judges form: it passes a file whose costs are not price times quantity, or do not add up to the
bill. Amounts are rounded once per line, halves to the even minor unit, and that is the only rounding there may be.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from fractions import Fraction

from roost_platform.billing.currencies import MINOR_UNITS, rounded
from roost_platform.billing.exports.focus import PLACES
from roost_platform.billing.lines import Category, Line
from roost_platform.billing.statements import Kind, Statement

_WRITTEN = Fraction(1, 2 * 10**PLACES)
"""What the writing of a FOCUS quantity or cost may take off it, or add."""


def statement_faults(statement: Statement) -> list[str]:
    """Empty for a statement that is right."""
    found = [
        f"line {number}: {fault}"
        for number, line in enumerate(statement.lines, start=1)
        for fault in _of_line(line, statement)
    ]
    total = sum((Fraction(line.amount) for line in statement.lines), Fraction(0))
    if total != statement.total:
        found.append(f"the lines add up to {_shown(total)}, the total is {statement.total:f}")
    if statement.kind is Kind.CREDIT_NOTE and statement.total > 0:
        found.append(f"a credit note takes {statement.total:f}")
    if statement.kind is Kind.DEBIT_NOTE and statement.total < 0:
        found.append(f"a debit note gives {-statement.total:f}")
    return found + _credit_faults(
        (
            (line.model, line.sku, line.variant, line.price_book, line.start, line.tier, line.unit_price),
            line.category is Category.CREDIT,
            Fraction(line.amount),
        )
        for line in statement.lines
        if statement.kind is Kind.STATEMENT and line.category is not Category.CORRECTION
    )


def _of_line(line: Line, statement: Statement) -> Iterator[str]:
    for name, amount in (("amount", line.amount), ("list amount", line.list_amount)):
        if rounded(Fraction(amount), statement.currency) != amount:
            yield f"the {name} {amount:f} is no whole number of minor units of {statement.currency}"
    if statement.kind is not Kind.STATEMENT:
        return
    if line.category is Category.CORRECTION:
        # The difference of two ratings, each rounded on its own: no product.
        if not line.month or line.month >= str(statement.month):
            yield f"a correction of {line.month or 'no month'} in {statement.month}"
        if line.end > statement.month.end:
            yield "its time is later than the month"
        return
    for name, amount, price in (
        ("amount", line.amount, line.unit_price),
        ("list amount", line.list_amount, line.list_price),
    ):
        exact = Fraction(line.quantity, line.per) * Fraction(price)
        if amount != rounded(exact, statement.currency):
            yield f"the {name} is {amount:f}, {line.quantity} at {price:f} per {line.per} are {_shown(exact)}"
    if not statement.month.start <= line.start < line.end <= statement.month.end:
        yield "its time is not within the month"


def focus_faults(rows: Iterable[Mapping[str, str]], *, totals: Mapping[str, Decimal]) -> list[str]:
    """Of a FOCUS file's rows as text; `totals`: what each invoice comes to, by its id. Empty for a file that is right.

    Raises KeyError and ValueError for rows that are not of the form that `focus_columns` checks.
    """
    rows = list(rows)
    found = [f"row {number}: {fault}" for number, row in enumerate(rows, start=1) for fault in _of_row(row)]
    sums: dict[str, Fraction] = defaultdict(Fraction)
    for row in rows:
        sums[row["InvoiceId"]] += Fraction(row["BilledCost"])
    for invoice in sorted(sums.keys() | totals.keys()):
        if invoice not in totals:
            found.append(f"invoice {invoice} is not known")
        elif sums.get(invoice, Fraction(0)) != totals[invoice]:
            found.append(f"invoice {invoice}: the rows add up to {_shown(sums[invoice])}, not {totals[invoice]:f}")
    for invoice, currencies in _currencies(rows).items():
        if len(currencies) > 1:
            found.append(f"invoice {invoice} is in {' and '.join(sorted(currencies))}")
    return found + _credit_faults(
        (
            (row["InvoiceId"], row["ResourceId"], row["SkuPriceId"], row["ChargePeriodStart"]),
            row["ChargeCategory"] == "Credit",
            Fraction(row["BilledCost"]),
        )
        for row in rows
        if not row["ChargeClass"]
    )


def _of_row(row: Mapping[str, str]) -> Iterator[str]:
    billed = Fraction(row["BilledCost"])
    digits = MINOR_UNITS[row["BillingCurrency"]]
    if (billed * 10**digits).denominator != 1:
        yield f"BilledCost {row['BilledCost']} is no whole number of minor units"
    if Fraction(row["EffectiveCost"]) != billed:
        yield f"EffectiveCost is {row['EffectiveCost']}, BilledCost {row['BilledCost']}"
    if row["ChargeCategory"] == "Usage" and not row["ChargeClass"]:
        yield from _products(row, billed, digits)
    elif row["ChargeCategory"] == "Usage":
        if Fraction(row["ContractedCost"]) != billed:
            yield f"ContractedCost is {row['ContractedCost']}, BilledCost {row['BilledCost']}: a correction has one cost"
    else:
        for name in ("ListCost", "ContractedCost"):
            if Fraction(row[name]) != billed:
                yield f"{name} is {row[name]}, BilledCost {row['BilledCost']}: they are one where nothing is multiplied"
        note = {"Credit": billed > 0, "Adjustment": billed < 0}[row["ChargeCategory"]]
        if row["ChargeClass"] and note:
            yield f"{row['ChargeCategory']} of {row['BilledCost']}"
    yield from _periods(row)


def _products(row: Mapping[str, str], billed: Fraction, digits: int) -> Iterator[str]:
    quantity = Fraction(row["PricingQuantity"])
    for price, cost in (("ListUnitPrice", "ListCost"), ("ContractedUnitPrice", "ContractedCost")):
        exact = Fraction(row[price]) * quantity
        if abs(exact - Fraction(row[cost])) > _WRITTEN:
            yield f"{cost} is {row[cost]}, {row[price]} times {row['PricingQuantity']} is {_shown(exact)}"
    # Half a minor unit for the one rounding, and what the quantity lost when it was written.
    room = Fraction(1, 2 * 10**digits) + Fraction(row["ContractedUnitPrice"]) * _WRITTEN + _WRITTEN
    if abs(billed - Fraction(row["ContractedCost"])) > room:
        yield f"BilledCost is {row['BilledCost']}, ContractedCost {row['ContractedCost']}"


def _periods(row: Mapping[str, str]) -> Iterator[str]:
    start, end, first, last = (
        datetime.fromisoformat(row[name])
        for name in ("ChargePeriodStart", "ChargePeriodEnd", "BillingPeriodStart", "BillingPeriodEnd")
    )
    if end < start or end > last or (start < first and not row["ChargeClass"]):
        yield f"the charge's time {row['ChargePeriodStart']} to {row['ChargePeriodEnd']} is not within the bill's"
    if row["PricingCurrency"] != row["BillingCurrency"]:
        yield f"priced in {row['PricingCurrency']}, billed in {row['BillingCurrency']}"


def _currencies(rows: list[Mapping[str, str]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        found[row["InvoiceId"]].add(row["BillingCurrency"])
    return found


def _credit_faults(amounts: Iterable[tuple[tuple[object, ...], bool, Fraction]]) -> list[str]:
    """A credit takes back some of what it is for, or all of it, and never more."""
    charged: dict[tuple[object, ...], Fraction] = defaultdict(Fraction)
    credited: dict[tuple[object, ...], Fraction] = defaultdict(Fraction)
    for key, credit, amount in amounts:
        (credited if credit else charged)[key] += amount
    return [
        f"a credit of {_shown(amount)} for charges of {_shown(charged[key])} ({' '.join(map(str, key))})"
        for key, amount in credited.items()
        if abs(amount) > abs(charged[key]) or amount * charged[key] > 0
    ]


def _shown(exact: Fraction) -> str:
    """Short enough to read, with an ellipsis where digits are left out."""
    text = f"{float(exact):.15g}" if abs(exact) < 10**15 else str(round(exact))
    return text if Fraction(text) == exact else f"{text}…"
