"""The parts that meter calls, put together: journal, shipper, and who sees to it that the books are closed and complete."""

import secrets
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any

from roost_gateway.metrics.journal import JournalFiguresCollector
from roost_gateway.settings import Settings
from roost_platform.database.connection import Database
from roost_platform.metering.auditing import Auditor
from roost_platform.metering.backlog import Backlog
from roost_platform.metering.journal import Journal
from roost_platform.metering.settling import Settler
from roost_platform.metering.shipper import Shipper


class Metering:
    """One run of a gateway: its journal is open from here until `stop`."""

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        leads: Callable[[], bool],
        clock: Callable[[], datetime],
        make_journal: Callable[..., Journal] = Journal,
    ) -> None:
        """`make_journal`: another one is for those who measure what metering costs. Raises OSError."""
        folder, chosen = settings.data / "journal", settings.metering
        self.backlog = backlog = Backlog(limit_bytes=chosen.backlog_bytes)
        self.journal = make_journal(
            folder,
            source=secrets.token_hex(8),
            sync_interval_s=chosen.sync_interval_s,
            limit_bytes=4 * chosen.backlog_bytes,  # calls are refused long before it comes to that
            backlog=backlog,
        )
        self.shipper = Shipper(
            journal_folder=folder, database=database, interval_s=chosen.ship_interval_s, backlog=backlog
        )
        self.settler = Settler(journal_folder=folder, database=database, clock=clock)
        self.auditor = Auditor(database=database, clock=clock, leads=leads)
        self.figures = JournalFiguresCollector(
            journal=self.journal, shipper=self.shipper, settler=self.settler, auditor=self.auditor
        )

    async def start(self) -> None:
        """Raises Unavailable or StorageFull."""
        await self.settler.begin(self.journal.source)

    def loops(self) -> tuple[Coroutine[Any, Any, None], ...]:
        return self.shipper.run(), self.settler.run(), self.auditor.run()

    async def stop(self) -> None:
        """Once no call is under way any more: bring all to the ledger, and close this run's books.

        Raises Unavailable or StorageFull when the database does not take it: the next start does it.
        """
        self.journal.close()
        await self.shipper.drain()
        await self.settler.settle()
