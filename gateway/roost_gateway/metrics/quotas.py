"""How much of their quotas tenants use, of those that fill up slowly: models and stored bytes. Told by the gateway that leads.

What is spent of a budget is told by `money.budget_figures`; limits of rate and of requests in flight are counted when they are
hit (`predict.figures`).
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable

from roost_gateway.access.directory import Directory
from roost_gateway.metrics.page import Page, Writer, labels_of
from roost_platform.domain.errors import RoostError

log = logging.getLogger(__name__)

INTERVAL_S = 60.0


class QuotaFigures(Writer):
    def __init__(
        self,
        *,
        directory: Directory,
        storage: Callable[[], Awaitable[dict[str, int]]],
        leads: Callable[[], bool],
        interval_s: float = INTERVAL_S,
    ) -> None:
        """`storage`: stored bytes by tenant; asked now and then, never by a scrape."""
        self._directory = directory
        self._storage = storage
        self._leads = leads
        self._interval_s = interval_s
        self._stored: dict[str, int] | None = None  # None: this gateway does not tell

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            try:
                await self.look()
            except RoostError as error:  # the last figures stay
                log.warning("quotas_not_looked_at", extra={"reason": error.message})
            await asyncio.sleep(self._interval_s)

    async def look(self) -> None:
        """Raises RoostError."""
        self._stored = await self._storage() if self._leads() else None

    def write(self, page: Page) -> None:
        stored = self._stored
        if stored is None:
            return
        models = Counter(route.key.tenant for route in self._directory.routes())
        series: list[tuple[str, float]] = []
        for tenant in self._directory.tenants():
            for quota, used, limit in (
                ("models", models[tenant.name], tenant.quota.models),
                ("storage", stored.get(tenant.name, 0), tenant.quota.storage_bytes),
            ):
                if limit:
                    series.append((labels_of(tenant=tenant.name, quota=quota), used / limit))
        page.gauge(
            "roost_stored_bytes",
            "Model files that are kept",
            ((labels_of(tenant=tenant.name), stored.get(tenant.name, 0)) for tenant in self._directory.tenants()),
        )
        page.gauge("roost_quota_used_ratio", "Part of a tenant's quota that is used", series)
