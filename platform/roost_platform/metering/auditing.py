"""Looks whether the ledger is complete: no sequence number of a closed run is missing, and its calls add up.

Each run is looked at once by each process, and again and again while something is wrong with it.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy.exc import SQLAlchemyError

from roost_platform.database.connection import Database
from roost_platform.domain.errors import RoostError
from roost_platform.metering.sources import (
    Balance,
    Counted,
    Finding,
    closed_since,
    count_events,
    judge,
    last_sequence,
    slices,
)

_LOOKED_AT = timedelta(days=35)
"""After it was closed: so long a month may still be corrected."""
_INTERVAL_S = 60.0
_log = logging.getLogger(__name__)


class Auditor:
    """Of several gateways the one that `leads` looks; the others' figures stay at 0."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Callable[[], datetime],
        leads: Callable[[], bool] = lambda: True,
        interval_s: float = _INTERVAL_S,
    ) -> None:
        self._database = database
        self._clock = clock
        self._leads = leads
        self._interval_s = interval_s
        self._well: set[str] = set()
        self._ill: dict[str, Finding] = {}

    @property
    def missing(self) -> int:
        """Sequence numbers that the ledger lacks. 0 is well."""
        return sum(finding.missing for finding in self._ill.values())

    @property
    def unaccounted(self) -> int:
        """Calls by which closed runs do not add up, either way. 0 is well."""
        return sum(abs(finding.unaccounted) for finding in self._ill.values())

    async def look(self) -> list[Finding]:
        """Look at the runs not known to be well; returns what is wrong. Raises Unavailable."""
        rows = await self._database.read(closed_since, self._clock() - _LOOKED_AT)
        sources = {row.source for row in rows}
        self._well &= sources
        self._ill = {source: finding for source, finding in self._ill.items() if source in sources}
        for row in rows:
            if row.source not in self._well:
                self._note(await self._look_at(row))
        return list(self._ill.values())

    async def run(self) -> None:
        """Look once per interval until cancelled. Failures are logged and tried again."""
        failing = False
        while True:
            try:
                if self._leads():
                    await self.look()
                failing = False
            except (RoostError, SQLAlchemyError):
                if not failing:  # once per outage
                    _log.exception("ledger_not_audited")
                failing = True
            await asyncio.sleep(self._interval_s)

    async def _look_at(self, row: Balance) -> Finding:
        last = await self._database.read(last_sequence, row.source)
        counted = Counted()
        for sequences in slices(last):
            counted += await self._database.read(count_events, row.source, sequences)
        return judge(row, counted, last)

    def _note(self, finding: Finding) -> None:
        if finding.well:
            self._ill.pop(finding.source, None)
            self._well.add(finding.source)
            return
        if self._ill.get(finding.source) != finding:  # once, and again when it changes
            figures = {"missing": finding.missing, "unaccounted": finding.unaccounted}
            _log.error("ledger_incomplete", extra={"source": finding.source, **figures})
        self._ill[finding.source] = finding
