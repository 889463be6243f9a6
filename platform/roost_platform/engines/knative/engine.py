"""The Knative engine: revisions as Knative revisions of a cluster; scaling, waking and queueing are Knative's.

    apply, delete ─▶ models ─▶ queue ─▶ keeper ─▶ Kubernetes API          (the leader only)
    lease ─▶ model: has it an address? ─▶ ingress ─▶ replica                    ▲
    status ◀─ models ◀─ seen: three watches ◀───────────────────────────────────┘

Every gateway has one of these and watches; one at a time leads and writes. Each of them knows every model from the
database, so that a new leader just looks at everything.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

from roost_platform.domain.errors import NotFound, Unavailable
from roost_platform.domain.output import OutputLine
from roost_platform.domain.scaling import ScalingPolicy
from roost_platform.domain.service_secrets import ServiceSecrets
from roost_platform.domain.services import RevisionKey, Service, ServiceKey, ServiceStatus
from roost_platform.domain.tenants import Quota
from roost_platform.engines.knative.asking import Asking, url_of_pod
from roost_platform.engines.knative.cluster import CONFIG_MAP, Cluster, ClusterError, Document, Forbidden, Missing
from roost_platform.engines.knative.features import Features
from roost_platform.engines.knative.held import Held, ToldUntil, nothing_told
from roost_platform.engines.knative.ingress import Ingress
from roost_platform.engines.knative.keeper import Keeper
from roost_platform.engines.knative.leases import Lease
from roost_platform.engines.knative.logs import LogName, Logs
from roost_platform.engines.knative.model import Model
from roost_platform.engines.knative.pod_life import PodLife
from roost_platform.engines.knative.seen import Seen
from roost_platform.engines.knative.settings import KnativeSettings
from roost_platform.engines.knative.wish import Wish
from roost_platform.engines.knative.work_queue import WorkQueue
from roost_platform.engines.port import Engine, EngineFigures, OnUsage, RevisionFigures, Upstream, tell_nobody

logger = logging.getLogger(__name__)

_WORKERS = 4
_TICK_S = 0.5
_HOLD_S = 1.0
_CONFIG_MAPS = ("config-features", "config-defaults", "config-autoscaler")


class KnativeEngine(Engine):
    """See the port for the promises."""

    streams = True

    def __init__(
        self,
        *,
        settings: KnativeSettings,
        cluster: Cluster,
        ingress: Ingress,
        secrets: ServiceSecrets,
        quota_of: Callable[[str], Quota | None],
        leads: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
        watch_s: float = 40.0,
        orphan_s: float = 10.0,
        patience_s: float = 60.0,
        start_s: float = 10.0,
        on_usage: OnUsage = tell_nobody,
        told_until: ToldUntil = nothing_told,
        replica_url: Callable[[PodLife], str] = url_of_pod,
    ) -> None:
        """`quota_of` gives None for a tenant that there is not. `leads` may change its mind at any time. Seconds:
        `watch_s` bounds how long a silent watch is believed, `orphan_s` how long a model must be nobody's before it is
        deleted, `patience_s` how long `delete` and `start_s` how long `start` wait for an API server that is away.
        `told_until`: what the ledger has of what other leaders told `on_usage`. `replica_url`: where a pod's runtime listens.
        """
        self.runtimes = tuple(settings.images)
        self._settings = settings
        self._cluster = cluster
        self._ingress = ingress
        self._secrets = secrets
        self._quota_of = quota_of
        self._leads = leads
        self._clock = clock
        self._patience_s = patience_s
        self._start_s = start_s
        self._sweep_s = max(orphan_s, 1.0)
        self._models: dict[ServiceKey, Model] = {}
        self._features: Features | None = None
        self._complete = False
        self._leading = False
        self._past_activations = 0
        self._queue: WorkQueue[ServiceKey] = WorkQueue()
        self._tasks: list[asyncio.Task[None]] = []
        self._seen = Seen(
            cluster=cluster, settings=settings, changed=self._changed, watch_s=watch_s, pod_changed=self._pod_changed
        )
        self._held = Held(
            seen=self._seen,
            asking=Asking(secret_of=secrets.of, url_of=replica_url),
            leads=leads,
            told_until=told_until,
            on_usage=on_usage,
            gpu_resource=settings.gpu_resource,
        )
        self._logs = Logs(cluster, fetched=self._log_fetched)
        self._keeper = Keeper(
            cluster=cluster,
            seen=self._seen,
            settings=settings,
            quota_of=quota_of,
            leads=leads,
            clock=clock,
            orphan_s=orphan_s,
        )

    # Life.

    async def start(self) -> None:
        """Returns when the cluster was seen once, or was not to be reached for a while: what worked then still does."""
        await self._cluster.start()
        await self._ingress.start()
        await self._held.start()
        self._seen.start()
        loops: list[Callable[[], Awaitable[None]]] = [self._tick, self._resync, self._hold, *[self._work] * _WORKERS]
        self._tasks = [asyncio.create_task(self._forever(loop)) for loop in loops]
        try:
            async with asyncio.timeout(self._start_s):
                await self._seen.wait_synced()
        except TimeoutError:
            logger.warning("cluster_unreachable", extra={"waited_s": self._start_s})

    async def stop(self) -> None:
        """Models run on in the cluster; calls in flight are waited for by whoever made them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._held.stop()
        await self._seen.stop()
        await self._logs.stop()
        await self._ingress.stop()
        await self._cluster.stop()

    def complete(self) -> None:
        self._complete = True

    # Wishes.

    async def apply(self, service: Service) -> None:
        model = self._models.get(service.key)
        if model is None:
            model = self._models[service.key] = Model(
                service.key,
                seen=self._seen,
                logs=self._logs,
                settings=self._settings,
                secret=self._secrets.of(service.key),
                clock=self._clock,
                drained=self._queue.add,
            )
        model.wish = self._wish(service)
        model.notify()
        self._queue.add(service.key)

    def _wish(self, service: Service) -> Wish:
        return Wish(
            service,
            settings=self._settings,
            features=self._features or Features(),
            fingerprint=self._secrets.fingerprint(service.key),
        )

    async def delete(self, key: ServiceKey) -> None:
        """Raises Unavailable when the cluster cannot be reached: nothing was deleted then, or not all of it."""
        model = self._models.get(key)
        if model is None:
            return
        model.wish = None
        model.ending = True
        if model.ended is None or model.ended.done():
            model.ended = asyncio.get_running_loop().create_future()
        ended = model.ended
        model.notify()
        self._queue.add(key)
        since = self._clock()
        while not ended.done():
            await asyncio.wait({ended}, timeout=_TICK_S)
            if model.inflight:
                since = self._clock()
            elif not self._leads():
                model.ending = False
                self._forget(model)  # the leader hears of it, too, and does the rest
                return
            elif model.troubled and self._clock() - since > self._patience_s:
                model.ending = False
                raise Unavailable("the cluster cannot be reached now", code="cluster_unreachable", retry_after_s=30)

    def check(self, scaling: ScalingPolicy) -> None:
        if self._features is not None:
            self._features.check(scaling)

    # What is true.

    def status(self, key: ServiceKey) -> ServiceStatus:
        model = self._models.get(key)
        return ServiceStatus(key, tuple(model.statuses().values()) if model is not None else ())

    def figures_of(self, key: ServiceKey) -> dict[str, RevisionFigures]:
        """Of the autoscaler, Knative's objects tell what it wants, not what it averages: that is in its own metrics."""
        model = self._models.get(key)
        return {name: model.figures(name) for name in model.statuses()} if model is not None else {}

    def output(self, revision: RevisionKey) -> list[OutputLine]:
        """As far as it was fetched: asking has it fetched, so a moment later there is more."""
        model = self._models.get(revision.service)
        return model.output(revision.name) if model is not None else []

    def lease(self, revision: RevisionKey, deadline: float) -> AbstractAsyncContextManager[Upstream]:
        model = self._models.get(revision.service)
        if model is None or model.find(revision.name) is None:
            raise NotFound("there is no such revision")
        return Lease(model, revision.name, deadline, self._ingress)

    def figures(self) -> EngineFigures:
        figures = EngineFigures(
            activations=self._past_activations + sum(m.activations.total() for m in self._models.values())
        )
        for model in self._models.values():
            if not model.is_busy:
                continue
            for name, status in model.statuses().items():
                key = RevisionKey(model.key, name)
                queued = model.queued.get(name, 0)
                if status.wanted or status.running or queued:
                    figures.revisions[key] = model.figures(name)
        return figures

    # What happens.

    def _changed(self, key: ServiceKey) -> None:
        model = self._models.get(key)
        if model is not None:
            model.count_activations()
            model.notify()
            self._queue.add(key)

    def _pod_changed(self, before: Document | None, now: Document | None) -> None:
        self._held.pod_changed(before, now)

    def _log_fetched(self, of: LogName) -> None:
        model = self._models.get(of.service)
        if model is not None:
            model.notify()

    def _forget(self, model: Model) -> None:
        if self._models.get(model.key) is model and model.wish is None:
            del self._models[model.key]
            self._past_activations += model.activations.total()

    # Loops; each runs for ever, one turn after the other.

    async def _forever(self, turn: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await turn()
            except Exception:
                logger.exception("engine_loop_failed", extra={"loop": turn.__name__})
                await asyncio.sleep(1)

    async def _work(self) -> None:
        """Look at one model."""
        key = await self._queue.get()
        try:
            await self._look_at(key)
        except Exception:
            self._queue.add_failed(key)
            raise
        finally:
            self._queue.done(key)

    async def _look_at(self, key: ServiceKey) -> None:
        model = self._models.get(key)
        if model is None or not self._leads():
            return  # who begins to lead looks at everything
        if not self._ready_to_write():
            model.troubled = True
            self._queue.add(key, after_s=_TICK_S)
            return
        try:
            again_s = await self._keeper.look_at(model)
        except ClusterError as error:
            model.troubled = True
            pause_s = self._queue.add_failed(key, at_least_s=error.retry_after_s)
            logger.warning(
                "reconcile_failed",
                extra={
                    "tenant": key.tenant,
                    "model": key.model,
                    "error": type(error).__name__,
                    "status": error.status,
                    "words": error.message,
                    "again_s": round(pause_s, 1),
                },
            )
            return
        model.troubled = False
        self._queue.succeeded(key)
        if model.wish is None and not model.ending:
            self._forget(model)
            await self._keeper.end_tenant_if_unknown(key.tenant)
        elif again_s is not None:
            self._queue.add(key, after_s=again_s)

    def _ready_to_write(self) -> bool:
        """Not before everything was seen: what is not known to be there must not be made, or deleted, by mistake."""
        return self._leading and self._seen.synced and self._features is not None

    async def _tick(self) -> None:
        """Twice a second: who waits looks at the time, and a change of leader is noticed."""
        leads = self._leads()
        if leads != self._leading:
            self._leading = leads
            logger.info("leading" if leads else "following")
            if leads:
                self._look_at_all()
        for model in list(self._models.values()):
            if model.queued:
                model.notify()
        await asyncio.sleep(_TICK_S)

    async def _hold(self) -> None:
        """Once a second, and when pods change: what replicas hold is found out, and told."""
        await self._held.turn()
        await self._held.wait(_HOLD_S)

    async def _resync(self) -> None:
        """Every now and then: look at everything, whatever the watches said; and at first, until that was possible."""
        try:
            await self._read_features()
        except ClusterError as error:
            logger.warning("features_not_read", extra={"words": error.message})
        await self._sweep_for(self._settings.resync_s if self._features is not None else 1.0)
        if self._leads():
            self._look_at_all()

    async def _sweep_for(self, seconds: float) -> None:
        """Wait so long; orphans are looked for meanwhile, by the leader who knows everything that is wished."""
        clock = asyncio.get_running_loop().time
        end = clock() + seconds
        while (left_s := end - clock()) > 0:
            if self._complete and self._leads() and self._ready_to_write():
                try:
                    await self._keeper.sweep(self._is_wished)
                except ClusterError as error:
                    logger.warning("sweep_failed", extra={"words": error.message})
            await asyncio.sleep(min(left_s, self._sweep_s))

    def _is_wished(self, key: ServiceKey) -> bool:
        """A model that is being deleted is looked after already."""
        return key in self._models

    def _look_at_all(self) -> None:
        self._keeper.forget_applied()
        for key, model in self._models.items():
            model.forget_applied()
            self._queue.add(key)

    async def _read_features(self) -> None:
        """What the cluster's Knative allows. When that changes, so do the templates."""
        data: list[dict[str, str]] = []
        for name in _CONFIG_MAPS:
            try:
                document = await self._cluster.get(CONFIG_MAP, name, self._settings.serving_namespace)
            except (Missing, Forbidden) as error:
                logger.warning("config_not_read", extra={"config": name, "words": error.message})
                document = {}
            data.append(document.get("data") or {})
        features = Features.read(*data)
        if features == self._features:
            return
        self._features = features
        for model in self._models.values():
            if model.wish is not None:
                model.wish = self._wish(model.wish.service)
            self._queue.add(model.key)
