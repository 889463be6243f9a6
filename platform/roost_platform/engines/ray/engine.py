"""The Ray engine: one application of Ray Serve per revision; scaling, waking and queueing are Serve's.

    apply, delete ─▶ wishes ─▶ a look, four times a second: what Serve says, what it is told   (through the driver process)
    lease ─▶ revision: is a replica ready? ─▶ replica, over HTTP
                          no: it sleeps    ─▶ Serve's proxy, which wakes one ─▶ replica

A Ray that went away, its head or Serve's controller is a look that fails: the next one connects anew.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict

from roost_platform.domain.errors import NotFound, Unavailable
from roost_platform.domain.output import OutputLine
from roost_platform.domain.scaling import ScalingPolicy
from roost_platform.domain.service_secrets import ServiceSecrets
from roost_platform.domain.services import RevisionKey, Service, ServiceKey, ServiceStatus
from roost_platform.engines.local.clocks import Clocks
from roost_platform.engines.local.held import Held
from roost_platform.engines.port import (
    REPORT_HELD_S,
    Engine,
    EngineFigures,
    OnUsage,
    RevisionFigures,
    Upstream,
    tell_nobody,
)
from roost_platform.engines.ray import mapping
from roost_platform.engines.ray.lease import RayLease
from roost_platform.engines.ray.link import Driver, DriverLost, RayRefused
from roost_platform.engines.ray.proxy import PAUSES_S, Proxy
from roost_platform.engines.ray.revision import APP_PREFIX, RayRevision
from roost_platform.engines.ray.settings import RaySettings
from roost_platform.engines.ray.words import Seen

logger = logging.getLogger(__name__)

_FIRST_S = 15.0
"""So long a gateway that starts waits for a Ray of somebody's."""
_TELL_S = 10.0
"""Between two lines of the log that it still cannot be reached."""
_ANOTHER_S = 5.0
"""After so long without an answer from a Ray of somebody's another driver asks it."""
_ANEW_S = 90.0
"""After so long a Ray that was started here is started anew, and all models with it."""
_PATIENCE_S = 60.0
_FRESH_S = 1.5
"""What a look said of replicas that are asked straight is believed for so long: one that goes waits for two seconds."""


