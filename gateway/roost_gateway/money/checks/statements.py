"""Statements: what final documents say, against themselves, and against the usage that they were made from.

A final document never changes. What becomes known of its month later is on the next statements, as corrections; until
it is there, the difference is pending.
"""

import asyncio
import json
from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from sqlalchemy import Connection, Row, select

from roost_gateway.money.checks.check import Check, Finding, Inquiry, Verdict, many
from roost_gateway.money.metered import metered
from roost_platform.billing.currencies import MINOR_UNITS
from roost_platform.billing.exports.arithmetic import statement_faults
from roost_platform.billing.exports.json import from_json, line_from_json
from roost_platform.billing.late import LATEST, difference, still_corrected
from roost_platform.billing.lines import Category, Line, MeteredUsage
from roost_platform.billing.months import month_of
from roost_platform.billing.prices import hashes
from roost_platform.billing.rating import rate
from roost_platform.billing.statement_store import Mark
from roost_platform.billing.statements import Kind, Statement
from roost_platform.database.money_tables import statement_marks, statements
from roost_platform.domain.errors import RoostError
from roost_platform.domain.meters import Meter

_COLUMNS = ("id", "tenant", "month", "kind", "currency", "total", "inputs_hash")
"""Of the table, that must be as the document says."""


@dataclass(frozen=True, slots=True)
class _Document:
    id: str
    currency: str
    total: int
    """As the table has it, in minor units."""
    statement: Statement | None
    """None: it cannot be read."""
    faults: tuple[str, ...]
    """Why it cannot be what was made final, in sentences."""
    void: bool


async def documents(inquiry: Inquiry) -> Check:
    """The total of each final document against the sum of its lines; and whatever else in it cannot be."""
    check = Check("final documents", "totals of statements and notes, in minor units", "sums of their lines")
    for each in await _final(inquiry):
        lines = () if each.statement is None else each.statement.lines
        right = sum(_minor(line.amount, each.currency) for line in lines)
        says = f"{'; '.join(each.faults)}. A final document never changes: compare it with a copy that was sent out"
        scope = f"statement {each.id}"
        check.compare(scope, each.total, right, says)
        if each.faults and each.total == right:
            check.keep(Finding(scope, each.total, right, Verdict.DIFFERS, says))
    return check


async def calls(inquiry: Inquiry) -> Check:
    """The calls on final statements against those that the ledger and its corrections hold now."""
    check = Check("calls on statements", "calls on final statements", "calls in the ledger, with corrections")
    for statement in await _statements(inquiry):
        usage = await _usage(inquiry, statement)
        now = sum(piece.quantity for piece in usage if piece.meter is Meter.REQUESTS)
        billed = sum(statement.calls.values())
        says = f"the statement has {many(billed, 'call')}, now there are {now:,}" + _what_follows(inquiry, statement)
        pending = _is_taken_up(inquiry, statement)
        check.compare(f"statement {statement.id}", billed, now, says, pending=pending)
    return check


async def rated_again(inquiry: Inquiry) -> Check:
    """All that was billed of a final month against what it comes to when it is rated now, with the prices of then."""
    check = Check("amounts billed", "billed of final months, in minor units", "the same months, rated again")
    latest = month_of(inquiry.end + LATEST)
    corrected = await inquiry.database.read(_corrections, str(month_of(inquiry.start)), str(latest))
    for statement in await _statements(inquiry):
        month, currency = statement.month, statement.currency
        billed = [line for line in statement.lines if line.category is not Category.CORRECTION]
        billed += corrected.get((statement.tenant, str(month)), [])
        usage = await _usage(inquiry, statement)
        now = await asyncio.to_thread(rate, usage, tenant=statement.tenant, month=month, books=inquiry.books)
        wrong = difference(billed, now, month=month, currency=currency)
        says = f"{many(len(wrong), 'line')} would be different now" + _other_prices(inquiry, statement)
        says += _what_follows(inquiry, statement)
        left, right = (sum(_minor(line.amount, currency) for line in lines) for lines in (billed, now))
        pending, scope = _is_taken_up(inquiry, statement), f"statement {statement.id}"
        check.compare(scope, left, right, says, pending=pending)
        if wrong and left == right:
            check.keep(Finding(scope, left, right, Verdict.PENDING if pending else Verdict.DIFFERS, says))
    return check


