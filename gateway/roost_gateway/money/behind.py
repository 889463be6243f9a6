"""What is behind a line of a statement: the calls, corrections and stretches that its quantity is the sum of.

Lines of one sku that differ only in tier or category share their events: a tier is no property of an event.
"""

from roost_platform.billing.lines import Line
from roost_platform.billing.prices import PriceBooks
from roost_platform.billing.skus import MEASURES, NOT_CHARGED, SHADOW, ColdStart, Sku
from roost_platform.database.connection import Database
from roost_platform.domain.usage import ANSWERED_OUTCOMES, BILLED_OUTCOMES, Outcome
from roost_platform.metering.browsing import Event, Place, Wanted, browse_calls, browse_stretches

_OF_CALLS = {
    Sku.REQUESTS: "requests",
    Sku.COMPUTE_SECONDS: "compute_us",
    Sku.INFERENCES: "rows",
    Sku.BYTES_IN: "bytes_in",
    Sku.BYTES_OUT: "bytes_out",
}
_OF_STRETCHES = {
    Sku.ACTIVE_SECONDS: "active_us",
    Sku.IDLE_SECONDS: "idle_us",
    Sku.RESERVED_SECONDS: "reserved_us",
    Sku.COLD_STARTS: "cold_starts",
    Sku.STORAGE: "byte_seconds",
    Sku.CHECK_SECONDS: "job_us",
}
_OF_SETUP = {ColdStart.LOAD: "load_us", ColdStart.ALL: "setup_us"}


async def events_behind(
    database: Database, line: Line, *, tenant: str, books: PriceBooks, after: Place | None, limit: int
) -> list[Event]:
    """Up to `limit` of them, by time, behind the place `after`. None for a note's line: nothing was counted for it."""
    calls = wanted_calls(line, tenant)
    if calls is not None:
        return await database.read(browse_calls, calls, after=after, limit=limit)
    stretches = _wanted_stretches(line, tenant, books)
    if stretches is not None:
        return await database.read(browse_stretches, stretches, after=after, limit=limit)
    return []


def wanted_calls(line: Line, tenant: str) -> Wanted | None:
    """None where the line is not about calls."""
    copies = frozenset({Outcome.SHADOW}) if line.variant == SHADOW else None
    if line.sku == NOT_CHARGED:
        free = copies or ANSWERED_OUTCOMES - (BILLED_OUTCOMES if line.price_book else frozenset())
        return Wanted(tenant, line.model, line.start, line.end, "requests", outcomes=free)
    amount = _OF_CALLS.get(Sku(line.sku)) if line.sku in MEASURES else None
    if amount is None:
        return None
    return Wanted(tenant, line.model, line.start, line.end, amount, outcomes=copies or BILLED_OUTCOMES)


def _wanted_stretches(line: Line, tenant: str, books: PriceBooks) -> Wanted | None:
    if line.sku not in MEASURES:
        return None
    sku = Sku(line.sku)
    amount = _OF_SETUP[_cold_start(line, books)] if sku is Sku.SETUP_SECONDS else _OF_STRETCHES[sku]
    resource_class = line.variant if MEASURES[sku].by_class else None
    return Wanted(tenant, line.model, line.start, line.end, amount, resource_class=resource_class)


def _cold_start(line: Line, books: PriceBooks) -> ColdStart:
    """How the line's book counts setup."""
    return next((book.cold_start for book in books.books if book.version == line.price_book), ColdStart.LOAD)
