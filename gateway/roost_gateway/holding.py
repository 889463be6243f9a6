"""The parts that meter what tenants hold over time, put together: replicas, stored files and checks of uploads."""

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Iterator, Sequence
from datetime import datetime
from typing import Any, Self

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from roost_gateway.access.directory import Directory
from roost_gateway.metrics.cold_starts import ColdStartFigures
from roost_gateway.metrics.held import HeldFigures
from roost_gateway.settings import Settings
from roost_platform.database.connection import Database
from roost_platform.domain.resources import ResourceUsage
from roost_platform.metering.outbox import Outbox
from roost_platform.metering.outbox_shipper import OutboxShipper
from roost_platform.metering.resources import record_resources, told_until
from roost_platform.registry.storage_meter import StorageMeter

SOURCE_OF_PODS = "knative"
"""What the engine on a cluster calls itself in what it tells: the same in every gateway."""


class Holding:
    """One run of a gateway: its outbox is open from here until the context ends."""

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        directory: Directory,
        leads: Callable[[], bool],
        clock: Callable[[], datetime],
    ) -> None:
        """Made before the engine and the registry, which tell `outbox`. Raises OSError."""
        folder = settings.data / "outbox"
        self._database = database
        self._shipping = False
        self.outbox = Outbox(folder, source=secrets.token_hex(8))
        self.shipper = OutboxShipper(folder=folder, database=database, interval_s=settings.metering.ship_interval_s)
        self.storage = StorageMeter(database=database, record=record_resources, clock=clock, leads=leads)
        self.cold_starts = ColdStartFigures()
        self._held = HeldFigures(directory.keys_of_models)
        self.figures = (OutboxFiguresCollector(self.outbox, self.shipper), self.cold_starts, self._held)

    def tell(self, usage: ResourceUsage) -> None:
        """What engine and registry tell of what was held. Returns at once and raises nothing."""
        self.outbox.tell(usage)
        self.cold_starts.told(usage)
        self._held.told(usage)

    async def told_until(self, replicas: Sequence[str]) -> dict[str, datetime]:
        """By pod, the end of what the database knows of it. Raises Unavailable."""
        return await self._database.read(told_until, SOURCE_OF_PODS, replicas)

    def loops(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """The database is open, and has its tables."""
        self._shipping = True
        return self.shipper.run(), self.storage.run()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is held any more: bring all to the database.

        Raises Unavailable or StorageFull when it does not take it: the next start does it.
        """
        await asyncio.to_thread(self.outbox.close)
        if self._shipping:
            await self.shipper.drain()


class OutboxFiguresCollector(Collector):
    def __init__(self, outbox: Outbox, shipper: OutboxShipper) -> None:
        self._outbox = outbox
        self._shipper = shipper

    def collect(self) -> Iterator[Metric]:
        outbox, shipper = self._outbox, self._shipper
        for name, text, value in (
            ("roost_outbox_stretches", "Stretches of held resources written to the outbox", outbox.written),
            ("roost_outbox_dropped", "Stretches that could not be kept; nobody is charged for them", outbox.dropped),
            ("roost_outbox_failures", "Writes and syncs of the outbox that failed", outbox.failures),
            ("roost_resources_recorded", "Stretches added to the database", shipper.shipped),
            ("roost_resources_repeated", "Stretches that the database held already", shipper.repeated),
            ("roost_resources_conflicts", "Stretches that came again with other content", shipper.conflicts),
            ("roost_outbox_damaged_lines", "Lines of the outbox that could not be read", shipper.damaged),
        ):
            yield CounterMetricFamily(name, text, value=value)
        yield GaugeMetricFamily(
            "roost_outbox_lag_bytes",
            "Held resources written but not yet in the database",
            value=shipper.unshipped_bytes,
        )
