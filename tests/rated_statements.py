"""Statements as they come about: usage, rated with a price list that has everything a price list can have."""

from collections.abc import Iterable

from hypothesis import strategies as st

from billing_documents import CHANGE, MADE_AT, NOVEMBER, OCTOBER
from roost_platform.billing.late import EarlierMonth
from roost_platform.billing.lines import MeteredUsage
from roost_platform.billing.price_file import load_price_books
from roost_platform.billing.prices import hashes
from roost_platform.billing.statements import Statement, make_statement
from roost_platform.domain.meters import CALL_METERS, Meter
from roost_platform.domain.usage import Outcome

BOOKS = load_price_books("""
currency = "USD"

[[book]]
version = "2026-10"
effective_from = 2026-10-01T00:00:00Z
[book.prices]
requests = { mode = "graduated", tiers = [{ up_to = 1000, price = "200" }, { up_to = 5000, price = "150" }, { price = "100" }] }
bytes_out = { mode = "volume", tiers = [{ up_to = 1000000, price = "8000.123456789012" }, { price = "6000" }] }
active_seconds = { "cpu-1" = "0.25", "*" = "0.75" }
storage = "0.000031"
[book.free]
requests = 700
active_seconds = 10

[[book]]
version = "2026-11b"
effective_from = 2026-11-15T06:00:00Z
cold_start = "all"
[book.prices]
requests = { mode = "graduated", tiers = [{ up_to = 2000, price = "180" }, { price = "90" }] }
inferences = "1.1"
compute_seconds = "0.0000420"
setup_seconds = "0.3"
cold_starts = "500"
[book.free]
requests = 900

[[tenant]]
name = "acme"
effective_from = 2026-11-01T00:00:00Z
discount = "12.5%"
prices = { cold_starts = "400" }
free = { requests = 1200 }

[[tenant]]
name = "gamma"
effective_from = 2026-11-01T00:00:00Z
[tenant.prices]
requests = { mode = "graduated", tiers = [{ up_to = 3000, price = "190" }, { price = "20" }] }
""")


def rated(usage: Iterable[MeteredUsage], *, tenant: str = "acme", late: Iterable[MeteredUsage] = ()) -> Statement:
    """The final statement of November; `late`: of October, which was billed for nothing of it."""
    october = EarlierMonth(
        month=OCTOBER,
        usage=tuple(late),
        billed=(),
        documents=(f"{tenant}-2026-10",),
        price_books=hashes(BOOKS.periods(OCTOBER.start, OCTOBER.end, tenant=tenant)),
    )
    return make_statement(
        tenant=tenant, month=NOVEMBER, usage=usage, books=BOOKS, now=MADE_AT, earlier=[october], final=True
    )


def used(meter: Meter, quantity: int, *, model: str = "iris", variant: str = "", half: int = 0) -> MeteredUsage:
    """In November before its prices change (`half` 0) or after (1), or in October (-1)."""
    start, end = ((NOVEMBER.start, CHANGE), (CHANGE, NOVEMBER.end), (OCTOBER.start, OCTOBER.end))[half]
    return MeteredUsage(model=model, meter=meter, variant=variant, start=start, end=end, quantity=quantity)


def example(tenant: str = "acme") -> Statement:
    """Tiers, allowances, a discount, prices of its own, replicas of two classes, late usage, calls that cost nothing."""
    ok = str(Outcome.OK)
    usage = [
        used(Meter.REQUESTS, 1_500, variant=ok),
        used(Meter.REQUESTS, 4_321, variant=ok, model="wine"),
        used(Meter.REQUESTS, 9_000, variant=ok, model="wine", half=1),
        used(Meter.REQUESTS, 77, variant=str(Outcome.THROTTLED)),
        used(Meter.BYTES_OUT, 123_456_789, variant=ok),
        used(Meter.ACTIVE, 123_456_789, variant="cpu-1"),
        used(Meter.ACTIVE, 23_456_789, variant="gpu-1", model="wine"),
        used(Meter.STORAGE, 10**16 + 1),
        used(Meter.INFERENCES, 123_456, variant=ok, half=1),
        used(Meter.COMPUTE, 123_456_789_123, variant=ok, half=1),
        used(Meter.SETUP, 1_234_567, half=1, variant="cpu-1"),
        used(Meter.COLD_STARTS, 9, half=1, variant="cpu-1"),
    ]
    return rated(usage, tenant=tenant, late=[used(Meter.REQUESTS, 2_345, variant=ok, half=-1)])


@st.composite
def usages(draw: st.DrawFn, *, halves: tuple[int, ...] = (0, 1)) -> list[MeteredUsage]:
    """Anything that a tenant may have used; corrections may have taken back more than there was."""
    return draw(st.lists(_pieces(halves), max_size=8))


@st.composite
def _pieces(draw: st.DrawFn, halves: tuple[int, ...]) -> MeteredUsage:
    meter = draw(st.sampled_from(list(Meter)))
    variants = [str(outcome) for outcome in Outcome] if meter in CALL_METERS else ["cpu-1", "gpu-1"]
    return used(
        meter,
        draw(st.one_of(st.integers(-3_000, 12_000), st.integers(0, 10**17))),
        model=draw(st.sampled_from(["iris", "wine"])),
        variant=draw(st.sampled_from(variants)),
        half=draw(st.sampled_from(halves)),
    )
