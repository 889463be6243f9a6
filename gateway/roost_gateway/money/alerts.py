"""Tells somebody of budgets' alerts: each is POSTed to the operator's URL as a CloudEvent until it was taken.

An alert is a row before anybody is told, so it outlives this process; it is delivered at least once, and the same
alert always is the same event (`source`, `id`), by which a receiver knows it again. Any 2xx answer takes it. Everything
else, a redirect among it, is a failure: it is tried again after 1 s, 2 s, 4 s … an hour.
"""

import asyncio
import json
import logging
from asyncio import timeout
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from roost_gateway.client import is_loopback
from roost_gateway.money.budget_figures import BudgetFigures
from roost_platform.billing.budget_store import note_tries, undelivered
from roost_platform.billing.budgets import Alert
from roost_platform.database.connection import Database
from roost_platform.domain.errors import RoostError

log = logging.getLogger(__name__)

EVENT_TYPE = "io.roost.budget.alert.v1"
_AT_ONCE = 20


def event_of(alert: Alert, *, source: str) -> dict[str, Any]:
    """The alert as a CloudEvent 1.0, made of the row alone: the same each time it is sent. Money is decimal strings."""
    return {
        "specversion": "1.0",
        "id": alert.id,
        "source": source,
        "type": EVENT_TYPE,
        "subject": f"tenant/{alert.tenant}",
        "time": alert.at.isoformat(),
        "datacontenttype": "application/json",
        "data": {
            "tenant": alert.tenant,
            "month": alert.month,
            "threshold_percent": alert.threshold,
            "budget": str(alert.amount),
            "spent": str(alert.spent),
            "currency": alert.currency,
        },
    }


class Webhook:
    """Where alerts go. The URL may hold a secret: it is in no log and no error."""

    def __init__(self, url: str, *, source: str, timeout_s: float = 10.0) -> None:
        """`source`: of the events; a URI-reference, the same for all gateways. `timeout_s`: for the whole of one delivery."""
        import httpx  # noqa: PLC0415 - slow to import, and most have no webhook

        self._url = url
        self._source = source
        self._timeout_s = timeout_s
        self._http = httpx.AsyncClient(timeout=timeout_s, follow_redirects=False, trust_env=not is_loopback(url))

    async def send(self, alert: Alert) -> str | None:
        """None when it was taken, else why not, in a word or two."""
        return await self.post(event_of(alert, source=self._source))

    async def post(self, event: Mapping[str, Any]) -> str | None:
        """Send any CloudEvent; as `send`."""
        body = json.dumps(event).encode()
        headers = {"Content-Type": "application/cloudevents+json; charset=utf-8"}
        try:
            async with (
                timeout(self._timeout_s),
                self._http.stream("POST", self._url, content=body, headers=headers) as response,
            ):
                return None if response.is_success else f"answered {response.status_code}"  # its body is not read
        except TimeoutError:
            return "no answer in time"
        except Exception as error:  # noqa: BLE001 - whatever a client and a strange server make of each other
            return type(error).__name__

    async def close(self) -> None:
        await self._http.aclose()


class AlertDelivery:
    """The loop that sends what is due."""

    def __init__(
        self,
        *,
        database: Database,
        webhook: Webhook,
        figures: BudgetFigures,
        alerted: asyncio.Event,
        leads: Callable[[], bool],
        clock: Callable[[], datetime],
        interval_s: float = 1.0,
    ) -> None:
        """`alerted` is set when there may be something new; `interval_s`: how often is looked for what is due again."""
        self._database = database
        self._webhook = webhook
        self._figures = figures
        self._alerted = alerted
        self._leads = leads
        self._clock = clock
        self._interval_s = interval_s

    async def run(self) -> None:
        """Send while this gateway leads, until cancelled. Outages are logged and outlasted."""
        try:
            while True:
                self._alerted.clear()
                if self._leads():
                    try:
                        await self.deliver()
                    except RoostError as error:
                        log.warning("budget_alerts_not_sent", extra={"reason": error.message})
                    except Exception:  # a mistake with one alert must not be the end of all
                        log.exception("budget_alerts_not_sent")
                with suppress(TimeoutError):
                    async with timeout(self._interval_s):
                        await self._alerted.wait()
        finally:
            await self._webhook.close()

    async def deliver(self) -> None:
        """Send once what is due now, several at a time. Raises RoostError."""
        alerts = await self._database.read(undelivered, self._clock(), limit=_AT_ONCE)
        failures = await asyncio.gather(*(self._webhook.send(alert) for alert in alerts))
        for alert, failure in zip(alerts, failures, strict=True):
            about = {"tenant": alert.tenant, "month": alert.month, "threshold": alert.threshold}
            if failure is None:
                log.info("budget_alert_delivered", extra=about)
            else:
                self._figures.failed_deliveries += 1
                log.warning("budget_alert_not_delivered", extra=about | {"reason": failure, "tries": alert.tries + 1})
        if alerts:
            outcomes = {alert: failure is None for alert, failure in zip(alerts, failures, strict=True)}
            await self._database.write(note_tries, outcomes, self._clock())
