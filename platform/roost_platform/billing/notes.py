"""Credit and debit notes: what an operator gives back of a final statement, or adds to it, with a reason. Pure."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from fractions import Fraction

from roost_platform.billing.currencies import rounded
from roost_platform.billing.lines import Category, Line
from roost_platform.billing.statements import Kind, Statement, Status
from roost_platform.domain.errors import Conflict, InvalidRequest

_LETTERS = {Kind.CREDIT_NOTE: "C", Kind.DEBIT_NOTE: "D"}


@dataclass(frozen=True, slots=True)
class Note:
    """What a note shall say."""

    kind: Kind
    """CREDIT_NOTE or DEBIT_NOTE."""
    amount: Decimal
    """Over 0, in whole minor units of the statement's currency."""
    reason: str
    """What the tenant reads on it."""


def make_note(statement: Statement, note: Note, *, others: Iterable[Statement], now: datetime) -> Statement:
    """The note as a document of its own, numbered after the `others` of its statement: C1, C2 … and D1, D2 …

    Raises InvalidRequest for an amount that is none, Conflict for a credit of more than what is left of the statement. One that
    is there already, with the same amount and reason, may always be made again.
    """
    currency = statement.currency
    amount = Fraction(note.amount)
    if amount <= 0 or rounded(amount, currency) != note.amount:
        message = f"the amount must be over 0 and a whole number of minor units of {currency}"
        raise InvalidRequest(message, code="invalid_amount", field="amount")
    others = [other for other in others if other.of == statement.id]
    inputs = [statement.id, str(note.kind), f"{rounded(amount, currency):f}", note.reason]
    inputs_hash = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
    if note.kind is Kind.CREDIT_NOTE and all(other.inputs_hash != inputs_hash for other in others):
        left = Fraction(statement.total) + sum(Fraction(other.total) for other in others)
        if amount > left:
            shown = rounded(max(left, Fraction(0)), currency)
            raise Conflict(f"only {shown:f} {currency} of {statement.id} is left to credit", code="credit_exceeds")
    money = rounded(-amount if note.kind is Kind.CREDIT_NOTE else amount, currency)
    number = 1 + sum(1 for other in others if other.kind is note.kind)
    return Statement(
        id=f"{statement.id}-{_LETTERS[note.kind]}{number}",
        kind=note.kind,
        of=statement.id,
        tenant=statement.tenant,
        month=statement.month,
        status=Status.FINAL,
        currency=currency,
        made_at=now,
        lines=(_line(statement, note.kind, money),),
        total=money,
        calls={},
        charged_calls=0,
        unknown_calls=0,
        price_books={},
        inputs_hash=inputs_hash,
        notes=(note.reason,),
    )


def _line(statement: Statement, kind: Kind, money: Decimal) -> Line:
    nothing = Decimal(0)
    return Line(
        category=Category.CREDIT if kind is Kind.CREDIT_NOTE else Category.USAGE,
        model="",
        sku=str(kind),
        variant="",
        price_book="",
        tier=0,
        start=statement.month.start,
        end=statement.month.end,
        quantity=0,
        unit="requests",
        list_price=nothing,
        unit_price=nothing,
        per=1,
        list_amount=money,
        amount=money,
    )
