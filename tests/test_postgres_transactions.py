"""Transactions on a PostgreSQL that cuts, delays and refuses: done once, or refused in words; never twice, never half."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from gateway_parts import until
from postgres_faults import PostgresProxy
from postgres_server import execute, shared_server
from roost_platform.database.connection import Database
from roost_platform.domain.errors import InvalidRequest, Unavailable


@asynccontextmanager
async def opened(url: str, **how: float) -> AsyncIterator[Database]:
    database = Database(url, **how)
    try:
        yield database
    finally:
        await asyncio.to_thread(database.close)


@pytest.fixture
def url(on_postgres: str) -> str:
    execute(on_postgres, "CREATE TABLE things (name TEXT PRIMARY KEY, number INTEGER NOT NULL)")
    return on_postgres


@pytest.fixture
def proxy(url: str):
    with PostgresProxy(shared_server().port) as made:
        yield made


def through(proxy: PostgresProxy, url: str) -> str:
    return url.replace(str(shared_server().port), str(proxy.port))


def put(connection: Connection, name: str = "one", number: int = 1) -> str:
    connection.execute(text("INSERT INTO things VALUES (:name, :number)"), {"name": name, "number": number})
    return name


def names(connection: Connection) -> list[str]:
    return list(connection.scalars(text("SELECT name FROM things ORDER BY name")))


@pytest.mark.parametrize("how", ["lost", "done"])
async def test_l10_a_connection_cut_at_commit_leaves_no_doubt_and_one_row(url: str, proxy: PostgresProxy, how: str):
    """Had it been committed, doing it again would be refused by the key; had it not, not doing it would lose the row."""
    async with opened(through(proxy, url)) as database:
        for number in range(3):
            proxy.cut_at_commit(how)
            assert await database.write(put, f"row {number}") == f"row {number}"
        assert proxy.commits_cut == 3
        assert await database.read(names) == ["row 0", "row 1", "row 2"]


async def test_l10_a_commit_whose_end_nobody_can_tell_is_refused_and_one_row_when_tried_again(
    url: str, proxy: PostgresProxy
):
    def upsert(connection: Connection) -> None:
        statement = "INSERT INTO things VALUES ('one', 1) ON CONFLICT DO NOTHING"
        connection.execute(text(statement))
        if first:
            proxy.refusing = True  # the server is out of reach right after
            proxy.cut_at_commit("done")

    async with opened(through(proxy, url)) as database:
        first = True
        with pytest.raises(Unavailable) as refused:
            await database.write(upsert)
        assert (refused.value.code, refused.value.retry_after_s) == ("database", 1)
        first = proxy.refusing = False
        await database.write(upsert)
        assert await database.read(names) == ["one"]


async def test_a_connection_lost_before_commit_is_not_noticed(url: str, proxy: PostgresProxy):
    lost = iter([True, False])

    def put_and_lose(connection: Connection) -> None:
        put(connection)
        if next(lost):
            proxy.reset()

    async with opened(through(proxy, url)) as database:
        await database.write(put_and_lose)
        proxy.reset()  # idle ones in the pool
        assert await database.read(names) == ["one"]


async def test_l10_a_slow_server_is_waited_for_and_one_that_is_too_slow_is_refused(url: str, proxy: PostgresProxy):
    proxy.slow_s = 0.2
    async with opened(through(proxy, url), answer_s=60) as database:
        await database.write(put, "patient")
    async with opened(through(proxy, url), answer_s=0.5) as database:
        with pytest.raises(Unavailable):
            await database.write(put, "refused, and done all the same")
    assert [row[0] for row in execute(url, "SELECT name FROM things ORDER BY name")] == [
        "patient",
        "refused, and done all the same",
    ], "what runs when its caller gives up comes to its end"


async def test_l10_a_server_out_of_reach_is_refused_at_once_and_found_again(url: str, proxy: PostgresProxy):
    async with opened(through(proxy, url)) as database:
        proxy.refusing = True
        proxy.reset()
        for work in (database.write(put), database.read(names)):
            with pytest.raises(Unavailable):
                await work
        proxy.refusing = False
        await database.write(put)
        assert await database.read(names) == ["one"]


async def test_two_that_wait_for_each_other_both_end(url: str):
    """PostgreSQL ends one of them; it is run again."""
    execute(url, "INSERT INTO things VALUES ('a', 0), ('b', 0)")
    both_hold_one = threading.Barrier(2)
    tries = []

    def add(connection: Connection, order: str) -> None:
        tries.append(order)
        add_one = text("UPDATE things SET number = number + 1 WHERE name = :name")
        connection.execute(add_one, {"name": order[0]})
        if len(tries) <= 2:
            both_hold_one.wait(30)
        connection.execute(add_one, {"name": order[1]})

    async with opened(url) as database:
        await asyncio.gather(database.write(add, "ab"), database.write(add, "ba"))
    assert len(tries) == 3
    assert execute(url, "SELECT name, number FROM things ORDER BY name") == [("a", 2), ("b", 2)]


async def test_a_read_sees_one_state_and_does_not_write(url: str):
    execute(url, "INSERT INTO things VALUES ('a', 0)")

    def twice(connection: Connection) -> bool:
        before = names(connection)
        execute(url, "INSERT INTO things VALUES ('b', 0)")
        return before == names(connection) == ["a"]

    async with opened(url) as database:
        assert await database.read(twice)
        with pytest.raises(Unavailable):
            await database.read(put)
        assert await database.read(names) == ["a", "b"]


async def test_mistakes_and_constraints_are_told_as_they_are(url: str):
    async with opened(url) as database:
        await database.write(put)
        with pytest.raises(DBAPIError, match="duplicate key"):
            await database.write(put)
        with pytest.raises(DBAPIError, match="does not exist"):
            await database.read(lambda c: c.execute(text("SELECT * FROM nothing")))
        with pytest.raises(ZeroDivisionError):
            await database.write(lambda _: 1 / 0)
        assert await database.read(names) == ["one"]


async def test_exclusive_is_one_at_a_time_across_gateways_and_ends_with_its_holder(url: str):
    async with opened(url) as one, opened(url) as other:
        inside: list[str] = []
        leave = asyncio.Event()

        async def enter(database: Database, name: str, who: str) -> None:
            async with database.exclusive(name):
                inside.append(who)
                await leave.wait()

        first = asyncio.create_task(enter(one, "digest/a", "first"))
        await until(lambda: bool(inside))
        second = asyncio.create_task(enter(other, "digest/a", "second"))
        third = asyncio.create_task(enter(other, "digest/b", "third"))
        await until(lambda: _waits_for_a_lock(url) and len(inside) == 2)
        assert inside == ["first", "third"]
        first.cancel()  # as good as dead: its connection is closed
        await until(lambda: len(inside) == 3)
        leave.set()
        await asyncio.gather(second, third)
        assert inside[2] == "second"


async def test_who_gives_up_waiting_for_the_lock_leaves_nothing(url: str):
    async with opened(url) as database:
        async with database.exclusive("x"):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3), database.exclusive("x"):
                    raise AssertionError("two inside")
        async with database.exclusive("x"):
            pass


def _waits_for_a_lock(url: str) -> bool:
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    return execute(url, waiting) == [(1,)]


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
async def test_urls_in_every_spelling_are_understood(url: str, scheme: str):
    async with opened(url.replace("postgresql", scheme, 1) + "?application_name=mine") as database:
        assert database.shared
        assert await database.read(lambda c: c.scalar(text("SHOW application_name"))) == "mine"
        async with database.session("aside") as session:
            assert await session.run("SELECT 1 + %s", (1,)) == [(2,)]


def test_other_databases_are_refused_in_words():
    with pytest.raises(InvalidRequest, match="sqlite or postgresql, not mysql"):
        Database("mysql://root@localhost/roost")
