"""Statements for programs (JSON), spreadsheets (CSV) and terminals (rows of text). Money is a decimal string in all."""

import csv
import io
from typing import Any

from roost_platform.billing.prices import MEASURES, Sku
from roost_platform.billing.statements import Line, Statement

_COLUMNS = (
    "tenant", "month", "status", "currency", "model", "sku", "price_book", "from", "to",
    "quantity", "unit", "unit_price", "per", "amount",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def to_json(statement: Statement) -> dict[str, Any]:
    return {
        "tenant": statement.tenant,
        "month": str(statement.month),
        "from": statement.month.start.isoformat(),
        "to": statement.month.end.isoformat(),
        "status": str(statement.status),
        "made_at": statement.made_at.isoformat(),
        "currency": statement.currency,
        "lines": [_line_to_json(line) for line in statement.lines],
        "total": f"{statement.total:f}",
        "calls": dict(statement.calls),
        "charged_calls": statement.charged_calls,
        "notes": list(statement.notes),
    }


def to_csv(statement: Statement) -> str:
    """One record per line of the statement, after a header (RFC 4180: CRLF, quotes where needed).

    There is no total record, so that the amounts of any number of files can be summed. Text that a spreadsheet would
    run as a formula gets an apostrophe in front; numbers are ours and stay numbers.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    head = {
        "tenant": statement.tenant,
        "month": str(statement.month),
        "status": str(statement.status),
        "currency": statement.currency,
    }
    for line in statement.lines:
        values = head | _line_to_json(line)
        numbers = {"quantity", "unit_price", "per", "amount"}
        writer.writerow([values[name] if name in numbers else _defuse(values[name]) for name in _COLUMNS])
    return text.getvalue()


def to_table(statement: Statement) -> list[tuple[str, ...]]:
    """Rows of text for a terminal: a header, the lines, the total."""
    rows: list[tuple[str, ...]] = [("model", "item", "from", "quantity", "price", f"amount ({statement.currency})")]
    rows += [
        (line.model, line.sku, f"{line.start:%Y-%m-%d}", *_quantity_and_price(line), f"{line.amount:f}")
        for line in statement.lines
    ]
    rows.append(("total", "", "", "", "", f"{statement.total:f}"))
    return rows


def _line_to_json(line: Line) -> dict[str, Any]:
    return {
        "model": line.model,
        "sku": str(line.sku),
        "price_book": line.price_book,
        "from": line.start.isoformat(),
        "to": line.end.isoformat(),
        "quantity": line.quantity,
        "unit": line.unit,
        "unit_price": f"{line.unit_price:f}",
        "per": line.per,
        "amount": f"{line.amount:f}",
    }


def _quantity_and_price(line: Line) -> tuple[str, str]:
    """A quantity in the unit that its price is for, where people read it easier so."""
    if line.sku == Sku.COMPUTE_SECONDS:
        quantity = f"{line.quantity // 10**6:,}.{line.quantity % 10**6:06d} s"
    else:
        quantity = f"{line.quantity:,} {line.unit}"
    if line.sku not in set(Sku):
        return quantity, "not charged"
    return quantity, f"{line.unit_price:f} {MEASURES[Sku(line.sku)].text}"


def _defuse(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text
