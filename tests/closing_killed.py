"""The billing job in a process of its own, killed at a statement of its own choosing."""

import asyncio
import multiprocessing
import os
import signal
from datetime import datetime
from typing import Any

from sqlalchemy import event

from closing_parts import Closer
from roost_platform.billing.months import parse_month
from roost_platform.database.connection import Database
from roost_platform.metering.hours import refresh

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["pytest", "closing_parts"])


def close_and_be_killed(url: str, tenant: str, *, at: str, after: bool, now: datetime) -> None:
    """Make October final; kill -9 when a statement that begins with `at` is reached, or is done (`after`)."""
    child = processes.Process(target=_close, args=(url, tenant, at, after, now))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL, "it never came so far"
    child.close()


def _close(url: str, tenant: str, at: str, after: bool, now: datetime) -> None:
    database = Database(url)

    def die(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith(at):
            os.kill(os.getpid(), signal.SIGKILL)

    def die_at_commit(connection: Any) -> None:
        if after:
            connection.connection.driver_connection.execute("COMMIT")
        os.kill(os.getpid(), signal.SIGKILL)

    def arm(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO statements"):
            event.listen(database.engine, "commit", die_at_commit)

    if at == "COMMIT":
        event.listen(database.engine, "after_cursor_execute", arm)
    else:
        event.listen(database.engine, "after_cursor_execute" if after else "before_cursor_execute", die)
    asyncio.run(job(database, tenant, now))


async def job(database: Database, tenant: str, now: datetime) -> None:
    """What the closing loop does for one tenant's October."""
    closer = Closer(database, now=now)
    while await database.write(refresh, 4, before=now):
        pass
    await closer.statements.finalize(tenant, parse_month("2026-10"))
