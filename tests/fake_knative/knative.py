"""A mini Knative on a fake Kubernetes: controllers, autoscaler, a node with real processes, and the way to them.

    async with FakeKubernetes() as api, FakeKnative(api, commands={"test/sleeper": [...]}) as knative:
        ...requests to knative.ingress_url with a Host that a Service has...
        await knative.pass_time(60)          the autoscaler's clock moves, nothing waits
        knative.pods()                       the pods whose processes run

Conditions, reasons and messages are Knative's own. What is shortened beside it: queue-proxy drains for `drain_s` instead of
30 s, a revision that never started is put to zero 1 s after its deadline instead of 10, and old revisions are not collected.
"""

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from fake_knative.container import Spawn
from fake_knative.ingress import Ingress
from fake_knative.kubelet import Kubelet, RunningPod
from fake_knative.revisions import RunningRevision
from fake_knative.services import REVISION, SERVICE, hosts_of, reconcile_service
from fake_knative.spawner import Spawner
from fake_kubernetes import FakeKubernetes
from fake_kubernetes.watching import wait
from roost_platform.autoscaling.decider import TICK_S

Object = dict[str, Any]
_CONFIGS = ("autoscaler", "defaults", "deployment", "features", "network")


class FakeKnative:
    def __init__(
        self,
        api: FakeKubernetes,
        *,
        commands: Mapping[str, Sequence[str]],
        cpus: str = "64",
        memory: str = "64Gi",
        queue_depth: int = 10_000,
        drain_s: float = 0.05,
        spawn: Spawn | None = None,
    ) -> None:
        """`commands`: what each image runs. `cpus`, `memory`: of the one node. `queue_depth`: requests that may wait per revision."""
        self._api = api
        self._queue_depth = queue_depth
        self._changes = asyncio.Event()
        self._spawner = Spawner()
        self.kubelet = Kubelet(
            api,
            commands=commands,
            cpus=cpus,
            memory=memory,
            drain_s=drain_s,
            changed=self._changes.set,
            spawn=spawn or self._spawner.spawn,
        )
        self.ingress = Ingress(
            find=lambda namespace, name: self._revisions.get((namespace, name)), counted=self._counted
        )
        self._revisions: dict[tuple[str, str], RunningRevision] = {}
        self.now = 1000.5

    @property
    def ingress_url(self) -> str:
        return self.ingress.url

    def pods(self) -> list[RunningPod]:
        """Pods with a live process."""
        return [pod for pod in self.kubelet.pods.values() if pod.pid is not None]

    def at_work(self) -> list[RunningRevision]:
        """Every revision, oldest first."""
        return list(self._revisions.values())

    def revision(self, namespace: str, name: str) -> RunningRevision | None:
        return self._revisions.get((namespace, name))

    async def __aenter__(self) -> Self:
        for name in _CONFIGS:
            meta = {"name": f"config-{name}", "namespace": "knative-serving"}
            self._api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {}})
        await self._spawner.start()
        await self.ingress.start()
        self._changes_reader = self._api._store.reader()
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._relay())]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        self._api._store.leave(self._changes_reader)
        await self.ingress.stop()
        await self.kubelet.stop()
        await self._spawner.stop()
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def pass_time(self, seconds: int) -> None:
        """Let the autoscaler see this much time pass, and let what it decides begin."""
        for _ in range(seconds):
            self.now += 1
            before = self._decisions()
            for revision in self._revisions.values():
                if revision.scaler.report(self.now) or int(self.now) % TICK_S == 0:
                    revision.tick(self.now)
            if self._decisions() != before:
                self.reconcile()
            await asyncio.sleep(0)

    def _decisions(self) -> list[Any]:
        return [(revision.wanted, revision.scaler.active) for revision in self._revisions.values()]

    def reconcile(self) -> None:
        """One round of every controller."""
        api = self._api
        services = api.objects(SERVICE)
        for service in services:
            reconcile_service(api, service, self._program)
        # A route ends with its service, at once.
        alive = [s["metadata"] for s in services if "deletionTimestamp" not in s["metadata"]]
        self.ingress.keep_only({(meta["namespace"], meta["name"]) for meta in alive})
        things = {(r["metadata"]["namespace"], r["metadata"]["name"]): r for r in api.objects(REVISION)}
        for key in set(self._revisions) - set(things):
            del self._revisions[key]
        for key, thing in things.items():
            found = self._revisions.get(key)
            if found is None or found.thing["metadata"]["uid"] != thing["metadata"]["uid"]:
                found = RunningRevision(api, self.kubelet, thing, now=self.now, queue_depth=self._queue_depth)
                self._revisions[key] = found
            found.follow(thing)
            if "deletionTimestamp" not in thing["metadata"]:
                found.reconcile()
        self.kubelet.reconcile()

    async def _run(self) -> None:
        """Go round when something changed; several changes at once make one round."""
        while True:
            self._changes.clear()
            before = self._api._store.version
            self.reconcile()
            if self._api._store.version == before:
                left = min((r.seconds_left() for r in self._revisions.values()), default=60.0)
                await wait(self._changes, left)
            else:
                await asyncio.sleep(0)

    async def _relay(self) -> None:
        while True:
            await self._changes_reader.wait()
            self._changes_reader.clear()
            self._changes.set()

    def _counted(self, revision: RunningRevision, change: int) -> None:
        if change < 0:
            revision.scaler.request_out(self.now)
        elif revision.scaler.request_in(self.now):
            revision.tick(self.now)
            self._changes.set()

    def _program(self, service: Object, targets: list[Object]) -> None:
        wanted: dict[str, list[tuple[str, int]]] = {}
        for target in targets:
            for host in hosts_of(service, target.get("tag", "")):
                if target.get("tag"):
                    wanted[host] = [(target["revisionName"], 100)]
            if target["percent"]:
                for host in hosts_of(service, ""):
                    wanted.setdefault(host, []).append((target["revisionName"], target["percent"]))
        self.ingress.program(service["metadata"]["namespace"], service["metadata"]["name"], wanted)
