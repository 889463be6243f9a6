"""The running month's money on the metrics page: what tenants and models have brought in so far, and what idle replicas cost.

All statements have to be made for that, so it is looked at now and then, by the gateway that leads, and by no scrape.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from decimal import Decimal
from time import perf_counter

from roost_gateway.access.directory import Directory
from roost_gateway.metrics.page import Page, Writer, labels_of
from roost_gateway.money.overview import Overview, TenantMonth
from roost_platform.domain.errors import RoostError

log = logging.getLogger(__name__)

_REST = 9
"""For so many times as long as a look took there is no other: however many tenants there are, it takes a tenth of a core at most."""


class MonthFigures(Writer):
    def __init__(
        self,
        *,
        directory: Directory,
        overview: Callable[[], Awaitable[Overview]],
        leads: Callable[[], bool],
        interval_s: float,
    ) -> None:
        """`overview`: of the running month, deleted tenants and models included: of the models, only those in `directory` are
        told, since names of deleted ones may be many. `interval_s`: least pause between two looks.
        """
        self._directory = directory
        self._overview = overview
        self._leads = leads
        self._interval_s = interval_s
        self._seen: Overview | None = None  # None: this gateway does not tell

    async def run(self) -> None:
        """Look again and again, until cancelled. Outages are logged and outlasted; the last figures stay meanwhile."""
        while True:
            begin = perf_counter()
            try:
                await self.look()
            except RoostError as error:
                log.warning("month_not_looked_at", extra={"reason": error.message})
            except Exception:  # a mistake in one look must not be the last of all looks
                log.exception("month_not_looked_at")
            await asyncio.sleep(max(self._interval_s, _REST * (perf_counter() - begin)))

    async def look(self) -> None:
        """Raises RoostError."""
        self._seen = await self._overview() if self._leads() else None

    def write(self, page: Page) -> None:
        seen = self._seen
        if seen is None:
            return
        amounts: tuple[tuple[str, str, Callable[[TenantMonth], Decimal]], ...] = (
            ("roost_month_revenue", "What the month comes to so far", lambda each: each.statement.total),
            ("roost_month_idle_worth", "What idle replicas cost so far", lambda each: each.idle.worth),
            ("roost_month_idle_billed", "What tenants pay for idle replicas so far", lambda each: each.idle.billed),
        )
        tenants = [
            (labels_of(tenant=each.statement.tenant, currency=each.statement.currency), each) for each in seen.tenants
        ]
        for name, text, amount_of in amounts:
            page.gauge(name, text, [(labels, float(amount_of(each))) for labels, each in tenants])
        models = {(key.tenant, key.model) for key in self._directory.keys_of_models()}
        page.gauge(
            "roost_month_model_revenue",
            "What the month comes to so far, by model",
            (
                (labels_of(tenant=tenant, model=model, currency=seen.currency), float(amount))
                for tenant, model, amount in seen.models()
                if (tenant, model) in models
            ),
        )