class RayEngine(Engine):
    """See the port for the promises."""

    streams = True

    def __init__(
        self,
        *,
        settings: RaySettings,
        secrets: ServiceSecrets,
        leads: Callable[[], bool] = lambda: True,
        on_usage: OnUsage = tell_nobody,
    ) -> None:
        """`leads`: this gateway is the one that tells Serve, and tells what replicas hold; it may change at any time."""
        self.runtimes = tuple(settings.runtimes)
        self._settings = settings
        self._secrets = secrets
        self._leads = leads
        self._driver = Driver(settings)
        self._proxy = Proxy(url=f"http://{settings.http_host}:{settings.http_port}", pauses_s=PAUSES_S)
        self._held = Held(on_usage=on_usage, clocks=Clocks())
        self._revisions: dict[RevisionKey, RayRevision] = {}
        self._draining: dict[RevisionKey, RayRevision] = {}
        self._present: set[str] = set()
        self._complete = False
        self._stopped = False
        self._troubled_since: float | None = None
        self._told_at = 0.0
        self._connected = False
        self._reported = self._looked_at = 0.0
        self._kick = asyncio.Event()
        self._looked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    # Life.

    async def start(self) -> None:
        """Raises Unavailable when Ray cannot be started here. One of somebody's that cannot be reached is waited for only
        for a while: it may come later.
        """
        await self._proxy.start()
        try:
            async with asyncio.timeout(_FIRST_S if self._settings.address else None):
                await self._connect()
        except (DriverLost, RayRefused, TimeoutError) as error:
            if not self._settings.address:
                await self._driver.drop()
                raise Unavailable(f"Ray cannot be started here: {error}", code="ray") from error
            logger.warning("ray_unreachable", extra={"address": self._settings.address}, exc_info=True)
        self._task = asyncio.create_task(self._look_for_ever())

    async def stop(self) -> None:
        """A Ray that was started here ends with this; models on another's run on. No harm when it was stopped before."""
        if self._stopped:
            return
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._held.end()
        await self._proxy.stop()
        await self._driver.stop()

    def complete(self) -> None:
        self._complete = True

    # Wishes.

    def check(self, scaling: ScalingPolicy) -> None:
        mapping.check(scaling)

    async def apply(self, service: Service) -> None:
        reachable = {target.revision for target in service.traffic if target.percent}
        names = {revision.name for revision in service.revisions}
        for key in [key for key in self._revisions if key.service == service.key and key.name not in names]:
            self._draining[key] = self._revisions.pop(key)
        for revision in service.revisions:
            key = RevisionKey(service.key, revision.name)
            kept = self._revisions.get(key) or self._draining.pop(key, None)
            if kept is None:
                kept = RayRevision(
                    key,
                    self._held.revision(key, revision),
                    secret=self._secrets.of(service.key),
                    settings=self._settings,
                )
            self._revisions[key] = kept
            kept.wish(revision, service.scaling, reachable=revision.name in reachable)
            if revision.runtime not in self._settings.runtimes:
                kept.failed = ("RuntimeMissing", f"there is no runtime {revision.runtime!r} here")
        self._kick.set()

    async def delete(self, key: ServiceKey) -> None:
        """Raises Unavailable when Ray cannot be reached: nothing was deleted then, or not all of it."""
        for name in [name for name in self._revisions if name.service == key]:
            self._draining[name] = self._revisions.pop(name)
        mine = [one for name, one in self._draining.items() if name.service == key]
        loop = asyncio.get_running_loop()
        end = loop.time() + self._settings.drain_s + _PATIENCE_S
        while any(one.inflight or one.app_name in self._present for one in mine) and self._leads():
            if loop.time() > end:
                raise Unavailable("Ray cannot be reached now", code="cluster_unreachable", retry_after_s=30)
            self._kick.set()
            await self._looked.wait()

    # What is true.

    def _of(self, key: ServiceKey) -> list[RayRevision]:
        return [one for name, one in self._revisions.items() if name.service == key]

    def status(self, key: ServiceKey) -> ServiceStatus:
        return ServiceStatus(key, tuple(one.status() for one in self._of(key)))

    def figures_of(self, key: ServiceKey) -> dict[str, RevisionFigures]:
        return {one.key.name: one.figures() for one in self._of(key)}

    def output(self, revision: RevisionKey) -> list[OutputLine]:
        found = self._revisions.get(revision)
        return found.output.lines() if found is not None else []

    def lease(self, revision: RevisionKey, deadline: float) -> AbstractAsyncContextManager[Upstream]:
        found = self._revisions.get(revision)
        if found is None:
            raise NotFound("there is no such revision")
        secret = self._secrets.of(revision.service)
        return RayLease(found, deadline, self._proxy, secret=secret, is_fresh=self.is_fresh)

    def figures(self) -> EngineFigures:
        awake = {
            name: one.figures()
            for name, one in self._revisions.items()
            if one.wanted or one.running or one.inflight or one.queued
        }
        return EngineFigures(revisions=awake, activations=sum(one.cold_starts for one in self._revisions.values()))

    # Looking.

    async def _look_for_ever(self) -> None:
        while True:
            try:
                if not self._connected:
                    await self._connect()
                await self._look()
                self._troubled_since = None
            except Exception as error:  # noqa: BLE001 - whatever it is, Ray is asked again
                await self._in_trouble(error)
            self._looked.set()
            self._looked = asyncio.Event()
            self._kick.clear()
            try:
                async with asyncio.timeout(self._settings.poll_s):
                    await self._kick.wait()
            except TimeoutError:
                pass
            await asyncio.sleep(0.02)  # wishes come in twos and threes

    async def _connect(self) -> None:
        await self._driver.call("connect")
        self._connected = True
        for one in self._revisions.values():
            one.applied = ""  # it may be another Ray

    async def _in_trouble(self, error: Exception) -> None:
        now = asyncio.get_running_loop().time()
        since = self._troubled_since = self._troubled_since or now
        if since == now or now - self._told_at > _TELL_S:
            self._told_at = now
            logger.warning("ray_unreachable", extra={"since_s": round(now - since, 1)}, exc_info=error)
        self._connected = False
        own = not self._settings.address
        if own and isinstance(error, DriverLost):  # the Ray that was started here went with its driver
            for one in [*self._revisions.values(), *self._draining.values()]:
                one.learn(None, tells=False)
        if now - since > (_ANEW_S if own else _ANOTHER_S):
            await self._driver.drop()  # it may have to do with what it remembers
            self._troubled_since = None

    async def _look(self) -> None:
        leads = self._leads()
        asked_at = asyncio.get_running_loop().time()
        seen = {name: Seen.of(told) for name, told in (await self._driver.call("look")).items()}
        self._looked_at = asked_at
        self._present = {name for name in seen if name.startswith(APP_PREFIX)}
        now = asyncio.get_running_loop().time()
        for one in [*self._revisions.values(), *self._draining.values()]:
            one.learn(seen.get(one.app_name), tells=leads)
            if one.start_took_too_long(now):
                one.failed = ("StartTimeout", "it was not ready within the time that a start may take")
        await self._read_output()
        if now - self._reported > REPORT_HELD_S / 2:
            self._reported = now
            self._held.report()
        if leads:
            await self._converge(seen)

    async def _read_output(self) -> None:
        of_worker = {worker: one for one in self._revisions.values() for worker in one.workers}
        nodes = {worker: node for one in self._revisions.values() for worker, node in one.workers.items()}
        for worker, line in await self._driver.call("printed", nodes):
            if worker in of_worker:
                of_worker[worker].output.add(worker[:12], line)

    async def _converge(self, seen: Mapping[str, Seen]) -> None:
        for one in list(self._revisions.values()):
            if one.failed and one.applied and one.failed[0] == "StartTimeout" and one.app_name in seen:
                await self._driver.call("delete", one.app_name)
            elif one.failed is None and one.applied != (fingerprint := one.fingerprint()):
                await self._driver.call("deploy", asdict(one.app()))
                one.applied = fingerprint
        for name, one in list(self._draining.items()):
            if one.app_name not in seen:
                one.ends()
                del self._draining[name]
            elif not one.inflight and seen[one.app_name].status != "DELETING":
                await self._driver.call("delete", one.app_name)
        if self._complete:
            known = {one.app_name for one in (*self._revisions.values(), *self._draining.values())}
            for orphan in self._present - known:
                if seen[orphan].status != "DELETING":
                    await self._driver.call("delete", orphan)

    def is_fresh(self) -> bool:
        """Whether what is known of replicas may still be gone by."""
        return asyncio.get_running_loop().time() - self._looked_at < _FRESH_S
