"""Deployments: what brings a version into service, moves traffic, takes it back, and ends it.

Each change is one transaction, then the directory, then the engine; a watcher per model carries revisions under way to
ready or failed. Changes of one model wait for each other, and run to their end even when the caller is gone. Of several
gateways on one database any one takes a change; the others follow, each with its own directory and engine.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from functools import partial
from math import inf
from typing import Any, Protocol, TypeVar
from weakref import WeakValueDictionary

from roost_gateway.access.directory import Directory
from roost_gateway.access.routes import RevisionRecord, RevisionState, Route
from roost_gateway.deployments import rows, store, traffic
from roost_gateway.deployments.rollout import Verdict, verdicts
from roost_platform.database.connection import Database
from roost_platform.database.history import ROOST, Act
from roost_platform.domain.errors import Conflict, NotFound, Unavailable
from roost_platform.domain.output import OutputLine
from roost_platform.domain.scaling import ScalingPolicy
from roost_platform.domain.services import RevisionKey, RevisionStatus, ServiceKey
from roost_platform.engines.port import Engine, RevisionFigures

T = TypeVar("T")

log = logging.getLogger(__name__)

_FIRST_POLL_S = 0.002


class ModelRemover(Protocol):
    """The part of the registry that a deletion needs."""

    async def delete_model(
        self, key: ServiceKey, *, by: str = ROOST, drained: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Remove the model's rows, and after `drained` whatever artifacts nothing else uses. Raises NotFound."""


