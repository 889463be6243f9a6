"""The Knative engine under test: the real engine, on a fake Kubernetes with a mini Knative that runs real processes."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from artifact_server import ArtifactServer
from engine_harness import KEY, Harness
from fake_knative import FakeKnative
from fake_kubernetes import FakeKubernetes
from roost_platform.domain.resources import ResourceUsage
from roost_platform.domain.service_secrets import ServiceSecrets
from roost_platform.domain.services import Readiness, RevisionStatus
from roost_platform.domain.tenants import Quota
from roost_platform.engines.knative.cluster import Cluster
from roost_platform.engines.knative.connection import Access
from roost_platform.engines.knative.engine import KnativeEngine
from roost_platform.engines.knative.held import ToldUntil, nothing_told
from roost_platform.engines.knative.ingress import Ingress
from roost_platform.engines.knative.pod_life import PodLife
from roost_platform.engines.knative.settings import KnativeSettings
from roost_platform.engines.port import OnUsage

SLEEPER = "dev.local/sleeper"
_SECRETS = ServiceSecrets(b"0123456789abcdef" * 2)
_QUIET_S = 0.4
_COMMAND = (sys.executable, "-m", "roost_runtimes", "serve", "--model-factory", "sleeper_model:SleeperModel")


class KnativeHarness(Harness):
    sleep_cycles = 5  # each begins a process of its own and ends it, as a pod is: that takes a second
    rollback_s = 10.0
    stubborn_s = 2.0  # nothing in a cluster ends a replica for one run; its slot is taken until that has ended

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._skipped_s = 0.0
        self._unsettled = False
        self.held: list[ResourceUsage] = []
        """What the engine told of its replicas, oldest first."""

    async def start(
        self, folder: Path, *, start_timeout_s: float = 30, queue_depth: int = 10_000, quota: Quota | None = None
    ) -> None:
        enter = self._stack.enter_async_context
        self._artifacts = await enter(ArtifactServer(_SECRETS))
        self.api = await enter(FakeKubernetes())
        self.knative = await enter(FakeKnative(self.api, commands={SLEEPER: _COMMAND}, queue_depth=queue_depth))
        token = folder / "token"
        token.write_text(self.api.token)
        self._settings = KnativeSettings(
            images={"sleeper": SLEEPER},
            ingress_url=self.knative.ingress_url,
            artifact_url=self._artifacts.url,
            start_timeout_s=max(1, round(start_timeout_s)),
        )
        self._access = Access(url=self.api.url, token_file=token)
        self._quota = quota or Quota()
        self.engine = await self.start_engine()

    async def start_engine(
        self,
        *,
        leads: Callable[[], bool] = lambda: True,
        on_usage: OnUsage | None = None,
        told_until: ToldUntil = nothing_told,
    ) -> KnativeEngine:
        """Another gateway's, on the same cluster; `stop` stops it."""
        engine = KnativeEngine(
            settings=self._settings,
            cluster=Cluster(self._access),
            ingress=Ingress(url=self.knative.ingress_url),
            secrets=_SECRETS,
            quota_of=lambda tenant: self._quota if tenant == KEY.tenant else None,
            leads=leads,
            clock=lambda: time.monotonic() + self._skipped_s,
            on_usage=on_usage or self.held.append,
            told_until=told_until,
            replica_url=self._replica_url,
        )
        await engine.start()
        self._stack.push_async_callback(engine.stop)
        return engine

    def _replica_url(self, pod: PodLife) -> str:
        """Pods share one address here, and have ports of their own."""
        running = self.knative.kubelet.pods.get((pod.namespace, pod.name))
        return running.url if running is not None and running.container is not None else ""

    async def stop(self) -> None:
        """An engine on a cluster leaves models running when it stops: here they are ended first."""
        async with self._stack:
            await self.engine.delete(KEY)
            await self.until(lambda: not self.replicas())

    async def split(self, *args: Any, **kwargs: Any) -> None:
        await super().split(*args, **kwargs)
        self._unsettled = True

    def keep(self, digest: str, artifact: bytes) -> None:
        self._artifacts.artifacts[digest] = artifact

    async def pass_time(self, seconds: int) -> None:
        """What was wished before is true before time passes, as it would be in a cluster, and seen after it."""
        if self._unsettled:
            await self._settle()
            self._unsettled = False
        self._skipped_s += seconds
        await self.knative.pass_time(seconds)
        await self.until(self._is_seen)

    async def _settle(self) -> None:
        """Until the wish has become the cluster's, and neither of the two has anything to add."""
        loop = asyncio.get_running_loop()
        quiet_since, version = loop.time(), 0
        while loop.time() - quiet_since < _QUIET_S:
            if not self._is_content() or self.api.version != version:
                quiet_since, version = loop.time(), self.api.version
            await asyncio.sleep(0.02)

    def _is_content(self) -> bool:
        on_the_way = ("Deploying", "Routing")
        if any(s.ready is Readiness.UNKNOWN and s.reason in on_the_way for s in self.engine.status(KEY).revisions):
            return False
        services = self.api.objects("Service.serving.knative.dev")
        return all(
            s.get("status", {}).get("observedGeneration") == s["metadata"]["generation"]
            and all(c["status"] != "Unknown" for c in s["status"]["conditions"])
            for s in services
        )

    def _is_seen(self) -> bool:
        """Whether the engine knows what the cluster has come to."""
        for status in self.engine.status(KEY).revisions:
            found = [r for r in self.knative.at_work() if r.roost_name == status.name]
            if any((r.wanted, len(r.ready_pods())) != (status.wanted, status.running) for r in found[-1:]):
                return False
        return True

    def shows_refusal(self, status: RevisionStatus, message: str) -> bool:
        return any(f'"{message}"' in line for line in status.log)

    def headers_seen(self) -> list[tuple[bytes, bytes]]:
        return self.knative.ingress.seen[-1]

    def replicas(self) -> list[int]:
        return [pod.pid for pod in self.knative.pods() if pod.pid is not None]

    def kill_one(self) -> None:
        os.kill(self.replicas()[0], signal.SIGKILL)

    async def evict_one(self) -> None:
        """Delete one pod the way a node that is emptied does: with its time for finishing."""
        pod = next(pod for pod in self.knative.pods() if pod.ready)
        self.api.remove("Pod", pod.name, pod.namespace)
