"""The real local engine with real replicas, and a load that passes in the time of a test: an hour of it costs seconds.

Requests hold a slot for as long as the test's clock says; the engine's autoscaler reads the same clock. A replica that
is wanted is waited for, so that in the time of the test it starts at once.
"""

import asyncio
import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count

from engines_under_test import KEY, LocalHarness
from roost_platform.domain.services import Revision, RevisionKey
from roost_platform.engines.local.engine import TICK_S
from roost_platform.engines.local.leases import Lease, LocalSlot
from roost_platform.engines.local.replica import State
from roost_platform.engines.local.runner import Runner
from roost_platform.engines.port import Upstream


@dataclass
class Clockwork(LocalHarness):
    """Once `start`ed, plays loads at one revision after the other."""

    begin: float = 0.0
    """When the load that plays began: at an even second, for reports and ticks are half a second after one."""

    def __post_init__(self) -> None:
        super().__init__()
        self._holding: list[tuple[float, int, Upstream | LocalSlot]] = []
        self._waiting: dict[asyncio.Task[Upstream], Lease] = {}
        self._numbers = count()

    async def play(self, revision: Revision, due: Iterable[float], *, service_s: float, seconds: int) -> list[int]:
        """Replicas ready at the end of each second.

        `due`: when requests come, in seconds from the begin, ascending; each holds its slot for `service_s`.
        """
        self.begin = math.ceil(self.now / TICK_S) * TICK_S
        self._key, self._service_s = RevisionKey(KEY, revision.name), service_s
        self._runner: Runner = self.engine._runners[self._key]
        arrivals, at = list(due), 0
        curve: list[int] = []
        for half in range(1, 2 * seconds + 1):
            end = half / 2
            while at < len(arrivals) and arrivals[at] < end:
                await self._free_slots(arrivals[at])
                await self._request(arrivals[at])
                at += 1
            await self._free_slots(end)
            self.now = self.begin + end
            if half % 2:
                self.engine.report()
                if half // 2 % TICK_S == 0:
                    self.engine.tick()
                await self._settle()
            else:
                curve.append(self._runner.ready)
        await self._free_slots(math.inf)
        return curve

    async def _request(self, at: float) -> None:
        self.now = self.begin + at
        deadline = asyncio.get_running_loop().time() + 3600
        slot = self.engine.take_slot(self._key, deadline)
        if slot is not None:
            heapq.heappush(self._holding, (at + self._service_s, next(self._numbers), slot))
            return
        lease = self.engine.lease(self._key, deadline)
        assert isinstance(lease, Lease)
        self._waiting[asyncio.ensure_future(lease.__aenter__())] = lease
        await asyncio.sleep(0)
        await self._settle()

    async def _free_slots(self, until: float) -> None:
        """End what is over by then, and let those who wait have the slots."""
        while self._holding and self._holding[0][0] <= until:
            at, _, held = heapq.heappop(self._holding)
            self.now = max(self.now, self.begin + at)
            if isinstance(held, LocalSlot):
                held.release()
            else:
                await held.__aexit__(None, None, None)
            if self._waiting:
                await self._seat()

    async def _settle(self) -> None:
        """Whoever is starting gets ready, while the test's clock stands."""
        runner = self._runner
        await self.until(lambda: not runner.starting and all(r.state is not State.STARTING for r in runner.replicas))
        await self._seat()

    async def _seat(self) -> None:
        """Those who were given a slot hold it from now on."""
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for task in [task for task in self._waiting if task.done()]:
            lease = self._waiting.pop(task)
            task.result()
            ends = self.now - self.begin + self._service_s
            heapq.heappush(self._holding, (ends, next(self._numbers), lease))