async def _final(inquiry: Inquiry) -> list[_Document]:
    """Of all months that the period touches."""
    last = month_of(inquiry.end - timedelta(microseconds=1))
    return await inquiry.database.read(_documents, str(month_of(inquiry.start)), str(last))


async def _statements(inquiry: Inquiry) -> list[Statement]:
    """Those that can be read and are owed; no notes."""
    found = [document.statement for document in await _final(inquiry) if not document.void]
    return [statement for statement in found if statement is not None and statement.kind is Kind.STATEMENT]


def _documents(connection: Connection, first: str, last: str) -> list[_Document]:
    row, mark = statements.c, statement_marks.c
    void = set(connection.scalars(select(mark.statement).where(mark.state == Mark.VOID)))
    query = select(statements).where(row.month >= first, row.month <= last).order_by(row.month, row.id)
    return [_read(found, void=found.id in void) for found in connection.execute(query)]


def _read(row: Row[Any], *, void: bool) -> _Document:
    total = _minor(Decimal(row.total), row.currency)
    try:
        content = json.loads(row.document)
        statement = from_json(content)
        faults = [
            f"its {name} is {content[name]}, but {getattr(row, name)} beside it"
            for name in _COLUMNS
            if str(content[name]) != str(getattr(row, name))
        ]
        faults += statement_faults(statement)
    except (RoostError, KeyError, TypeError, ValueError, ArithmeticError):
        return _Document(row.id, row.currency, total, None, ("it cannot be read",), void)
    return _Document(row.id, row.currency, total, statement, tuple(faults), void)


def _corrections(connection: Connection, first: str, last: str) -> dict[tuple[str, str], list[Line]]:
    """What statements say of earlier months, by tenant and month."""
    row = statements.c
    query = select(row.tenant, row.document).where(row.kind == Kind.STATEMENT, row.month > first, row.month <= last)
    found: dict[tuple[str, str], list[Line]] = defaultdict(list)
    for tenant, document in connection.execute(query):
        for line in json.loads(document)["lines"]:
            if line["category"] == Category.CORRECTION:
                found[tenant, line["month"]].append(line_from_json(line))
    return found


async def _usage(inquiry: Inquiry, statement: Statement) -> list[MeteredUsage]:
    month = statement.month
    periods = inquiry.books.periods(month.start, month.end, tenant=statement.tenant)
    edges = [month.start, *(period.end for period in periods)]
    return await inquiry.database.read(metered, tenant=statement.tenant, edges=edges)


def _other_prices(inquiry: Inquiry, statement: Statement) -> str:
    """Only prices that were tampered with can be others than those of then."""
    month = statement.month
    known = hashes(inquiry.books.periods(month.start, month.end, tenant=statement.tenant))
    names = [name for name, made_of in known.items() if statement.price_books.get(name) != made_of]
    return f", with other prices than those of then ({', '.join(names)})" if names else ""


def _is_taken_up(inquiry: Inquiry, statement: Statement) -> bool:
    return still_corrected(statement.month, month_of(inquiry.now))


def _what_follows(inquiry: Inquiry, statement: Statement) -> str:
    if _is_taken_up(inquiry, statement):
        return "; the next statement will bring the difference"
    return "; no statement will bring the difference any more: write a credit or a debit note, if one is due"


def _minor(amount: Decimal, currency: str) -> int:
    """In the currency's minor units; the fraction of one that no amount has is left out."""
    return int(Fraction(amount) * 10 ** MINOR_UNITS.get(currency, 0))
