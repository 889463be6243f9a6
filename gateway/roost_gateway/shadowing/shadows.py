"""All shadows: set and taken away by people, followed and counted by every gateway.

Each gateway reads which shadows there are and writes what it counted, every `interval_s`; the sums of all are added up when
somebody asks.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from uuid import uuid4

from roost_gateway.deployments.deployments import Deployments
from roost_gateway.predict.figures import PredictFigures
from roost_gateway.predict.taps import Taps
from roost_gateway.shadowing import store
from roost_gateway.shadowing.copying import Copier, Mirror
from roost_gateway.shadowing.counting import Comparing, Sums
from roost_gateway.shadowing.figures import ShadowFigures
from roost_gateway.shadowing.json_paths import compile_path
from roost_platform.database.connection import Database
from roost_platform.database.history import ROOST
from roost_platform.domain.errors import RoostError
from roost_platform.domain.services import ServiceKey
from roost_platform.domain.shadows import Shadow, ShadowPlan, ShadowSums
from roost_platform.engines.port import Engine
from roost_platform.metering.journal import Journal

log = logging.getLogger(__name__)

_TAP = "shadow"


class Shadows:
    """Methods are safe to call at any time; all on the event loop's thread."""

    def __init__(
        self,
        *,
        database: Database,
        deployments: Deployments,
        engine: Engine,
        journal: Journal,
        answered: PredictFigures,
        taps: Taps,
        known: Callable[[ServiceKey], bool],
        interval_s: float = 1.0,
    ) -> None:
        """`known`: whether there is such a model. `interval_s`: between two looks at what other gateways set."""
        self._database = database
        self._deployments = deployments
        self._taps = taps
        self._interval_s = interval_s
        self._source = uuid4().hex  # another one after each start: what was counted before stays
        self._mirrors: dict[ServiceKey, Mirror] = {}
        self.figures = ShadowFigures(known=known)
        totals, dropped = self.figures.totals, self.figures.dropped
        self._comparing = Comparing(totals)
        self._copier = Copier(
            engine=engine,
            journal=journal,
            figures=answered,
            comparing=self._comparing,
            totals=totals,
            dropped=dropped,
        )

    async def put(self, key: ServiceKey, plan: ShadowPlan, *, by: str = ROOST) -> tuple[Shadow, ShadowSums]:
        """In place of the one there is. Raises NotFound, Conflict, InvalidRequest for a path that is none."""
        if plan.comparison.path:
            compile_path(plan.comparison.path)
        await self._deployments.change(key, partial(store.put, plan=plan), by=by)
        return await self.report(key)

    async def remove(self, key: ServiceKey, *, by: str = ROOST) -> None:
        """Raises NotFound."""
        await self._deployments.change(key, store.remove, by=by)
        await self.look()

    async def report(self, key: ServiceKey) -> tuple[Shadow, ShadowSums]:
        """A model's shadow, and what was counted of it: here up to now, elsewhere up to the last look. Raises NotFound."""
        await self.look()
        return await self._database.read(store.report_of, key)

    async def run(self) -> None:
        """Follow and write until cancelled."""
        while True:
            try:
                await self.look()
            except RoostError as error:
                log.warning("shadows_wait", extra={"reason": error.message})
            except Exception:  # a mistake with one shadow must not be the end of all
                log.exception("shadows_wait")
            await asyncio.sleep(self._interval_s)

    async def look(self) -> None:
        """Copy for the shadows that there are now, and write what was counted. Raises RoostError."""
        self._follow(await self._database.read(store.all_shadows))
        changed = [mirror.sums for mirror in self._mirrors.values() if mirror.sums.changed]
        if changed:
            counted = {sums.shadow.id: sums.document() for sums in changed}
            try:
                await self._database.write(store.write_sums, self._source, counted)
            except BaseException:
                for sums in changed:
                    sums.changed = True
                raise

    async def compared(self) -> None:
        """Return when all that has been answered so far is compared."""
        await asyncio.to_thread(self._comparing.drain)

    def stop(self) -> None:
        """Copy no more. What was not written yet is lost."""
        self._follow({})
        self._copier.stop()
        self._comparing.stop()

    def mirror(self, key: ServiceKey, shadow: Shadow) -> Mirror:
        """What copies a model's calls; to be set as one of its taps, by whoever asks for it."""
        path = shadow.plan.comparison.path
        return Mirror(Sums(key, shadow, compile_path(path) if path else None), self._copier)

    def _follow(self, shadows: dict[ServiceKey, Shadow]) -> None:
        for key in self._mirrors.keys() - shadows.keys():
            del self._mirrors[key]
            self._taps.set(key, _TAP, None)
        for key, shadow in shadows.items():
            known = self._mirrors.get(key)
            if known is None or known.sums.shadow.id != shadow.id:
                self._mirrors[key] = mirror = self.mirror(key, shadow)
                self._taps.set(key, _TAP, mirror)
