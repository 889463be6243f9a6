"""Statements to make documents of: one with a bit of everything, and any that Hypothesis thinks of."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from hypothesis import strategies as st

from roost_platform.billing.currencies import rounded
from roost_platform.billing.lines import Category, Line
from roost_platform.billing.months import parse_month
from roost_platform.billing.notes import Note, make_note
from roost_platform.billing.skus import MEASURES, NOT_CHARGED, Sku
from roost_platform.billing.statements import Kind, Statement, Status

OCTOBER, NOVEMBER = parse_month("2026-10"), parse_month("2026-11")
CHANGE = datetime(2026, 11, 15, 6, tzinfo=UTC)
MADE_AT = datetime(2026, 12, 1, 1, 0, 3, tzinfo=UTC)
HOSTILE = (
    '<script>alert("1")</script>',
    "</style><img src=http://example.com/x>",
    "&amp; &lt;b&gt;",
    '=HYPERLINK("http://example.com","x")',
    "-2+3",
    "@SUM(A1)",
    "\tcmd",
    '#read("/etc/passwd")',
    '#eval("1")',
    "*bold* _not_ $x^2$ `raw` <label> @ref ]]",
    "{{ sheet.total }} {% raw %}",
    'a,"b"\r\nc',
    "\u202egnp.exe",
)
"""Names cannot be like this and notes hardly: the documents must not rely on it."""
LONGEST = "the-" * 15 + "end"
"""Sixty-three letters: no name is longer."""


def line(sku: str, quantity: int, price: str, **about: Any) -> Line:
    """One whose amounts follow from its quantity and prices."""
    list_price, currency = Decimal(about.pop("list_price", price)), about.pop("currency", "USD")
    unit, per = (MEASURES[Sku(sku)].unit, MEASURES[Sku(sku)].per) if sku != NOT_CHARGED else ("requests", 1)
    values: dict[str, Any] = {
        "category": Category.USAGE,
        "model": "iris",
        "variant": "",
        "price_book": "2026-10",
        "tier": 0,
        "start": NOVEMBER.start,
        "end": NOVEMBER.end,
        "list_amount": rounded(Fraction(quantity, per) * Fraction(list_price), currency),
        "amount": rounded(Fraction(quantity, per) * Fraction(price), currency),
    }
    fixed = {"sku": sku, "quantity": quantity, "unit": unit, "per": per}
    return Line(**(values | fixed | {"list_price": list_price, "unit_price": Decimal(price)} | about))


def statement(lines: Sequence[Line], **about: Any) -> Statement:
    currency = about.get("currency", "USD")
    tenant = about.get("tenant", "acme")
    values: dict[str, Any] = {
        "id": f"{tenant}-2026-11",
        "kind": Kind.STATEMENT,
        "of": "",
        "tenant": tenant,
        "month": NOVEMBER,
        "status": Status.FINAL,
        "currency": currency,
        "made_at": MADE_AT,
        "lines": tuple(lines),
        "total": rounded(sum((Fraction(line.amount) for line in lines), Fraction(0)), currency),
        "calls": {"ok": 232_400_000, "model_error": 322, "client_error": 1_100, "throttled": 122, "cancelled": 0},
        "charged_calls": 232_400_322,
        "unknown_calls": 3,
        "price_books": {"book/2026-10": "9f86d081" * 8, "terms/acme/20260101T000000.000000Z": "60303ae2" * 8},
        "inputs_hash": "fd61a03a" * 8,
        "notes": ("1,222 calls are not charged: only those that ended with model_error, ok are.",),
    }
    return Statement(**(values | about))


def everything(tenant: str = "acme", status: Status = Status.FINAL, more: int = 0) -> Statement:
    """Discounts, tiers, classes, a change of prices, zeros, credits, corrections; and `more` lines of many models."""
    credit = {"category": Category.CREDIT}
    late = {"category": Category.CORRECTION, "price_book": "2026-01", "month": "2026-10"}
    october = {"start": OCTOBER.start, "end": OCTOBER.end}
    lines = [
        line("requests", 12_400_312, "0.18", list_price="0.20"),
        line("requests", -1_000_000, "0.18", list_price="0.20", **credit),
        line("compute_seconds", 8_123_456_789, "0.0000378", list_price="0.0000420", tier=1, end=CHANGE),
        line("compute_seconds", 912_123_456_789, "0.0000300", tier=2, start=CHANGE, price_book="2026-11"),
        line("bytes_out", 312_345_678_901, "0.072", list_price="0.08"),
        line("storage", 2**30 * 3600 * 720 * 3 + 12_345, "0.000031", list_price="0.000034"),
        line(NOT_CHARGED, 1_222, "0", price_book=""),
        line("requests", 220_000_000, "0.18", list_price="0.20", model="sentiment-en"),
        line("inferences", 2_204_311_221, "0.0100", list_price="0.0110", model="sentiment-en"),
        line("active_seconds", 864_000_000_000, "0.00062", variant="gpu-1", model="sentiment-en"),
        line("reserved_seconds", 518_400_000_001, "0.000005", variant="cpu-2", model="sentiment-en"),
        line("cold_starts", 312, "0.50", model="sentiment-en"),
        line("check_seconds", 3_200_000, "0.00002", model=LONGEST),
        line("requests", 3_210_000, "0.20", **late, **october),
        line("requests", -2_000_000, "0.20", model="wine", **late, **october),
    ]  # fmt: skip
    lines += [
        line("compute_seconds", number * 10**9 + number, "0.00004", model=f"model-{number // 8}", tier=number % 8 + 1)
        for number in range(more)
    ]
    return statement(lines, tenant=tenant, status=status)


def note(kind: Kind, amount: str) -> Statement:
    """A credit or debit note for the statement of `everything`."""
    wanted = Note(kind=kind, amount=Decimal(amount), reason="An outage.")
    return make_note(everything(), wanted, others=(), now=MADE_AT)


_PRICES = st.decimals("0", "1000", places=6).map(lambda price: f"{price:f}")
_TEXT = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=20))


@st.composite
def statements(draw: st.DrawFn, *, text: st.SearchStrategy[str] = _TEXT) -> Statement:
    """Any that is right: amounts follow from quantities, credits do not exceed what they credit. `text`: for names."""
    currency = draw(st.sampled_from(["USD", "JPY", "TND"]))
    lines: list[Line] = []
    for _ in range(draw(st.integers(0, 4))):
        made = draw(_lines(text, currency))
        lines.append(made)
        if made.quantity > 0 and draw(st.booleans()):
            free = draw(st.integers(1, made.quantity))
            lines.append(_as(made, currency, category=Category.CREDIT, quantity=-free))
        if draw(st.integers(0, 3)) == 0:
            late = {"category": Category.CORRECTION, "month": "2026-10", "start": OCTOBER.start, "end": OCTOBER.end}
            lines.append(_as(made, currency, quantity=draw(st.integers(-(10**9), 10**9)), **late))
    return statement(
        lines,
        currency=currency,
        status=draw(st.sampled_from(list(Status))),
        notes=tuple(draw(st.lists(text, max_size=2))),
        made_at=MADE_AT + timedelta(microseconds=draw(st.integers(0, 10**6))),
    )


@st.composite
def _lines(draw: st.DrawFn, text: st.SearchStrategy[str], currency: str) -> Line:
    # No two alike: a credit is told from those of other lines by what it is for.
    return line(
        str(draw(st.sampled_from(list(Sku)))),
        draw(st.one_of(st.integers(-(10**6), 10**6), st.integers(0, 10**21))),
        draw(_PRICES),
        list_price=draw(_PRICES),
        currency=currency,
        model=draw(text),
        variant=draw(st.sampled_from(["", "cpu-1"])),
        tier=draw(st.integers(0, 10**6)),
        price_book=draw(st.sampled_from(["2026-10", "2026-11"])),
        end=draw(st.sampled_from([CHANGE, NOVEMBER.end])),
    )


def _as(other: Line, currency: str, *, quantity: int, **about: Any) -> Line:
    kept = {name: getattr(other, name) for name in ("model", "variant", "tier", "price_book", "start", "end")}
    return line(
        other.sku, quantity, f"{other.unit_price:f}",
        list_price=f"{other.list_price:f}", currency=currency, **(kept | about),
    )  # fmt: skip
