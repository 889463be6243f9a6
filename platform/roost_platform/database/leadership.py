"""One gateway of several leads: it alone does the background work that must not be done twice at once.

The leader holds an advisory lock of PostgreSQL on a connection of its own and says each second that it lives. The server
ends a connection that says nothing for six seconds, whatever became of the other end (killed, cut off, hung), and the lock
is free. A leader counts itself out one second earlier than that, by its own clock: so there are never two.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from roost_platform.database.backends import Session
from roost_platform.database.connection import Database
from roost_platform.domain.errors import RoostError

log = logging.getLogger(__name__)

_LOCK = 0x526F6F7374_03
_BEAT_S = 1.0
_HELD_S = 5.0
_SERVER_ENDS_IT = "6s"


class Leadership:
    """Stands for election while `run` does. With SQLite there is one gateway, and it leads."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds; it goes on while this process is stopped."""
        self._database = database
        self._clock = clock
        self._until = float("-inf")

    @property
    def held(self) -> bool:
        """Whether this gateway leads now. Ask before each piece of work: a second can be enough to lose it."""
        return not self._database.shared or self._clock() < self._until

    async def run(self) -> None:
        """Lead whenever nobody else does, until cancelled; returns at once with SQLite."""
        while self._database.shared:
            try:
                async with self._database.session("leader", idle_session_timeout=_SERVER_ENDS_IT) as session:
                    await self._stand(session)
            except RoostError as error:
                log.debug("leadership_out_of_reach", extra={"reason": error.message})
            finally:
                if self._until > float("-inf"):
                    log.info("leading_ended")
                self._until = float("-inf")
            await asyncio.sleep(_BEAT_S)

    async def _stand(self, session: Session) -> None:
        leading = False
        while True:
            asked = self._clock()
            if leading:
                await session.run("SELECT 1")
            else:
                ((leading,),) = await session.run("SELECT pg_try_advisory_lock(%s)", (_LOCK,))
                if leading:
                    log.info("leading")
            if leading:
                self._until = asked + _HELD_S
            await session.heard(_BEAT_S)  # nothing is ever told here, but a closed connection is noticed at once
