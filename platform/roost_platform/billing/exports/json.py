"""Statements for programs, and for keeping: money is a decimal string, times have an offset. `from_json` reads them back."""

import json
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from roost_platform.billing.lines import Category, Line
from roost_platform.billing.months import parse_month
from roost_platform.billing.statements import Kind, Statement, Status


def to_json(statement: Statement) -> dict[str, Any]:
    return {
        "id": statement.id,
        "kind": str(statement.kind),
        "of": statement.of,
        "tenant": statement.tenant,
        "month": str(statement.month),
        "from": statement.month.start.isoformat(),
        "to": statement.month.end.isoformat(),
        "status": str(statement.status),
        "made_at": statement.made_at.isoformat(),
        "currency": statement.currency,
        "lines": [line_to_json(line) for line in statement.lines],
        "total": f"{statement.total:f}",
        "calls": {str(outcome): count for outcome, count in statement.calls.items()},
        "charged_calls": statement.charged_calls,
        "unknown_calls": statement.unknown_calls,
        "price_books": dict(statement.price_books),
        "inputs_hash": statement.inputs_hash,
        "notes": list(statement.notes),
    }


def from_json(document: Mapping[str, Any]) -> Statement:
    """The statement that `to_json` made this of. Raises KeyError, TypeError, ValueError for anything else."""
    return Statement(
        id=document["id"],
        kind=Kind(document["kind"]),
        of=document["of"],
        tenant=document["tenant"],
        month=parse_month(document["month"]),
        status=Status(document["status"]),
        currency=document["currency"],
        made_at=datetime.fromisoformat(document["made_at"]),
        lines=tuple(line_from_json(line) for line in document["lines"]),
        total=Decimal(document["total"]),
        calls=dict(document["calls"]),
        charged_calls=document["charged_calls"],
        unknown_calls=document["unknown_calls"],
        price_books=dict(document["price_books"]),
        inputs_hash=document["inputs_hash"],
        notes=tuple(document["notes"]),
    )


def canonical(statement: Statement) -> bytes:
    return encoded(to_json(statement))


def encoded(document: Any) -> bytes:
    """The same bytes for the same document: sorted keys, no spaces, UTF-8.

    Python's own encoder: a month of stored byte-seconds can be more than the 64 bits that the faster one takes.
    """
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def line_to_json(line: Line) -> dict[str, Any]:
    return {
        "category": str(line.category),
        "model": line.model,
        "sku": str(line.sku),
        "variant": line.variant,
        "price_book": line.price_book,
        "tier": line.tier,
        "from": line.start.isoformat(),
        "to": line.end.isoformat(),
        "quantity": line.quantity,
        "unit": line.unit,
        "list_price": f"{line.list_price:f}",
        "unit_price": f"{line.unit_price:f}",
        "per": line.per,
        "list_amount": f"{line.list_amount:f}",
        "amount": f"{line.amount:f}",
        "month": line.month,
    }


def line_from_json(document: Mapping[str, Any]) -> Line:
    return Line(
        category=Category(document["category"]),
        model=document["model"],
        sku=document["sku"],
        variant=document["variant"],
        price_book=document["price_book"],
        tier=document["tier"],
        start=datetime.fromisoformat(document["from"]),
        end=datetime.fromisoformat(document["to"]),
        quantity=document["quantity"],
        unit=document["unit"],
        list_price=Decimal(document["list_price"]),
        unit_price=Decimal(document["unit_price"]),
        per=document["per"],
        list_amount=Decimal(document["list_amount"]),
        amount=Decimal(document["amount"]),
        month=document["month"],
    )
