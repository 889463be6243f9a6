"""Keeps this gateway's directory and engine in step with what other gateways on the same database change."""

import asyncio
import logging

from roost_gateway.access.tenants import Tenants
from roost_gateway.deployments.deployments import Deployments
from roost_platform.database.changes import Change, ChangeFeed
from roost_platform.database.connection import Database
from roost_platform.domain.errors import RoostError
from roost_platform.domain.services import ServiceKey

log = logging.getLogger(__name__)


class Following:
    """What others change is done here within a second; after an outage, all that was missed."""

    def __init__(
        self,
        *,
        database: Database,
        tenants: Tenants,
        deployments: Deployments,
        poll_s: float = 0.5,
        retry_s: float = 0.5,
    ) -> None:
        """`poll_s`: how late a change is seen when its notification is lost; `retry_s`: pause after the database failed."""
        self._tenants = tenants
        self._deployments = deployments
        self._retry_s = retry_s
        self._feed = ChangeFeed(database, on_change=self._follow, on_gap=self._catch_up, poll_s=poll_s)
        self._reloads: dict[str, asyncio.Task[None]] = {}
        self._changed: set[str] = set()

    async def run(self) -> None:
        """Follow until cancelled; returns at once with SQLite, where nobody else changes anything."""
        try:
            await self._feed.run()
        finally:
            for task in self._reloads.values():
                task.cancel()
            await asyncio.gather(*self._reloads.values(), return_exceptions=True)

    def _follow(self, change: Change) -> None:
        if change.model:
            self._deployments.follow(ServiceKey(change.tenant, change.model))
            return
        self._changed.add(change.tenant)
        if change.tenant not in self._reloads:
            self._reloads[change.tenant] = asyncio.create_task(self._reload(change.tenant))

    async def _catch_up(self) -> None:
        for tenant in await self._tenants.outdated():
            self._follow(Change(tenant))
        for key in await self._deployments.outdated():
            self._deployments.follow(key)

    async def _reload(self, tenant: str) -> None:
        """One at a time for each tenant; nobody waits for it, so it goes on until it has worked."""
        try:
            while tenant in self._changed:
                self._changed.discard(tenant)  # before the look: a change that comes meanwhile asks for another one
                try:
                    await self._tenants.reload(tenant)
                except RoostError as error:
                    log.warning("tenant_not_reloaded", extra={"tenant": tenant, "reason": error.message})
                    self._changed.add(tenant)
                    await asyncio.sleep(self._retry_s)
        finally:
            self._reloads.pop(tenant, None)
