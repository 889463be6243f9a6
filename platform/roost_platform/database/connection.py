"""The database as the rest of the platform uses it: functions that get a connection, each run in a transaction on a thread.

SQLite (the default) belongs to one process; PostgreSQL is shared by several gateways. Either way the event loop never waits
for a disk or a network, and what goes wrong is one of the product's own errors.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, make_url

from roost_platform.database.backends import Backend, Session, no_answer
from roost_platform.domain.errors import InvalidRequest

LOCK_WAIT_S = 5.0
"""How long one write waits for a SQLite database that another program has locked; those behind it wait as well."""

ANSWER_S = 30.0
"""How long anyone waits for PostgreSQL, waiting for a thread included; longer than a statement may take there."""

P = ParamSpec("P")
T = TypeVar("T")


def sqlite_url(path: Path) -> str:
    return f"sqlite:///{path}"


class Database:
    """Runs work on a database given by URL (`sqlite:///…` or `postgresql://…`)."""

    def __init__(self, url: str, *, lock_wait_s: float = LOCK_WAIT_S, answer_s: float = ANSWER_S) -> None:
        """Connects to nothing yet. Raises InvalidRequest for a database of another kind, or without its driver."""
        self._backend = _backend(url, lock_wait_s, answer_s)
        self._writer = ThreadPoolExecutor(self._backend.writers, thread_name_prefix="db-writer")
        self._readers = ThreadPoolExecutor(self._backend.readers, thread_name_prefix="db-reader")

    @property
    def engine(self) -> Engine:
        return self._backend.engine

    @property
    def shared(self) -> bool:
        """Other gateways may use this database, too."""
        return self._backend.shared

    async def write(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work(connection, …)` in one transaction: committed when it returns, rolled back when it raises.

        On PostgreSQL it may run again after it was rolled back there, and Unavailable may leave open whether it was
        committed: doing it once more must do no harm.
        """
        return await self._run(self._backend.writing, self._writer, lambda c: work(c, *args, **kwargs))

    async def read(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work(connection, …)` beside the writers, on one state of the database; it must not write."""
        return await self._run(self._backend.reading, self._readers, lambda c: work(c, *args, **kwargs))

    async def _run(self, engine: Engine, pool: ThreadPoolExecutor, work: Callable[[Connection], T]) -> T:
        running = asyncio.get_running_loop().run_in_executor(pool, self._backend.run, engine, work)
        try:
            # Not `wait_for`: before Python 3.12 it forgets that its task was cancelled when the answer comes just then.
            async with asyncio.timeout(self._backend.answer_s):
                return await running
        except TimeoutError as error:
            raise no_answer() from error

    @asynccontextmanager
    async def exclusive(self, name: str) -> AsyncIterator[None]:
        """Only one gateway at a time is inside with this name; others wait. With SQLite there is but one: nothing is done.

        It ends with the connection: a gateway that dies holds nobody up, and one that loses its connection goes on without
        knowing. So this saves work and keeps files in step with rows; what must be unique has a constraint as well.
        Raises Unavailable when the database does not answer.
        """
        if not self.shared:
            yield
            return
        async with self.session("exclusive", statement_timeout="0", lock_timeout="0") as session:
            await session.lock(name)
            yield

    def session(self, name: str, **settings: str) -> AbstractAsyncContextManager[Session]:
        """A connection of its own to a shared database, for what lasts longer than a transaction.

        `settings` are the server's. Raises Unavailable when it cannot be had.
        """
        return self._backend.session(name=name, settings=settings)

    def close(self) -> None:
        """Wait for work under way, then close all connections."""
        self._writer.shutdown()
        self._readers.shutdown()
        self.engine.dispose()


def _backend(url: str, lock_wait_s: float, answer_s: float) -> Backend:
    """The kind that the URL names; the other one, and its driver, is not even imported."""
    parsed = make_url(url)
    kind = parsed.get_backend_name()
    if kind == "sqlite":
        from roost_platform.database.sqlite import Sqlite  # noqa: PLC0415

        return Sqlite(parsed, lock_wait_s=lock_wait_s)
    if kind not in ("postgresql", "postgres"):
        raise InvalidRequest(f"the database must be sqlite or postgresql, not {kind}", code="database_unknown")
    try:
        from roost_platform.database.postgres import Postgres  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise InvalidRequest(
            "PostgreSQL needs its driver: pip install 'roost[postgres]'", code="database_driver"
        ) from error
    return Postgres(parsed, answer_s=answer_s)
