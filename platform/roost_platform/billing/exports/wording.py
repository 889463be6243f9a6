"""How the documents for people write things: items, quantities, prices, money, days. English, and the same everywhere."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from roost_platform.billing.exports.decimals import decimal_text, grouped
from roost_platform.billing.lines import Line
from roost_platform.billing.skus import NOT_CHARGED, Sku
from roost_platform.billing.statements import Kind

_PLACES = 6
"""Digits after the point of a quantity, at most; what is cut is in the documents for programs."""
_ITEMS = {
    Sku.REQUESTS: "Requests",
    Sku.COMPUTE_SECONDS: "Compute",
    Sku.INFERENCES: "Inferences",
    Sku.BYTES_IN: "Data in",
    Sku.BYTES_OUT: "Data out",
    Sku.SETUP_SECONDS: "Replicas starting",
    Sku.ACTIVE_SECONDS: "Replicas active",
    Sku.IDLE_SECONDS: "Replicas idle",
    Sku.RESERVED_SECONDS: "Replicas reserved",
    Sku.COLD_STARTS: "Cold starts",
    Sku.STORAGE: "Storage",
    Sku.CHECK_SECONDS: "Checks of uploads",
    NOT_CHARGED: "Calls not charged",
    Kind.CREDIT_NOTE: "Credited",
    Kind.DEBIT_NOTE: "Charged",
}
_NOTES = frozenset({Kind.CREDIT_NOTE, Kind.DEBIT_NOTE})
_ROUND = {1_000: "thousand", 1_000_000: "million"}
_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Counted:
    """The unit that people count a base unit in: `one` is `size` of them."""

    name: str
    """Of several."""
    size: int
    one: str


_COUNTED = {
    "microseconds": Counted("s", 10**6, "s"),
    "bytes": Counted("GiB", 2**30, "GiB"),
    "byte-seconds": Counted("GiB-hours", 2**30 * 3600, "GiB-hour"),
}
"""Base units that are too small for people. Others are counted as they are."""


def counted(unit: str) -> Counted:
    return _COUNTED.get(unit, Counted(unit, 1, unit.removesuffix("s")))


def item_name(sku: str) -> str:
    return _ITEMS.get(sku, sku)


def item(line: Line) -> str:
    """What is charged, with what tells it from others of the same sku."""
    name = item_name(line.sku)
    parts = [part for part in (line.variant, f"tier {line.tier}" if line.tier else "") if part]
    return f"{name} ({', '.join(parts)})" if parts else name


def quantity(line: Line) -> str:
    """`1,234.5 s`: at most six digits after the point, no zeros at its end. Nothing on notes: they are sums of money."""
    if line.sku in _NOTES:
        return ""
    unit = counted(line.unit)
    return f"{minus(grouped(decimal_text(Fraction(line.quantity, unit.size), most=_PLACES)))} {unit.name}"


def price(line: Line) -> str:
    """`0.0000420 per s`, as this tenant pays it; nothing for what has no price."""
    if line.sku == NOT_CHARGED or line.sku in _NOTES:
        return ""
    unit = counted(line.unit)
    count, rest = divmod(line.per, unit.size)
    if rest:
        return f"{line.unit_price:f} per {line.per:,} {line.unit}"
    of = unit.one if count == 1 else f"{_ROUND.get(count, f'{count:,}')} {unit.name}"
    return f"{line.unit_price:f} per {of}"


def money(amount: Decimal) -> str:
    """`-1,234.50` with a real minus; the currency stands elsewhere."""
    return minus(grouped(f"{amount:f}"))


def minus(number: str) -> str:
    return number.replace("-", "\u2212")


def month_name(at: datetime) -> str:
    """In English whatever the process's locale is."""
    return _MONTHS[at.month - 1]


def moment(at: datetime) -> str:
    """`2 Dec 2026, 01:00 UTC`; seconds only where there are any."""
    return f"{_day(at)}, {_clock(at)} UTC"


def days(start: datetime, end: datetime) -> str:
    """[start, end) for people: `1 Nov - 30 Nov 2026` where it is whole days, else with times; all UTC."""
    if start == end:
        return f"{_day(start)} {_clock(start)}"
    whole = _midnight(start) and _midnight(end)
    last = end - timedelta(days=1) if whole else end
    if whole and start == last:
        return _day(start)
    first = _day(start) if start.year != last.year else _day(start).removesuffix(f" {start.year}")
    if whole:
        return f"{first} \u2013 {_day(last)}"
    return f"{first} {_clock(start)} \u2013 {_day(last)} {_clock(end)}"


def _day(at: datetime) -> str:
    return f"{at.day} {month_name(at)[:3]} {at.year}"


def _clock(at: datetime) -> str:
    return f"{at:%H:%M:%S}" if at.second or at.microsecond else f"{at:%H:%M}"


def _midnight(at: datetime) -> bool:
    return (at.hour, at.minute, at.second, at.microsecond) == (0, 0, 0, 0)
