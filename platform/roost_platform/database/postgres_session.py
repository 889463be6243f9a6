"""A connection to PostgreSQL that is used from the event loop, without a thread: for notifications and locks that last."""

import asyncio
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from roost_platform.database.backends import Session, no_answer

_ANSWER_S = 3.0


class PostgresSession(Session):
    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection

    async def run(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return await self._run(statement, parameters, within_s=_ANSWER_S)

    async def heard(self, timeout_s: float) -> bool:
        with told_as_outage():
            async for _ in self._connection.notifies(timeout=timeout_s, stop_after=1):
                return True
        return False

    async def lock(self, name: str) -> None:
        await self._run("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (name,), within_s=None)

    async def _run(self, statement: str, parameters: Sequence[Any], *, within_s: float | None) -> list[tuple[Any, ...]]:
        task = asyncio.ensure_future(self._execute(statement, parameters))
        try:
            await asyncio.wait([task], timeout=within_s)
            if not task.done():
                raise no_answer()
        finally:
            if not task.done():
                # The driver would ask the server to cancel, and wait for its answer: of a server that does not answer.
                self._cut()
                await asyncio.wait([task])
                task.exception()
        with told_as_outage():
            return task.result()

    async def _execute(self, statement: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        cursor = await self._connection.execute(statement, parameters or None)
        return await cursor.fetchall() if cursor.description else []

    def _cut(self) -> None:
        with socket.fromfd(self._connection.fileno(), socket.AF_INET, socket.SOCK_STREAM) as same:
            same.shutdown(socket.SHUT_RDWR)


@contextmanager
def told_as_outage() -> Iterator[None]:
    try:
        yield
    except (psycopg.Error, OSError) as error:
        raise no_answer() from error
