"""The Ray engine: one application of Ray Serve per revision; scaling, waking and queueing are Serve's.

    apply, delete ─▶ wishes ─▶ a look, four times a second: what Serve says, what it is told   (one thread, for Ray blocks)
    lease ─▶ revision: does Serve know it? ─▶ Serve's proxy, over HTTP ─▶ replica

A Ray that went away, its head or Serve's controller is a look that fails: the next one connects anew.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from time import perf_counter
from types import TracebackType
from typing import Any, TypeVar

from roost_platform.domain.errors import DeadlineExceeded, NotFound, Unavailable
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
from roost_platform.engines.ray.cluster import RayCluster
from roost_platform.engines.ray.proxy import Proxy
from roost_platform.engines.ray.revision import APP_PREFIX, RayRevision
from roost_platform.engines.ray.settings import RaySettings

logger = logging.getLogger(__name__)

_PATIENCE_S = 60.0
T = TypeVar("T")


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
        self._cluster = RayCluster(settings)
        self._proxy = Proxy(url=f"http://{settings.http_host}:{settings.http_port}")
        self._held = Held(on_usage=on_usage, clocks=Clocks())
        self._thread = ThreadPoolExecutor(1, "ray")
        self._revisions: dict[RevisionKey, RayRevision] = {}
        self._draining: dict[RevisionKey, RayRevision] = {}
        self._present: set[str] = set()
        self._complete = False
        self._troubled = self._stopped = False
        self._reported = 0.0
        self._kick = asyncio.Event()
        self._looked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    # Life.

    async def start(self) -> None:
        await self._proxy.start()
        await self._call(self._cluster.connect)
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
        await self._call(self._cluster.disconnect)
        self._thread.shutdown()

    def complete(self) -> None:
        self._complete = True

    async def _call(self, what: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, what, *arguments)

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
        """Of replicas on this machine: Ray keeps what they print in files of each node."""
        found = self._revisions.get(revision)
        return found.output.lines() if found is not None else []

    def lease(self, revision: RevisionKey, deadline: float) -> AbstractAsyncContextManager[Upstream]:
        found = self._revisions.get(revision)
        if found is None:
            raise NotFound("there is no such revision")
        return _Lease(found, deadline, self._proxy, secret=self._secrets.of(revision.service))

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
                await self._look()
                self._troubled = False
            except Exception:
                logger.warning("ray_unreachable" if not self._troubled else "ray_still_unreachable", exc_info=True)
                self._troubled = True
                await self._reconnect()
            self._looked.set()
            self._looked = asyncio.Event()
            self._kick.clear()
            try:
                async with asyncio.timeout(self._settings.poll_s):
                    await self._kick.wait()
            except TimeoutError:
                pass
            await asyncio.sleep(0.02)  # wishes come in twos and threes

    async def _reconnect(self) -> None:
        try:
            await self._call(self._cluster.reconnect)
        except Exception:
            logger.warning("ray_not_reconnected", exc_info=True)
            await asyncio.sleep(1)
        for one in self._revisions.values():
            one.applied = ""

    async def _look(self) -> None:
        leads = self._leads()
        details = await self._call(self._cluster.details)
        self._present = {name for name in details if name.startswith(APP_PREFIX)}
        now = asyncio.get_running_loop().time()
        for one in [*self._revisions.values(), *self._draining.values()]:
            one.learn(details.get(one.app_name), tells=leads)
            if one.start_took_too_long(now):
                one.failed = ("StartTimeout", "it was not ready within the time that a start may take")
        await self._read_output()
        if now - self._reported > REPORT_HELD_S / 2:
            self._reported = now
            self._held.report()
        if leads:
            await self._converge(details)

    async def _read_output(self) -> None:
        of_worker = {worker: one for one in self._revisions.values() for worker in one.workers}
        for worker, line in await self._call(self._cluster.printed, list(of_worker)):
            of_worker[worker].output.add(worker[:12], line)

    async def _converge(self, details: Mapping[str, Any]) -> None:
        for one in list(self._revisions.values()):
            if one.failed and one.applied and one.failed[0] == "StartTimeout" and one.app_name in details:
                await self._call(self._cluster.delete, one.app_name)
            elif one.failed is None and one.applied != (fingerprint := one.fingerprint()):
                await self._call(self._cluster.deploy, one.app())
                one.applied = fingerprint
        for name, one in list(self._draining.items()):
            if one.app_name not in details:
                one.ends()
                del self._draining[name]
            elif not one.inflight and details[one.app_name]["status"] != "DELETING":
                await self._call(self._cluster.delete, one.app_name)
        if self._complete:
            known = {one.app_name for one in (*self._revisions.values(), *self._draining.values())}
            for orphan in self._present - known:
                if details[orphan]["status"] != "DELETING":
                    await self._call(self._cluster.delete, orphan)


class _Lease(AbstractAsyncContextManager[Upstream]):
    """Entered, it is one of the revision's calls in flight until it is left."""

    def __init__(self, revision: RayRevision, deadline: float, proxy: Proxy, *, secret: str) -> None:
        self._revision = revision
        self._deadline = deadline
        self._proxy = proxy
        self._secret = secret
        self._inner: AbstractAsyncContextManager[Upstream] | None = None

    async def __aenter__(self) -> Upstream:
        began = perf_counter()
        revision = self._revision
        if revision.full:
            raise Unavailable("too many requests wait for this model", code="queue_full", retry_after_s=1)
        waited = not revision.routed
        revision.queued += 1
        try:
            while not (revision.routed or revision.running):
                await self._wait()
            refused = revision.unavailable()
            if refused is not None:
                raise refused
        finally:
            revision.queued -= 1
        asleep = revision.entered()
        self._inner = self._proxy.to(revision.prefix, secret=self._secret, deadline=self._deadline, asleep=asleep)
        upstream = await self._inner.__aenter__()
        if waited:
            upstream.queue_us = upstream.cold_start_us = int((perf_counter() - began) * 1e6)
        return upstream

    async def _wait(self) -> None:
        refused = self._revision.unavailable()
        if refused is not None:
            raise refused
        try:
            async with asyncio.timeout_at(self._deadline):
                await self._revision.changed.wait()
        except TimeoutError as error:
            raise DeadlineExceeded("no replica was ready within the request's time") from error

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        assert self._inner is not None, "left after it was entered"
        try:
            return await self._inner.__aexit__(kind, error, traceback)
        finally:
            self._revision.left()
