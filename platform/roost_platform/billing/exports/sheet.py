"""A statement as the documents for people show it: every text ready, nothing left but to lay it out.

The HTML page and the PDF are two layouts of one sheet, so they cannot differ in what they say. All of it is plain text:
the layouts escape it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from roost_platform.billing.currencies import rounded
from roost_platform.billing.exports import wording
from roost_platform.billing.exports.issuer import Issuer
from roost_platform.billing.lines import Category, Line
from roost_platform.billing.statements import Kind, Statement, Status
from roost_platform.domain.usage import Outcome

_TITLES = {Kind.STATEMENT: "Statement", Kind.CREDIT_NOTE: "Credit note", Kind.DEBIT_NOTE: "Debit note"}
_BADGES = {
    Status.OPEN: "Open: the month is running",
    Status.DRAFT: "Draft: not final yet",
    Status.FINAL: "Final",
}
_OUTCOMES = {
    Outcome.OK: "Answered",
    Outcome.MODEL_ERROR: "Model errors",
    Outcome.CLIENT_ERROR: "Faulty requests",
    Outcome.PLATFORM_ERROR: "Our errors",
    Outcome.THROTTLED: "Over the limit",
    Outcome.CANCELLED: "Cancelled",
    Outcome.SHADOW: "Copies to a shadow",
}
_WHOLE_ACCOUNT = "Whole account"
_SHARES = 10
"""Models that are shown on their own before the others are put together."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line, in words."""

    item: str
    quantity: str
    price: str
    """As this tenant pays it, and per how much."""
    list_price: str
    """The number in the book, where the tenant pays another; else empty."""
    amount: str
    exact: str
    """The amount as a program reads it."""
    base: str
    """The quantity in whole base units."""
    details: tuple[str, ...]
    """The month that is corrected, the part of the month, the price book: where they are not as of all other rows."""
    zero: bool


@dataclass(frozen=True, slots=True)
class Group:
    """The lines of one model."""

    name: str
    rows: tuple[Row, ...]
    amount: str
    exact: str


@dataclass(frozen=True, slots=True)
class Share:
    """What a model's usage costs beside that of the others."""

    name: str
    amount: str
    exact: str
    thousandths: int
    """Of what all usage costs; 0 where that is nothing."""
    percent: str


@dataclass(frozen=True, slots=True)
class Section:
    """Lines of one category."""

    title: str
    groups: tuple[Group, ...]
    amount: str
    exact: str


@dataclass(frozen=True, slots=True)
class Sheet:
    title: str
    """`Statement`, or the kind of note."""
    issuer: str
    tenant: str
    id: str
    of: str
    """Of notes: the statement they belong to."""
    month: str
    period: str
    status: str
    badge: str
    currency: str
    total: str
    exact_total: str
    at_list: str
    """What the usage would cost by the books' prices, where the tenant pays less; else empty."""
    terms: tuple[str, str]
    """What the difference is called, and how much it is."""
    shares: tuple[Share, ...]
    """The dearest models first; those beyond the first few together."""
    usage: Section
    credits: Section
    corrections: Section
    calls: tuple[tuple[str, str], ...]
    """How calls ended, and how many."""
    notes: tuple[str, ...]
    made_at: str
    price_books: tuple[tuple[str, str], ...]
    """Names and hashes of what the prices are from."""
    inputs_hash: str

    @property
    def sections(self) -> tuple[Section, ...]:
        """Those that have lines."""
        return tuple(section for section in (self.usage, self.credits, self.corrections) if section.groups)


