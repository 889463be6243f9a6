"""SQLite: a file of one process, with one writer."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError

from roost_platform.database.backends import Backend, Session, disk_full, no_answer
from roost_platform.domain.errors import Unavailable

_READERS = 2

T = TypeVar("T")


class Sqlite(Backend):
    """SQLite allows one writer; giving it one thread makes that a rule instead of a lock error."""

    shared = False
    writers = 1
    readers = _READERS
    answer_s = None

    def __init__(self, url: URL, *, lock_wait_s: float) -> None:
        self.engine = self.reading = _make_engine(url, lock_wait_s)
        # The lock is taken at the start of a writing transaction: taken later, it could not be waited for.
        self.writing = self.engine.execution_options(sqlite_begin="IMMEDIATE")
        self._file = _File(self.engine)

    def run(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        self._file.check()
        try:
            with engine.begin() as connection:
                return work(connection)
        except OperationalError as error:
            raise (disk_full() if "full" in str(error.orig) else no_answer()) from error

    def session(self, *, name: str, settings: Mapping[str, str]) -> AbstractAsyncContextManager[Session]:
        raise NotImplementedError("nobody else uses this database")


class _File:
    """A SQLite file under its name. Once removed or replaced, it takes writes that nobody will ever find again."""

    def __init__(self, engine: Engine) -> None:
        named = engine.url.database
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


def _make_engine(url: URL, lock_wait_s: float) -> Engine:
    engine = create_engine(url, connect_args={"timeout": lock_wait_s}, pool_size=_READERS + 1)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver's own transaction handling is off; `begin` below rules
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "recursive_triggers=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get('sqlite_begin', 'DEFERRED')}")

    return engine
