"""All rollouts: begun and steered by people, counted for by every gateway, decided by the one that leads."""

import asyncio
import logging
import secrets
from collections.abc import Callable
from datetime import datetime
from functools import partial

from roost_gateway.deployments.deployments import Deployments
from roost_gateway.predict.taps import Taps
from roost_gateway.rollouts import store
from roost_gateway.rollouts.counting import Counting, Four
from roost_gateway.shadowing.copying import Mirror
from roost_gateway.shadowing.json_paths import compile_path
from roost_gateway.shadowing.shadows import Shadows
from roost_platform.database.connection import Database
from roost_platform.database.history import ROOST, Act
from roost_platform.domain.errors import NotFound, RoostError
from roost_platform.domain.rollouts import Rollout, RolloutPlan, RolloutState
from roost_platform.domain.services import ServiceKey
from roost_platform.domain.shadows import Shadow, ShadowPlan

log = logging.getLogger(__name__)

_TAP = "rollout"


class Rollouts:
    """Methods are safe to call at any time; all on the event loop's thread."""

    def __init__(
        self,
        *,
        database: Database,
        deployments: Deployments,
        taps: Taps,
        mirrors: Shadows,
        leads: Callable[[], bool],
        clock: Callable[[], datetime],
        told: asyncio.Event | None = None,
        interval_s: float = 1.0,
    ) -> None:
        """`mirrors` copies calls where a rollout asks whether the versions agree. `told` is set when there is something to be told; None = nobody is told. `interval_s`: between two looks."""
        self._database = database
        self._deployments = deployments
        self._taps = taps
        self._mirrors = mirrors
        self._leads = leads
        self._clock = clock
        self._told = told
        self._interval_s = interval_s
        self._gateway = secrets.token_hex(8)  # another one after each start: what was counted before stays
        self._counting: dict[ServiceKey, Counting] = {}
        self._written: dict[tuple[int, int], dict[str, Four]] = {}

    async def begin(self, key: ServiceKey, plan: RolloutPlan, *, by: str = ROOST) -> Rollout:
        """Raises NotFound, Conflict, InvalidRequest for a path that is none."""
        if plan.comparison.path:
            compile_path(plan.comparison.path)
        await self._deployments.change(key, partial(store.begin, plan=plan, tell=self._tells), by=by)
        return await self._changed(key)

    async def change(self, key: ServiceKey, wish: RolloutState, *, by: str = ROOST) -> Rollout:
        """Pause, resume (RUNNING) or abort. Raises NotFound, Conflict."""
        await self._deployments.change(key, partial(store.change, wish=wish, tell=self._tells), by=by)
        return await self._changed(key)

    async def run(self) -> None:
        """Count and decide until cancelled; a rollout goes on wherever an earlier gateway left it."""
        while True:
            try:
                await self.look()
            except RoostError as error:
                log.warning("rollouts_wait", extra={"reason": error.message})
            except Exception:  # a mistake with one rollout must not be the end of all
                log.exception("rollouts_wait")
            await asyncio.sleep(self._interval_s)

    async def look(self) -> None:
        """Follow what goes on, write down what was counted, and decide where this gateway leads. Raises RoostError."""
        going = await self._database.read(store.active)
        await self._flush(going)
        if self._leads() and going:
            for key in going:
                await self._advance(key)
            self._follow(await self._database.read(store.active))

    async def _advance(self, key: ServiceKey) -> None:
        """One that cannot be moved now waits, and holds no other up."""
        try:
            await self._deployments.change(key, partial(store.advance, tell=self._tells), by=ROOST)
        except NotFound:
            await self._database.write(store.end_orphan, key, tell=self._tells, act=Act(self._clock()))
        except RoostError as error:
            log.warning("rollout_waits", extra={"tenant": key.tenant, "model": key.model, "reason": error.message})
        self._ring()

    async def _changed(self, key: ServiceKey) -> Rollout:
        await self._flush(await self._database.read(store.active))
        self._ring()
        (rollout,) = await self._database.read(store.of_model, key, limit=1)
        return rollout

    async def _flush(self, going: dict[ServiceKey, Rollout]) -> None:
        """Bring what was counted to the database."""
        counted = {counting.step: counting.counts for counting in self._counting.values()}
        fresh = {step: counts for step, counts in counted.items() if self._written.get(step) != counts}
        self._follow(going)
        if fresh:
            await self._database.write(store.write_evidence, self._gateway, fresh)
        self._written = counted

    def _follow(self, going: dict[ServiceKey, Rollout]) -> None:
        """Count for the steps that go on now."""
        for key in self._counting.keys() - going.keys():
            del self._counting[key]
            self._taps.set(key, _TAP, None)
        for key, rollout in going.items():
            known = self._counting.get(key)
            if known is None or known.step != (rollout.id, rollout.step):
                self._counting[key] = counting = Counting(rollout, self._mirror(key, rollout))
                self._taps.set(key, _TAP, counting)

    def _mirror(self, key: ServiceKey, rollout: Rollout) -> Mirror | None:
        """Of the serving version's calls as many are copied, in percent, as go to the new version anyway."""
        if not rollout.plan.compares:
            return None
        plan = ShadowPlan(rollout.plan.to, rollout.percent, comparison=rollout.plan.comparison)
        return self._mirrors.mirror(key, Shadow(f"rollout-{rollout.id}-{rollout.step}", plan, rollout.step_began_at))

    @property
    def _tells(self) -> bool:
        return self._told is not None

    def _ring(self) -> None:
        if self._told is not None:
            self._told.set()