class Deployments:
    """All changes of what is served. Methods are safe to call at any time between `start` and `stop`."""

    def __init__(
        self,
        *,
        database: Database,
        registry: ModelRemover,
        engine: Engine,
        directory: Directory,
        clock: Callable[[], datetime],
        poll_s: float = 0.05,
        retry_s: float = 1.0,
        spread_s: float = 0.0,
    ) -> None:
        """`poll_s`: how often, in the end, a rollout asks the engine; `retry_s`: pause after engine or database failed.
        `spread_s`: how long other gateways may send calls to a model that is deleted; the engine keeps it until then.
        """
        self._database = database
        self._registry = registry
        self._engine = engine
        self._directory = directory
        self._clock = clock
        self._poll_s = poll_s
        self._retry_s = retry_s
        self._spread_s = spread_s
        self._locks: WeakValueDictionary[ServiceKey, asyncio.Lock] = WeakValueDictionary()
        self._operations: set[asyncio.Task[Any]] = set()
        self._watchers: dict[ServiceKey, asyncio.Task[None]] = {}
        self._deleting: set[ServiceKey] = set()
        self._unapplied: set[ServiceKey] = set()
        self._unsure: set[ServiceKey] = set()
        self._ending: dict[ServiceKey, float] = {}
        """Models that are no more, and from when on (in the loop's time) the engine may let them go."""
        self._failures: dict[ServiceKey, dict[str, RevisionStatus]] = {}

    async def start(self) -> None:
        """Load every model, tell the engine, and carry on with rollouts that an earlier process left unfinished."""
        for route in await self._database.read(rows.load_routes):
            await self._publish(route)
        self._engine.complete()

    async def stop(self) -> None:
        """End all watching; rollouts carry on at the next start."""
        tasks = [*self._watchers.values(), *self._operations]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._watchers.clear()

    def check_accepts(self, key: ServiceKey) -> None:
        """Raises Conflict while the model is being deleted."""
        if key in self._deleting:
            raise Conflict("the model is being deleted; try again when that is done", code="model_deleting")

    async def deploy(
        self,
        key: ServiceKey,
        version: int,
        *,
        scaling_options: Mapping[str, Any],
        max_batch_size: int,
        runtime: str,
        takes_traffic: bool = True,
        by: str = ROOST,
    ) -> RevisionRecord:
        """Start to bring a registered version into service; it takes the traffic when it is ready, unless it is to wait.

        The same version with the same settings again gives the revision that is there, unless that failed. Raises
        Conflict when the model is being deleted or was deleted meanwhile, InvalidRequest for the scaling options.
        """
        wish = store.Wish(version, scaling_options, max_batch_size, runtime, takes_traffic)
        return await self._exclusively(key, partial(self._deploy, key, wish, by))

    async def rollback(self, key: ServiceKey, version: int, *, by: str = ROOST) -> Route:
        """Give all traffic to the newest ready revision of a version, at once; deployments under way are cancelled.

        Raises NotFound (model or version), Conflict when the version has no ready revision.
        """
        return await self._exclusively(key, partial(self._change, key, by, traffic.roll_back, version))

    async def split(self, key: ServiceKey, wish: traffic.Split, *, by: str = ROOST) -> Route:
        """Share the traffic among versions, and say what sticks and who is a tester; all at once, for the next call.

        Raises NotFound (the model, or a version), Conflict when a version has no ready revision, InvalidRequest.
        """
        return await self._exclusively(key, partial(self._change, key, by, traffic.split, wish))

    async def set_alias(self, key: ServiceKey, name: str, version: int | None, *, by: str = ROOST) -> Route:
        """Name a version, or (None) take a name away. Raises NotFound, InvalidRequest."""
        return await self._exclusively(key, partial(self._change, key, by, traffic.set_alias, name, version))

    async def scale(self, key: ServiceKey, options: Mapping[str, Any], *, by: str = ROOST) -> ScalingPolicy:
        """Change the scaling policy (None = back to default). Raises NotFound, InvalidRequest naming the option."""
        route = await self._exclusively(
            key, partial(self._change, key, by, store.change_scaling, options, self._engine.check)
        )
        return route.service.scaling

    async def change(self, key: ServiceKey, work: Callable[..., Route | None], *, by: str = ROOST) -> None:
        """Run `work(connection, key, act=…)` in a transaction, alone among this model's changes, and follow what it says
        the model is then; None = as before. Raises NotFound, and what it raises.
        """
        await self._exclusively(key, partial(self._work, key, work, by))

    async def delete(self, key: ServiceKey, *, by: str = ROOST) -> None:
        """Delete a model: unknown to new calls at once, gone when calls in flight have ended. Raises NotFound.

        Its rows go first. When that fails it is served as before; whatever fails later, it is deleted, and the engine is
        told until it has let go.
        """
        route = self._directory.route(key.tenant, key.model)
        if route is None:
            raise NotFound("no such model")
        self._deleting.add(key)
        self._directory.remove_route(key)
        await self._exclusively(key, partial(self._delete, route, by))

    def statuses(self, route: Route) -> list[RevisionStatus]:
        """How each revision of a model is, oldest first; of failed ones, what was known when they failed."""
        now = self._engine.status(route.key)
        failures = self._failures.get(route.key, {})
        return [
            failures.get(r.revision.name, r.as_failed_status())
            if r.state is RevisionState.FAILED
            else now.revision(r.revision.name) or r.as_unknown_status()
            for r in route.records
        ]

    def figures(self, route: Route) -> Mapping[str, RevisionFigures]:
        """Load and replicas of this moment, by revision; of those that the engine runs."""
        return self._engine.figures_of(route.key)

    def output(self, route: Route) -> dict[str, list[OutputLine]]:
        """What each revision's replicas printed last, by its name, oldest revision first; of failed ones that the engine
        has let go, what was known when they failed.
        """
        return {
            status.name: self._engine.output(RevisionKey(route.key, status.name))
            or [OutputLine(n, record.created_at, "", text) for n, text in enumerate(status.log, 1)]
            for record, status in zip(route.records, self.statuses(route), strict=True)
        }

    async def settled(self, key: ServiceKey) -> None:
        """Return when nothing is being deployed for this model any more."""
        while (watcher := self._watchers.get(key)) is not None:
            await asyncio.wait([watcher])

    def follow(self, key: ServiceKey) -> None:
        """Another gateway has changed this model, or may have: look soon, and do what it takes. Does not wait."""
        self._unsure.add(key)
        self._ensure_watched(key)

    async def outdated(self) -> set[ServiceKey]:
        """Models of which the database says something else than the directory, which knows them or not."""
        stored = {route.key: route for route in await self._database.read(rows.load_routes)}
        known = {route.key: route for route in self._directory.routes()}
        return {
            key
            for key in stored.keys() | known.keys()
            if key not in stored or key not in known or not stored[key].says_the_same(known[key])
        }

    # Operations, each with the model's lock held

    async def _deploy(self, key: ServiceKey, wish: store.Wish, by: str) -> RevisionRecord:
        self.check_accepts(key)
        try:
            act = Act(self._clock(), by)
            route, name = await self._database.write(store.add_revision, key, wish, act, self._engine.check)
        except NotFound as error:
            raise Conflict("the model was deleted while this version was uploaded", code="model_deleted") from error
        await self._publish(route)
        record = route.record(name)
        assert record is not None
        return record

    async def _change(self, key: ServiceKey, by: str, work: Callable[..., Route], *arguments: Any) -> Route:
        if key in self._deleting:
            raise NotFound("no such model")
        route = await self._database.write(work, key, *arguments, Act(self._clock(), by))
        await self._publish(route)
        return route

    async def _work(self, key: ServiceKey, work: Callable[..., Route | None], by: str) -> None:
        if key in self._deleting:
            raise NotFound("no such model")
        route = await self._database.write(work, key, act=Act(self._clock(), by))
        if route is not None:
            await self._publish(route)

    async def _delete(self, route: Route, by: str) -> None:
        key, deleted = route.key, False

        async def drained() -> None:
            nonlocal deleted
            deleted = True
            await self._end(key)

        try:
            await self._registry.delete_model(key, by=by, drained=drained)
        except NotFound:  # another gateway was faster
            await drained()
            raise
        except Exception:
            if not deleted:  # nothing may stay half gone: it is served again, as it was until the database can be asked
                self._directory.put_route(route)
                self.follow(key)
            raise
        finally:
            self._deleting.discard(key)

    async def _end(self, key: ServiceKey) -> None:
        """The rows are gone: drain the engine, now or, when that fails, some time later."""
        self._forget(key)
        await asyncio.sleep(self._spread_s)
        try:
            await self._let_go(key)
        except Exception as error:  # noqa: BLE001 - an engine out of reach must not undo what the database says
            log.warning("delete_failed", extra=_fields(key, error=repr(error)))
            self._ensure_watched(key)

    async def _exclusively(self, key: ServiceKey, work: Callable[[], Awaitable[T]]) -> T:
        """Run `work` alone among the changes of this model, and to its end even when the caller is cancelled."""
        lock = self._locks.setdefault(key, asyncio.Lock())

        async def run() -> T:
            async with lock:
                try:
                    return await work()
                except Unavailable:
                    # The database may have committed and lost the connection before it said so.
                    self._unsure.add(key)
                    self._ensure_watched(key)
                    raise

        task = asyncio.create_task(run())
        self._operations.add(task)
        task.add_done_callback(self._operations.discard)
        # A caller that is gone asks for no result; taking the exception keeps asyncio from reporting it as lost.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    # Directory and engine follow the database

    async def _publish(self, route: Route) -> None:
        if route.key in self._deleting:
            return  # a deletion waits for this operation; calls must go on finding nothing
        self._directory.put_route(route)
        if route.records:  # a model without revisions is an upload that was cut off before its deployment
            await self._apply(route)

    def _forget(self, key: ServiceKey) -> None:
        self._directory.remove_route(key)
        self._failures.pop(key, None)
        self._unapplied.discard(key)
        self._ending[key] = asyncio.get_running_loop().time() + self._spread_s

    async def _let_go(self, key: ServiceKey) -> None:
        """Returns when the engine has nothing of a model any more that was deleted; no harm for one that was not."""
        if key in self._ending:
            await self._engine.delete(key)
            self._ending.pop(key, None)

    async def _apply(self, route: Route) -> None:
        """Tell the engine; when that fails, the watcher tells it again until it works."""
        key = route.key
        try:
            await self._let_go(key)  # an earlier model of this name
            await self._engine.apply(route.service)
        except Exception as error:  # noqa: BLE001 - an engine out of reach must not undo what the database says
            log.warning("apply_failed", extra=_fields(key, error=repr(error)))
            self._unapplied.add(key)
        else:
            self._unapplied.discard(key)
        if self._has_work(key):
            self._ensure_watched(key)

    def _ensure_watched(self, key: ServiceKey) -> None:
        if key not in self._watchers:
            self._watchers[key] = asyncio.create_task(self._watch(key))

    def _has_work(self, key: ServiceKey) -> bool:
        if key in self._unsure or key in self._ending:
            return True
        route = self._directory.route(key.tenant, key.model)
        if route is None:
            return False
        return key in self._unapplied or any(r.state is RevisionState.DEPLOYING for r in route.records)

    async def _watch(self, key: ServiceKey) -> None:
        """Carry the revisions under way to ready or failed; ends when there is nothing left to do."""
        lock = self._locks.setdefault(key, asyncio.Lock())
        look_again_s = _FIRST_POLL_S
        while True:
            # Most models are ready within a few hundredths of a second: somebody waits for them.
            pause = look_again_s = min(self._poll_s, 1.5 * look_again_s)
            async with lock:
                try:
                    await self._advance(key)
                except Exception as error:  # noqa: BLE001 - the database is away: the rollout waits for it
                    log.warning("rollout_waits", extra=_fields(key, error=repr(error)))
                    pause = self._retry_s
                if not self._has_work(key):
                    # Still under the lock, so that the next deployment sees that there is no watcher.
                    del self._watchers[key]
                    return
                if key in self._unapplied:
                    pause = self._retry_s
            await asyncio.sleep(pause)

    async def _advance(self, key: ServiceKey) -> None:
        if key in self._unsure:
            await self._reload(key)
        if self._ending.get(key, inf) <= asyncio.get_running_loop().time():
            await self._let_go(key)
        route = self._directory.route(key.tenant, key.model)
        if route is None:
            return
        if key in self._unapplied:
            await self._apply(route)
        for verdict in verdicts(route, self._engine.status(key)):
            try:
                await self._publish(await self._record(key, verdict))
            except NotFound:  # deleted by another gateway
                self._unsure.add(key)
                return

    async def _reload(self, key: ServiceKey) -> None:
        """Follow the database after another gateway's change, or after a transaction whose end is unknown."""
        self._unsure.discard(key)  # before the look: a change that comes meanwhile asks for another one
        try:
            route = await self._database.read(rows.load_route, key)
        except BaseException:
            self._unsure.add(key)
            raise
        known = self._directory.route(key.tenant, key.model)
        if route is None:
            if known is not None:
                self._forget(key)
        elif known is None or not route.says_the_same(known):
            await self._publish(route)

    async def _record(self, key: ServiceKey, verdict: Verdict) -> Route:
        if verdict.failure is None:
            route = await self._database.write(store.mark_ready, key, verdict.name, Act(self._clock()))
            log.info("revision_ready", extra=_fields(key, revision=verdict.name))
            return route
        act = Act(self._clock())
        route = await self._database.write(store.mark_failed, key, verdict.name, verdict.reason, act)
        kept = self._failures.setdefault(key, {})
        kept[verdict.name] = verdict.failure
        for name in [n for n in kept if route.record(n) is None]:
            del kept[name]
        log.warning("revision_failed", extra=_fields(key, revision=verdict.name, reason=verdict.reason))
        return route


def _fields(key: ServiceKey, **more: str) -> dict[str, str]:
    return {"tenant": key.tenant, "model": key.model, **more}