def make_sheet(statement: Statement, *, issuer: Issuer) -> Sheet:
    by = {category: [line for line in statement.lines if line.category is category] for category in Category}
    note = statement.kind is not Kind.STATEMENT
    if note:
        by = {Category.USAGE: list(statement.lines), Category.CREDIT: [], Category.CORRECTION: []}
    at_list = _sum((line.list_amount for line in by[Category.USAGE]), statement)
    paid = _sum((line.amount for line in by[Category.USAGE]), statement)
    return Sheet(
        title=_TITLES[statement.kind],
        issuer=issuer.name,
        tenant=statement.tenant,
        id=statement.id,
        of=statement.of,
        month=f"{wording.month_name(statement.month.start)} {statement.month.start.year}",
        period=f"{wording.days(statement.month.start, statement.month.end)}, UTC",
        status=str(statement.status),
        badge=_BADGES[statement.status],
        currency=statement.currency,
        total=wording.money(statement.total),
        exact_total=f"{statement.total:f}",
        at_list=wording.money(at_list) if at_list != paid else "",
        terms=(
            "Your discount" if paid < at_list else "Your own prices",
            wording.money(rounded(Fraction(paid) - Fraction(at_list), statement.currency)),
        ),
        shares=() if note else _shares(by[Category.USAGE], statement),
        usage=_section(_TITLES[statement.kind] if note else "Usage", by[Category.USAGE], statement),
        credits=_section("Credits", by[Category.CREDIT], statement),
        corrections=_section("Corrections of earlier months", by[Category.CORRECTION], statement),
        calls=_calls(statement),
        notes=statement.notes,
        made_at=wording.moment(statement.made_at),
        price_books=tuple(sorted(statement.price_books.items())),
        inputs_hash=statement.inputs_hash,
    )


def _section(title: str, lines: list[Line], statement: Statement) -> Section:
    books = {line.price_book for line in lines}
    groups = (
        Group(
            name=model or _WHOLE_ACCOUNT,
            rows=tuple(_row(line, statement, name_book=len(books) > 1) for line in of_model),
            amount=wording.money(amount := _sum((line.amount for line in of_model), statement)),
            exact=f"{amount:f}",
        )
        for model, of_model in _by_model(lines).items()
    )
    whole = _sum((line.amount for line in lines), statement)
    return Section(title=title, groups=tuple(groups), amount=wording.money(whole), exact=f"{whole:f}")


def _row(line: Line, statement: Statement, *, name_book: bool) -> Row:
    whole = (line.start, line.end) == (statement.month.start, statement.month.end)
    details = (
        f"of {line.month}" if line.month else "",
        "" if whole else wording.days(line.start, line.end),
        f"prices {line.price_book}" if name_book and line.price_book else "",
    )
    return Row(
        item=wording.item(line),
        quantity=wording.quantity(line),
        price=wording.price(line),
        list_price=f"{line.list_price:f}" if line.list_price != line.unit_price else "",
        amount=wording.money(line.amount),
        exact=f"{line.amount:f}",
        base=str(line.quantity),
        details=tuple(detail for detail in details if detail),
        zero=not line.amount,
    )


def _shares(lines: list[Line], statement: Statement) -> tuple[Share, ...]:
    sums = {model: _sum((line.amount for line in of), statement) for model, of in _by_model(lines).items()}
    whole = _sum(sums.values(), statement)
    dearest = sorted(sums, key=lambda model: (-sums[model], model))
    shown = [(model or _WHOLE_ACCOUNT, sums[model]) for model in dearest[:_SHARES]]
    if others := dearest[_SHARES:]:
        shown.append((f"{len(others):,} others", _sum((sums[model] for model in others), statement)))
    return tuple(_share(name, amount, whole) for name, amount in shown)


def _share(name: str, amount: Decimal, whole: Decimal) -> Share:
    part = min(1000, round(Fraction(amount) * 1000 / Fraction(whole))) if whole > 0 and amount > 0 else 0
    return Share(name, wording.money(amount), f"{amount:f}", part, f"{part // 10}.{part % 10}")


def _by_model(lines: list[Line]) -> dict[str, list[Line]]:
    models: dict[str, list[Line]] = {}
    for line in lines:
        models.setdefault(line.model, []).append(line)
    return models


def _sum(amounts: Iterable[Decimal], statement: Statement) -> Decimal:
    return rounded(sum((Fraction(amount) for amount in amounts), Fraction(0)), statement.currency)


def _calls(statement: Statement) -> tuple[tuple[str, str], ...]:
    ended = [(_OUTCOMES[Outcome(outcome)], count) for outcome, count in statement.calls.items() if count]
    if statement.unknown_calls:
        ended.append(("Lost with a gateway", statement.unknown_calls))
    return tuple((name, f"{count:,}") for name, count in ended)
