"""The database as the rest of the platform uses it: one writer, some readers, functions that get a connection.

SQLite allows one writer; giving it one thread makes that a rule instead of a lock error. Work is a plain function of a
SQLAlchemy connection, run in a transaction on a thread, so that the event loop never waits for a disk.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError

from roost_platform.domain.errors import StorageFull, Unavailable

_READERS = 2

LOCK_WAIT_S = 5.0
"""How long one write waits for a SQLite database that another program has locked; those behind it wait as well."""

P = ParamSpec("P")
T = TypeVar("T")


def sqlite_url(path: Path) -> str:
    return f"sqlite:///{path}"


class Database:
    """Runs work on a database given by URL (`sqlite:///…` or `postgresql+psycopg://…`)."""

    def __init__(self, url: str, *, lock_wait_s: float = LOCK_WAIT_S) -> None:
        self._engine = _make_engine(url, lock_wait_s)
        self._file = _File(self._engine)
        # The lock is taken at the start of a writing transaction: taken later, it could not be waited for.
        self._writing = self._engine.execution_options(sqlite_begin="IMMEDIATE")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="db-writer")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="db-reader")

    @property
    def engine(self) -> Engine:
        return self._engine

    async def write(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work(connection, …)` in one transaction: committed when it returns, rolled back when it raises."""
        return await self._run(self._writing, self._writer, lambda connection: work(connection, *args, **kwargs))

    async def read(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work(connection, …)` beside the writer; it must not write."""
        return await self._run(self._engine, self._readers, lambda connection: work(connection, *args, **kwargs))

    async def _run(self, engine: Engine, pool: ThreadPoolExecutor, work: Callable[[Connection], T]) -> T:
        def transaction() -> T:
            self._file.check()
            with engine.begin() as connection:
                return work(connection)

        try:
            return await asyncio.get_running_loop().run_in_executor(pool, transaction)
        except OperationalError as error:
            if "full" in str(error.orig):
                raise StorageFull("the disk that holds the database is full") from error
            raise Unavailable("the database does not answer right now", code="database", retry_after_s=1) from error

    def close(self) -> None:
        """Wait for work under way, then close all connections."""
        self._writer.shutdown()
        self._readers.shutdown()
        self._engine.dispose()


class _File:
    """A SQLite file under its name. Once removed or replaced, it takes writes that nobody will ever find again."""

    def __init__(self, engine: Engine) -> None:
        named = engine.url.database if engine.dialect.name == "sqlite" else None
        self._path = Path(named) if named and not named.startswith((":", "file:")) else None
        self._identity: tuple[int, int] | None = None

    def check(self) -> None:
        """Raises Unavailable when the file is not the one that was there at first."""
        if self._path is None:
            return
        try:
            found = self._path.stat()
        except FileNotFoundError:
            identity = None
        else:
            identity = (found.st_dev, found.st_ino)
        if self._identity is None:
            self._identity = identity
        elif identity != self._identity:
            raise Unavailable(
                "the database's file was removed or replaced; nothing can be stored until the server is restarted",
                code="database",
                retry_after_s=5,
            )


def _make_engine(url: str, lock_wait_s: float) -> Engine:
    if not url.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(url, connect_args={"timeout": lock_wait_s}, pool_size=_READERS + 1)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver's own transaction handling is off; `begin` below rules
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get('sqlite_begin', 'DEFERRED')}")

    return engine
