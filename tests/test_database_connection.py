"""A database that is locked, read-only, moved or full: said in words, harmless, and over when it is over."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from roost_platform.database.connection import Database, sqlite_url
from roost_platform.database.migrations import migrate
from roost_platform.domain.errors import StorageFull, Unavailable


@asynccontextmanager
async def opened(url: str, **how: float) -> AsyncIterator[Database]:
    database = Database(url, **how)
    try:
        yield database
    finally:
        await asyncio.to_thread(database.close)


def make_table(connection: Connection) -> None:
    connection.execute(text("CREATE TABLE things (number INTEGER)"))


def add(connection: Connection, number: int = 1) -> None:
    connection.execute(text("INSERT INTO things VALUES (:number)"), {"number": number})


def count(connection: Connection) -> int:
    return connection.scalar(text("SELECT count(*) FROM things"))


async def test_a_lock_is_waited_for_and_then_told(tmp_path: Path):
    async with opened(sqlite_url(tmp_path / "a.db"), lock_wait_s=0.3) as database:
        await database.write(make_table)
        with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            begin = time.monotonic()
            with pytest.raises(Unavailable) as refused:
                await database.write(add)
            assert time.monotonic() - begin >= 0.3
            assert (refused.value.code, refused.value.retry_after_s) == ("database", 1)
            assert await database.read(count) == 0, "readers do not wait"
            other.execute("ROLLBACK")
        await database.write(add)
        assert await database.read(count) == 1


async def test_a_lock_that_goes_in_time_is_not_noticed(tmp_path: Path):
    async with opened(sqlite_url(tmp_path / "a.db"), lock_wait_s=60) as database:
        await database.write(make_table)
        with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            writing = asyncio.ensure_future(database.write(add))
            await asyncio.sleep(0.1)
            assert not writing.done()
            other.execute("ROLLBACK")
        await writing
        assert await database.read(count) == 1


async def test_a_database_that_may_only_be_read_refuses_writes(tmp_path: Path):
    async with opened(sqlite_url(tmp_path / "a.db")) as database:
        await database.write(make_table)
    async with opened(f"sqlite:///file:{tmp_path / 'a.db'}?mode=ro&uri=true") as database:
        assert await database.read(count) == 0
        with pytest.raises(Unavailable) as refused:
            await database.write(add)
        assert refused.value.code == "database"
        assert str(tmp_path) not in refused.value.message
        assert await database.read(count) == 0


@pytest.mark.parametrize("replaced", [False, True])
async def test_what_would_be_written_to_a_file_without_a_name_is_refused(tmp_path: Path, replaced: bool):
    file = tmp_path / "a.db"
    async with opened(sqlite_url(file)) as database:
        await database.write(make_table)
        await database.write(add)
        moved = {tmp_path / f"a.db{end}": tmp_path / f"kept{end}" for end in ("", "-wal", "-shm")}
        for found, to in moved.items():
            found.rename(to)
        if replaced:
            file.write_bytes(b"")
        for work in (database.write(add), database.read(count)):
            with pytest.raises(Unavailable, match="removed or replaced"):
                await work
        assert file.exists() == replaced
        file.unlink(missing_ok=True)
        for found, to in moved.items():
            to.rename(found)
        await database.write(add)
        assert await database.read(count) == 2


async def test_a_database_that_cannot_grow_says_that_the_disk_is_full(tmp_path: Path):
    async with opened(sqlite_url(tmp_path / "a.db")) as database:

        def fill(connection: Connection) -> None:
            connection.execute(text("PRAGMA max_page_count = 10"))
            for _ in range(100):
                connection.execute(text("INSERT INTO things VALUES (zeroblob(4096))"))

        await database.write(make_table)
        with pytest.raises(StorageFull):
            await database.write(fill)
        assert await database.read(count) == 0, "all or nothing"


def test_an_empty_database_beside_models_is_a_lost_one(tmp_path: Path):
    kept = tmp_path / "artifacts"
    (kept / "sha256" / "ab").mkdir(parents=True)
    database = Database(sqlite_url(tmp_path / "first.db"))
    migrate(database.engine, kept=kept)  # folders alone mean nothing
    migrate(database.engine, kept=kept)
    (kept / "sha256" / "ab" / "ab12").write_bytes(b"a model")
    migrate(database.engine, kept=kept)
    database.close()
    database = Database(sqlite_url(tmp_path / "second.db"))
    for _ in range(2):  # the first look has made the file
        with pytest.raises(Unavailable, match="artifacts") as refused:
            migrate(database.engine, kept=kept)
        assert refused.value.code == "database_lost"
        assert str(tmp_path) not in refused.value.message
    database.close()
