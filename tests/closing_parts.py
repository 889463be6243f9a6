"""What the tests of closing share: a migrated database, a clock that is told, prices, and the loop that makes months final."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from databases import url_of
from metering_parts import event, ledger_in
from roost_gateway.money.closing import Closing
from roost_gateway.money.statements import Statements
from roost_platform.billing.lines import Category
from roost_platform.billing.months import parse_month
from roost_platform.billing.price_file import load_price_books
from roost_platform.billing.prices import PriceBooks
from roost_platform.billing.statements import Statement
from roost_platform.database.connection import Database
from roost_platform.database.migrations import migrate
from roost_platform.database.money_tables import statements
from roost_platform.metering.recording import record
from roost_platform.metering.sources import begin_source

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
GRACE = HOUR

BOOKS = load_price_books("""
currency = "USD"
[[book]]
version = "2026-01"
effective_from = 2026-01-01T00:00:00Z
[book.prices]
requests = { mode = "graduated", tiers = [{ up_to = 5, price = "1000000" }, { price = "500000" }] }
active_seconds = "1"
setup_seconds = "2"
storage = "1"
[book.free]
requests = 2
[[book]]
version = "2026-11b"
effective_from = 2026-11-15T06:00:00Z
[book.prices]
requests = "3000000"
""")


@dataclass
class Closer:
    """One gateway that leads."""

    database: Database
    books: PriceBooks = BOOKS
    now: datetime = NOVEMBER
    source: str = "run"
    leads: bool = True
    sequence: int = 0
    statements: Statements = field(init=False)
    closing: Closing = field(init=False)

    def __post_init__(self) -> None:
        self.statements = Statements(database=self.database, books=self.books, drain=self.drain, clock=lambda: self.now)
        self.closing = Closing(
            database=self.database,
            statements=self.statements,
            source=self.source,
            drain=self.drain,
            leads=lambda: self.leads,
            clock=lambda: self.now,
            grace_s=GRACE.total_seconds(),
        )

    async def drain(self) -> None:
        """There is no journal: what is recorded is in the ledger."""

    async def step_at(self, now: datetime) -> None:
        self.now = now
        await self.closing.step()

    async def use(self, time: datetime, **changes: Any) -> None:
        """One more call in the ledger."""
        await self.database.write(record, [event(self.sequence, source=self.source, time=time, **changes)])
        self.sequence += 1

    async def begin_run(self, source: str, at: datetime) -> None:
        await self.database.write(begin_source, source, started_at=at)

    async def documents(self) -> dict[str, str]:
        """All final documents as they are kept, by id."""
        return await self.database.read(kept)


def kept(connection: Connection) -> dict[str, str]:
    row = statements.c
    return {id_: document for id_, document in connection.execute(select(row.id, row.document).order_by(row.id))}  # noqa: C416


@contextmanager
def migrated(folder: Path) -> Iterator[Database]:
    """A database with its triggers."""
    database = Database(url_of(folder))
    migrate(database.engine)
    try:
        yield database
    finally:
        database.close()


@contextmanager
def closer_in(folder: Path, **about: Any) -> Iterator[Closer]:
    with ledger_in(folder) as database:
        yield Closer(database, **about)


async def bill(closer: Closer, month: str = "2026-10", tenant: str = "acme") -> Statement:
    return await closer.statements.get(tenant, parse_month(month))


def corrections_of(statement: Statement) -> list[tuple[str, int, str]]:
    """Month, quantity and amount of what is corrected."""
    lines = [line for line in statement.lines if line.category is Category.CORRECTION]
    return [(line.month, line.quantity, str(line.amount)) for line in lines]
