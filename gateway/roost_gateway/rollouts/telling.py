"""Tells somebody of what rollouts decide: each event is POSTed to the operator's URL as a CloudEvent until it was taken.

As with budgets' alerts: an event is a row before anybody is told, it is delivered at least once, and the same decision is
the same event (`source`, `id`) each time. Any 2xx answer takes it; else it is tried again after 1 s, 2 s, 4 s … an hour.
"""

import asyncio
import logging
from asyncio import timeout
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

from roost_gateway.money.alerts import Webhook
from roost_gateway.rollouts import store
from roost_gateway.rollouts.store import Told
from roost_platform.database.connection import Database
from roost_platform.domain.errors import RoostError

log = logging.getLogger(__name__)

_AT_ONCE = 20


def event_of(told: Told, *, source: str) -> dict[str, Any]:
    """One decision as a CloudEvent 1.0, made of its row alone."""
    event = told.event
    return {
        "specversion": "1.0",
        "id": f"rollout-{told.rollout}-{event.id}",
        "source": source,
        "type": f"io.roost.rollout.{event.what}.v1",
        "subject": f"tenant/{told.key.tenant}/model/{told.key.model}",
        "time": event.at.isoformat(),
        "datacontenttype": "application/json",
        "data": {
            "tenant": told.key.tenant,
            "model": told.key.model,
            "rollout": told.rollout,
            "by": event.by,
            **event.facts,
        },
    }


class Telling:
    """The loop that sends what is due."""

    def __init__(
        self,
        *,
        database: Database,
        webhook: Webhook,
        source: str,
        leads: Callable[[], bool],
        clock: Callable[[], datetime],
        interval_s: float = 1.0,
    ) -> None:
        """`source`: of the events, a URI reference. `interval_s`: how often is looked for what is due again."""
        self.rung = asyncio.Event()
        """Set when there may be something new."""
        self._database = database
        self._webhook = webhook
        self._source = source
        self._leads = leads
        self._clock = clock
        self._interval_s = interval_s

    async def run(self) -> None:
        """Send while this gateway leads, until cancelled. Outages are logged and outlasted."""
        try:
            while True:
                self.rung.clear()
                if self._leads():
                    try:
                        await self.deliver()
                    except RoostError as error:
                        log.warning("rollout_events_not_sent", extra={"reason": error.message})
                    except Exception:  # a mistake with one event must not be the end of all
                        log.exception("rollout_events_not_sent")
                with suppress(TimeoutError):
                    async with timeout(self._interval_s):
                        await self.rung.wait()
        finally:
            await self._webhook.close()

    async def deliver(self) -> None:
        """Send once what is due now, in its order. Raises RoostError."""
        due = await self._database.read(store.untold, self._clock(), limit=_AT_ONCE)
        outcomes: dict[int, tuple[int, bool]] = {}
        for told in due:
            failure = await self._webhook.post(event_of(told, source=self._source))
            outcomes[told.event.id] = (told.tries + 1, failure is None)
            if failure is not None:
                about = {"tenant": told.key.tenant, "model": told.key.model, "rollout": told.rollout}
                log.warning("rollout_event_not_delivered", extra=about | {"reason": failure, "tries": told.tries + 1})
        if outcomes:
            await self._database.write(store.note_tries, outcomes, self._clock())
