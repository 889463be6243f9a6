"""Which gateways share this database: each says once a second that it lives, and learns how many do.

What a tenant may send is divided by that number, for each gateway admits its share. The figure lags: a gateway that begins
counts itself at once and is counted by the others within two seconds, one that stops is taken out as it goes, one that dies
after five seconds. While the database is away, everybody goes on with the last figure.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable

from sqlalchemy import Connection, delete, func, select, text
from sqlalchemy.dialects.postgresql import insert

from roost_platform.database.connection import Database
from roost_platform.database.tables import gateways
from roost_platform.domain.errors import RoostError

log = logging.getLogger(__name__)

_BEAT_S = 1.0
_ALIVE_S = 5
_FORGOTTEN_S = 60


class Gateways:
    """One gateway among the others. With SQLite it is alone, and nothing is written."""

    def __init__(self, database: Database, *, url: str, on_count: Callable[[int], None]) -> None:
        """`url`: where this one is reached, for people who look. `on_count` hears the number of gateways, this one
        included, whenever it has been counted.
        """
        self.name = secrets.token_hex(8)
        self._database = database
        self._url = url
        self._on_count = on_count

    async def join(self) -> None:
        """Be counted, and count. Before the first request is let in. Raises Unavailable."""
        if self._database.shared:
            self._on_count(await self._database.write(_beat, self.name, self._url))

    async def run(self) -> None:
        """Say each second that this gateway lives, until cancelled; returns at once with SQLite."""
        while self._database.shared:
            await asyncio.sleep(_BEAT_S)
            try:
                await self.join()
            except RoostError as error:
                log.debug("not_counted", extra={"reason": error.message})

    async def leave(self) -> None:
        """Let the others have this one's share at once; when the database is away, they find out by themselves."""
        if not self._database.shared:
            return
        try:
            await self._database.write(_remove, self.name)
        except RoostError as error:
            log.debug("not_counted_out", extra={"reason": error.message})


def _beat(connection: Connection, name: str, url: str) -> int:
    """All times are the server's: gateways' clocks need not agree."""
    row = insert(gateways).values(name=name, url=url[:255], seen_at=func.now())
    connection.execute(row.on_conflict_do_update(index_elements=[gateways.c.name], set_={"seen_at": func.now()}))
    seen = gateways.c.seen_at
    connection.execute(delete(gateways).where(seen < func.now() - text(f"interval '{_FORGOTTEN_S} seconds'")))
    living = select(func.count()).where(seen > func.now() - text(f"interval '{_ALIVE_S} seconds'"))
    return max(1, connection.scalar(living) or 0)


def _remove(connection: Connection, name: str) -> None:
    connection.execute(delete(gateways).where(gateways.c.name == name))
