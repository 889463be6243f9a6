"""How gateways on one PostgreSQL learn what the others changed: a numbered list of changes, and a nudge to look at it.

Whoever changes a tenant or a model says so in the same transaction (`note_change`). Numbers are given in the order of
commits, so whoever has read up to one has missed nothing before it. A nudge (NOTIFY) may be lost; then the next look finds
the change, `poll_s` later. With SQLite nobody else writes, and nothing is noted.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from sqlalchemy import Connection, delete, func, insert, text

from roost_platform.database.backends import Session
from roost_platform.database.connection import Database
from roost_platform.database.tables import changes

log = logging.getLogger(__name__)

_CHANNEL = "roost_changes"
_LOCK = 0x526F6F7374_02
"""The advisory lock (its key) that makes the order of numbers the order of commits."""
_KEPT_MINUTES = 10
_SILENT_S = 60.0
"""Whoever has not looked for so long, suspended say, reads everything again: rows may be gone by then."""
_RETRY_S = 0.5
_AT_ONCE = 1000


class Change(NamedTuple):
    """What must be read again: a model, or (with an empty name) the tenant itself and its keys."""

    tenant: str
    model: str = ""


def note_change(connection: Connection, tenant: str, model: str = "") -> None:
    """Tell all gateways of this change when it is committed. The last thing that a transaction does: others wait for it."""
    if connection.dialect.name != "postgresql":
        return
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    connection.execute(insert(changes).values(tenant=tenant, model=model))
    connection.execute(delete(changes).where(changes.c.at < func.now() - text(f"interval '{_KEPT_MINUTES} minutes'")))
    connection.execute(text("SELECT pg_notify(:channel, '')"), {"channel": _CHANNEL})


class ChangeFeed:
    """Follows the changes of all gateways, this one's own among them."""

    def __init__(
        self,
        database: Database,
        *,
        on_change: Callable[[Change], None],
        on_gap: Callable[[], Awaitable[None]],
        poll_s: float = 0.5,
    ) -> None:
        """`on_change` is called for each change, in their order; it must not wait. `on_gap` reads everything again: at
        first, and whenever changes may have been missed.
        """
        self._database = database
        self._on_change = on_change
        self._on_gap = on_gap
        self._poll_s = poll_s

    async def run(self) -> None:
        """Follow until cancelled; returns at once where nobody else changes anything. Outages are logged and outlasted."""
        failing = False
        while self._database.shared:
            try:
                async with self._database.session("changes") as session:
                    seen = await self._begin(session)
                    failing = False
                    await self._follow(session, seen)
            except Exception as error:  # noqa: BLE001 - whatever it was, a gateway that stopped following would go wrong quietly
                if not failing:  # once per outage
                    log.warning("changes_not_followed", extra={"reason": repr(error)})
                failing = True
                await asyncio.sleep(_RETRY_S)

    async def _begin(self, session: Session) -> int:
        """Listen, then count from here, then read everything: what comes in between is read twice, not missed."""
        await session.run(f"LISTEN {_CHANNEL}")
        ((last,),) = await session.run("SELECT coalesce(max(id), 0) FROM changes")
        await self._on_gap()
        return int(last)

    async def _follow(self, session: Session, seen: int) -> None:
        """Returns when it has not looked for too long."""
        looked = time.monotonic()
        while time.monotonic() - looked < _SILENT_S:
            looked = time.monotonic()
            query = f"SELECT id, tenant, model FROM changes WHERE id > %s ORDER BY id LIMIT {_AT_ONCE}"  # noqa: S608 - a number
            rows = await session.run(query, (seen,))
            for number, tenant, model in rows:
                seen = number
                self._on_change(Change(tenant, model))
            if len(rows) < _AT_ONCE:
                await session.heard(self._poll_s)
