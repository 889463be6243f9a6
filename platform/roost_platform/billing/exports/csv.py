"""Statements for spreadsheets (RFC 4180)."""

import csv
import io

from roost_platform.billing.exports.json import line_to_json
from roost_platform.billing.statements import Statement

COLUMNS = (
    "id", "kind", "tenant", "month", "status", "currency", "line", "category", "model", "sku", "variant", "price_book",
    "tier", "from", "to", "corrected_month", "quantity", "unit", "list_price", "unit_price", "per", "list_amount",
    "amount",
)  # fmt: skip
_NUMBERS = frozenset({"line", "tier", "quantity", "list_price", "unit_price", "per", "list_amount", "amount"})
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def to_csv(*statements: Statement) -> str:
    """One record per line of each statement, after one header (CRLF, quotes where needed).

    There is no total record, so that the amounts of any number of files can be summed. Text that a spreadsheet would
    run as a formula gets an apostrophe in front; numbers are ours and stay numbers. `line` counts from 1.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for statement in statements:
        head = {
            "id": statement.id,
            "kind": str(statement.kind),
            "tenant": statement.tenant,
            "month": str(statement.month),
            "status": str(statement.status),
            "currency": statement.currency,
        }
        for number, line in enumerate(statement.lines, start=1):
            values = line_to_json(line) | {"corrected_month": line.month} | head | {"line": number}
            writer.writerow([values[name] if name in _NUMBERS else defuse(values[name]) for name in COLUMNS])
    return text.getvalue()


def defuse(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text
