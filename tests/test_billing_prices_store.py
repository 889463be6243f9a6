"""What was in force stays: a price list is held against what the database keeps, on both databases."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select, update
from sqlalchemy.exc import DBAPIError

from databases import url_of
from roost_platform.billing.price_file import default_price_books, load_price_books
from roost_platform.billing.price_store import record_prices
from roost_platform.billing.prices import content, content_hash
from roost_platform.database.connection import Database
from roost_platform.database.migrations import migrate
from roost_platform.database.money_tables import price_books, statements
from roost_platform.domain.errors import Conflict
from roost_process import START_LIMIT_S, RoostProcess

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
LATER = datetime(2027, 3, 1, tzinfo=UTC)
"""What "not in force" means to the database is decided by its own clock, so what is pending here lies far off."""
FAR = "2999-01-01"


@pytest.fixture
def database(tmp_path: Path, each_database: str) -> Iterator[Database]:
    made = Database(url_of(tmp_path))
    migrate(made.engine)
    yield made
    made.close()


def book(version, start, prices='requests = "0.20"', more=""):
    return f'[[book]]\nversion = "{version}"\neffective_from = {start}T00:00:00Z\n{more}prices = {{ {prices} }}\n'


def terms(start, name="acme", more='discount = "10%"'):
    return f'[[tenant]]\nname = "{name}"\neffective_from = {start}T00:00:00Z\n{more}\n'


def listed(*parts, currency="USD"):
    return load_price_books(f'currency = "{currency}"\n' + "\n".join(parts))


OLD = (book("a", "2026-01-01"), book("b", "2026-06-01"), terms("2026-03-01"))


async def names(database):
    return sorted(await database.read(lambda c: c.scalars(select(price_books.c.name)).all()))


async def test_everything_is_kept_with_its_content_and_hash_and_twice_is_once(database):
    books = default_price_books()
    for _ in range(2):
        await database.write(record_prices, books, now=NOW)
    rows = await database.read(lambda c: c.execute(select(price_books).order_by(price_books.c.effective_from)).all())
    assert [row.name for row in rows] == ["book/2026-01", "book/2026-10", "book/2026-12"]
    assert [row.content for row in rows] == [content(each) for each in books.books]
    assert [row.content_hash for row in rows] == [content_hash(each) for each in books.books]
    assert [row.effective_from for row in rows] == [each.effective_from for each in books.books]
    assert {row.recorded_at for row in rows} == {NOW}


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (
            (book("a", "2026-01-01"), book("b", "2026-06-01", 'requests = "0.25"'), OLD[2]),
            'book/b: prices.requests.* was "0.20" and is now "0.25"',
        ),
        (
            (book("a", "2026-01-01"), book("b", "2026-06-01", 'requests = "0.20", storage = "1"'), OLD[2]),
            'book/b: prices.storage was absent and is now {"*": "1"}',
        ),
        (
            (book("a", "2026-01-01", more='cold_start = "all"\n'), *OLD[1:]),
            'book/a: cold_start was "load" and is now "all"',
        ),
        (
            (book("a", "2026-01-02"), *OLD[1:]),
            'book/a: effective_from was "2026-01-01T00:00:00+00:00" and is now "2026-01-02T00:00:00+00:00"',
        ),
        ((OLD[0], OLD[2]), "book/b is in force since 2026-06-01T00:00:00+00:00 and was dropped"),
        (OLD[:2], "terms/acme/20260301T000000.000000Z is in force since 2026-03-01T00:00:00+00:00 and was dropped"),
        (
            (*OLD[:2], terms("2026-03-01", more='discount = "20%"')),
            'terms/acme/20260301T000000.000000Z: discount was "0.1" and is now "0.2"',
        ),
        (
            (*OLD[:2], terms("2026-03-01", more='discount = "10%"\nuntil = 2027-01-01T00:00:00Z')),
            'until was absent and is now "2027-01-01T00:00:00+00:00"',
        ),
    ],
)
async def test_what_is_in_force_cannot_be_changed_or_dropped(database, parts, told):
    await database.write(record_prices, listed(*OLD), now=NOW)
    with pytest.raises(Conflict) as caught:
        await database.write(record_prices, listed(*parts), now=NOW)
    assert told in caught.value.message
    assert caught.value.code == "price_book_changed"
    assert await names(database) == sorted(each.name for each in listed(*OLD).entries())
    await database.write(record_prices, listed(*OLD), now=LATER)


async def test_another_currency_is_a_change_of_every_book(database):
    await database.write(record_prices, listed(*OLD), now=NOW)
    with pytest.raises(Conflict) as caught:
        await database.write(record_prices, listed(*OLD, currency="EUR"), now=NOW)
    assert caught.value.message.count('currency was "USD" and is now "EUR"') == 2


async def test_what_is_not_in_force_yet_may_change_and_go(database):
    await database.write(record_prices, listed(*OLD, book("c", FAR), terms(FAR, name="beta")), now=NOW)
    changed = listed(*OLD, book("c", FAR, 'requests = "9"'))
    await database.write(record_prices, changed, now=NOW)
    rows = await database.read(lambda c: dict(c.execute(select(price_books.c.name, price_books.c.content)).all()))
    assert sorted(rows) == ["book/a", "book/b", "book/c", "terms/acme/20260301T000000.000000Z"]
    assert rows["book/c"] == content(changed.books[2])
    # Once its day has come, even one that was never recorded again is what it was when it came into force.
    with pytest.raises(Conflict, match=r"prices\.requests\.\* was \"9\" and is now \"8\""):
        await database.write(
            record_prices, listed(*OLD, book("c", FAR, 'requests = "8"')), now=datetime(2999, 1, 2, tzinfo=UTC)
        )


@pytest.mark.parametrize(
    ("final", "parts", "told"),
    [
        (None, (OLD[0], book("x", "2026-05-01"), *OLD[1:]), "book/x is new and reaches back before 2026-06-01"),
        (
            "2025-12",
            (*OLD[:2], terms("2026-02-01"), OLD[2]),
            "terms/acme/20260201T000000.000000Z is new and reaches back before 2026-03-01",
        ),
        (
            "2026-09",
            (*OLD[:2], OLD[2], book("x", "2026-09-15")),
            "book/x is new and reaches back before 2026-10-01T00:00:00+00:00, where statements are final",
        ),
        (
            "2026-09",
            (*OLD, terms("2026-09-30", name="beta")),
            "terms/beta/20260930T000000.000000Z is new and reaches back before 2026-10-01",
        ),
    ],
)
async def test_what_is_new_does_not_reach_back_before_others_or_into_a_final_month(database, final, parts, told):
    await database.write(record_prices, listed(*OLD), now=NOW)
    if final is not None:
        await database.write(make_final, final)
    with pytest.raises(Conflict) as caught:
        await database.write(record_prices, listed(*parts), now=NOW)
    assert told in caught.value.message
    assert len(await names(database)) == 3


async def test_what_is_new_may_begin_in_a_month_that_is_not_final(database):
    await database.write(record_prices, listed(*OLD), now=NOW)
    await database.write(make_final, "2026-09")
    new = (book("c", "2026-10-01"), terms("2026-10-01"), terms("2026-11-20", name="beta"))
    await database.write(record_prices, listed(*OLD, *new), now=NOW)
    assert len(await names(database)) == 6


async def test_a_pending_book_cannot_be_moved_back_into_a_final_month(database):
    await database.write(record_prices, listed(*OLD, book("c", FAR)), now=NOW)
    await database.write(make_final, "2026-09")
    with pytest.raises(Conflict, match="book/c is new and reaches back"):
        await database.write(record_prices, listed(*OLD, book("c", "2026-08-01")), now=NOW)


async def test_gateways_that_start_at_once_with_the_same_list_all_do(database):
    books = listed(*OLD, book("c", FAR))
    await asyncio.gather(*(database.write(record_prices, books, now=NOW) for _ in range(8)))
    assert len(await names(database)) == 4


async def test_of_gateways_that_start_at_once_with_different_lists_one_is_refused(database):
    lists = [listed(book("a", "2026-01-01", f'requests = "{price}"')) for price in (1, 2)]
    ends = await asyncio.gather(
        *(database.write(record_prices, books, now=NOW) for books in lists), return_exceptions=True
    )
    assert sorted(type(end).__name__ for end in ends) == ["Conflict", "NoneType"]
    kept = await database.read(lambda c: c.scalar(select(price_books.c.content)))
    assert kept == content(lists[ends.index(None)].books[0])


async def test_the_database_itself_keeps_what_is_in_force(database):
    await database.write(record_prices, listed(*OLD), now=NOW)
    for change in (update(price_books).values(content="{}"), price_books.delete()):
        with pytest.raises(DBAPIError, match="price_books are final"):
            await database.write(lambda c, change=change: c.execute(change))
    assert await database.read(lambda c: c.scalar(select(func.count()).select_from(price_books))) == 3


def version(server):
    with server.client() as roost:
        return roost.prices()["version"]


def make_final(connection, month):
    row = {"id": f"acme-{month}", "tenant": "acme", "month": month, "kind": "statement", "currency": "USD"}
    row |= {"total": "0.00", "inputs_hash": "0" * 64, "document": "{}", "finalized_at": NOW}
    connection.execute(insert(statements).values(row))


def test_a_server_does_not_start_with_a_file_that_changed_what_is_in_force(tmp_path):
    prices = tmp_path / "prices.toml"
    server = RoostProcess(tmp_path, ROOST_PRICES=str(prices))
    prices.write_text('currency = "USD"\n' + OLD[0])
    with server:
        assert version(server) == "a"
        assert server.stop() == 0
        prices.write_text('currency = "USD"\n' + book("a", "2026-01-01", 'requests = "0.30"'))
        server.spawn()
        assert server.process.wait(START_LIMIT_S) == 1
        assert 'book/a: prices.requests.* was "0.20" and is now "0.30"' in server.log_tail()
        assert "Traceback" not in server.log_tail()
        prices.write_text('currency = "USD"\n' + "".join(OLD[:2]))
        server.start()
        assert version(server) == "b"
        assert server.stop() == 0
