"""PostgreSQL: shared by several gateways, and out of reach at times.

A transaction that the server certainly took back (a deadlock, a connection lost before COMMIT) is run again. When the
connection is lost at COMMIT, the server is asked what became of it; only when it cannot tell is the caller left in doubt.
"""

import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import errors
from sqlalchemy import URL, Connection, Engine, Row, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoneFree

from roost_platform.database.backends import Backend, Session, disk_full, no_answer
from roost_platform.database.postgres_session import PostgresSession, told_as_outage
from roost_platform.domain.errors import RoostError

_THREADS = 4
"""Writing, and as many reading: one that waits for a row which another gateway has locked holds up no other."""
_TRIES = 4
_PATIENCE_S = 5.0
"""How long a server that comes back is asked what became of a transaction."""

_CONNECT = {
    "connect_timeout": "5",
    "target_session_attrs": "read-write",  # after a failover: never the old primary, should it come back as a standby
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
_SERVER = {
    "statement_timeout": "25s",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "30s",
    # The server's side of a gateway that is gone with its machine: its locks are free again within ten seconds.
    "tcp_keepalives_idle": "4",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "2",
    "tcp_user_timeout": "8000",
    "client_connection_check_interval": "5s",
}
_TIMELINE = "substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"
"""Another one after each failover: on it, a number may belong to another transaction."""
_RECEIPT = text(f"SELECT pg_current_xact_id_if_assigned()::text AS number, {_TIMELINE} AS timeline")
_FATE = text(f"SELECT pg_xact_status(CAST(:number AS xid8)) AS status, {_TIMELINE} AS timeline")

_OUTAGE = (psycopg.OperationalError, psycopg.InterfaceError, errors.ReadOnlySqlTransaction)

T = TypeVar("T")


class _InDoubtError(Exception):
    """The connection was lost at COMMIT, and nobody can tell what became of the transaction."""


class Postgres(Backend):
    shared = True
    writers = readers = _THREADS

    def __init__(self, url: URL, *, answer_s: float) -> None:
        """`url`: any PostgreSQL URL; what it says of connecting goes before what is chosen here."""
        self.answer_s = answer_s
        self.engine = create_engine(
            url.set(drivername="postgresql+psycopg"),
            connect_args=_arguments(url, "roost", {}),
            pool_size=self.writers + self.readers,
            max_overflow=0,
            pool_timeout=answer_s,
            pool_pre_ping=True,
        )
        self.writing = self.engine
        self.reading = self.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    def run(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        for left in reversed(range(_TRIES)):
            try:
                return _run_once(engine, work)
            except (NoneFree, _InDoubtError) as error:
                raise no_answer() from error
            except DBAPIError as error:
                refusal = _refusal(error)
                if refusal is None:
                    raise
                if isinstance(error.orig, errors.ReadOnlySqlTransaction) and engine is self.writing:
                    self.engine.dispose()  # this server is no longer the primary: connect anew, to the one that is
                if not left or not _is_taken_back(error):
                    raise refusal from error
            time.sleep(random.uniform(0.01, 0.1))  # noqa: S311 - two that met must not meet again
        raise AssertionError("the last try returns or raises")

    @asynccontextmanager
    async def session(self, *, name: str, settings: Mapping[str, str]) -> AsyncIterator[Session]:
        url = self.engine.url
        _, arguments = self.engine.dialect.create_connect_args(url)
        chosen = _arguments(url, f"roost {name}", settings)
        with told_as_outage():
            connection = await psycopg.AsyncConnection.connect(**{**arguments, **chosen}, autocommit=True)
        try:
            yield PostgresSession(connection)
        finally:
            await connection.close()


def _arguments(url: URL, name: str, settings: Mapping[str, str]) -> dict[str, Any]:
    """Arguments of libpq; what the URL says comes last, and so rules."""
    given = {key: value for key, value in url.query.items() if isinstance(value, str) and key != "host"}
    options = " ".join(f"-c {key}={value}" for key, value in {**_SERVER, **settings}.items())
    return {
        **_CONNECT,
        "application_name": name,
        **given,
        "options": f"{options} {given.get('options', '')}".strip(),
    }


def _run_once(engine: Engine, work: Callable[[Connection], T]) -> T:
    only_reads = "postgresql_readonly" in engine.get_execution_options()
    with engine.connect() as connection:
        transaction = connection.begin()
        try:
            result = work(connection)
            receipt = None if only_reads else connection.execute(_RECEIPT).one()
        except BaseException:
            transaction.rollback()
            raise
        try:
            transaction.commit()
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            lost = error
        else:
            return result
    status = _fate(engine, receipt) if receipt is not None and receipt.number is not None else "committed"
    if status is None:
        raise _InDoubtError from lost
    if status != "committed":
        raise lost
    return result


def _fate(engine: Engine, receipt: Row[Any]) -> str | None:
    """What became of a transaction: `committed` or `aborted`; None when it cannot be known."""
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end:
        try:
            with engine.connect() as connection:
                now = connection.execute(_FATE, {"number": receipt.number}).one()
        except (DBAPIError, NoneFree):
            time.sleep(0.1)
            continue
        if now.timeline != receipt.timeline:
            return None
        if now.status != "in progress":  # which it is until the server has noticed that its client is gone
            return str(now.status) if now.status else None
        time.sleep(0.1)
    return None


def _is_taken_back(error: DBAPIError) -> bool:
    """A connection that is lost before COMMIT takes its transaction along."""
    met_another = (errors.SerializationFailure, errors.DeadlockDetected)
    return error.connection_invalidated or isinstance(error.orig, met_another)


def _refusal(error: DBAPIError) -> RoostError | None:
    """What to say of it; None for a mistake of ours, or a constraint."""
    if isinstance(error.orig, errors.DiskFull) or "No space left on device" in str(error.orig):
        return disk_full()
    return no_answer() if error.connection_invalidated or isinstance(error.orig, _OUTAGE) else None
