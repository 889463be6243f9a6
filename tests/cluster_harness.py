"""The Knative engine under test on a real cluster, with real Knative, real pods and real waiting.

    ROOST_TEST_KUBECONFIG     the cluster; without it none of this is used
    ROOST_TEST_INGRESS        URL of its cluster-local ingress as this machine reaches it
    ROOST_TEST_IMAGE_SLEEPER  an image of Roost's runtime that has sleeper_model.py and ROOST_MODEL_FACTORY=sleeper_model:SleeperModel
    ROOST_TEST_ARTIFACT_URL   http://address:port of this machine as pods reach it; artifacts are served there by the test

The account in the kubeconfig makes namespaces with a prefix of their own, which are deleted in the end.
"""

import asyncio
import os
import secrets
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from artifact_server import ArtifactServer
from engine_harness import KEY, Harness
from roost_platform.domain.service_secrets import ServiceSecrets
from roost_platform.domain.services import RevisionStatus
from roost_platform.domain.tenants import Quota
from roost_platform.engines.knative import names
from roost_platform.engines.knative.cluster import NAMESPACE, POD, Cluster, ClusterError, Document
from roost_platform.engines.knative.connection import Access
from roost_platform.engines.knative.engine import KnativeEngine
from roost_platform.engines.knative.ingress import Ingress
from roost_platform.engines.knative.settings import KnativeSettings

KUBECONFIG = "ROOST_TEST_KUBECONFIG"
_LONGEST_WAIT_S = 60
"""What any idle revision needs to sleep with a window of 6 s: the window, Knative's grace of 30 s, and some ticks."""
_LOOK_S = 0.3
_LEAST_START_S = 40
"""A pod of a busy cluster takes its time; a test that asks for less means that it is not to wait for long."""


class ClusterHarness(Harness):
    sleep_cycles = 3
    stubborn_s = 2.0
    gone_s = drained_s = 90.0  # queue-proxy waits 30 s for late requests before the container is told to stop
    rollback_s = 10.0
    least_wait_s = 120.0

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._skipped_s = 0.0
        self.held = []
        self._pods: list[Document] = []

    async def start(
        self, folder: Path, *, start_timeout_s: float = 60, queue_depth: int = 10_000, quota: Quota | None = None
    ) -> None:
        enter = self._stack.enter_async_context
        service_secrets = ServiceSecrets(secrets.token_bytes(32))
        artifacts = urlsplit(os.environ["ROOST_TEST_ARTIFACT_URL"])
        self._artifacts = await enter(
            ArtifactServer(service_secrets, host=artifacts.hostname or "", port=artifacts.port or 0)
        )
        access = Access(kubeconfig=Path(os.environ[KUBECONFIG]))
        self._settings = KnativeSettings(
            namespace_prefix=f"rt{secrets.token_hex(3)}-",
            images={"sleeper": os.environ["ROOST_TEST_IMAGE_SLEEPER"]},
            artifact_url=self._artifacts.url,
            start_timeout_s=max(_LEAST_START_S, round(start_timeout_s)),
        )
        self._cluster = Cluster(access)
        await self._cluster.start()
        self._stack.push_async_callback(self._cluster.stop)
        self.engine = KnativeEngine(
            settings=self._settings,
            cluster=Cluster(access),
            ingress=Ingress(url=os.environ["ROOST_TEST_INGRESS"]),
            secrets=service_secrets,
            quota_of=lambda tenant: (quota or Quota()) if tenant == KEY.tenant else None,
            leads=lambda: True,
            clock=lambda: time.monotonic() + self._skipped_s,
            on_usage=self.held.append,
        )
        await self.engine.start()
        self._stack.push_async_callback(self.engine.stop)
        self._looking = asyncio.create_task(self._look())
        self._stack.push_async_callback(self._stop_looking)

    async def stop(self) -> None:
        async with self._stack:
            await self.engine.delete(KEY)
            await self.until(lambda: not self.replicas())
            await self._cluster.delete(NAMESPACE, self._namespace)

    async def split(self, *args: Any, **kwargs: Any) -> None:
        """Real windows: the shortest that there is."""
        await super().split(*args, **{"window_s": 6, **kwargs})

    def keep(self, digest: str, artifact: bytes) -> None:
        self._artifacts.artifacts[digest] = artifact

    async def pass_time(self, seconds: int) -> None:
        waited = min(seconds, _LONGEST_WAIT_S)
        await asyncio.sleep(waited)
        self._skipped_s += seconds - waited

    def shows_refusal(self, status: RevisionStatus, message: str) -> bool:
        return any(f'"{message}"' in line for line in status.log)

    def replicas(self) -> list[int]:
        return [hash(pod["metadata"]["uid"]) for pod in self._pods]

    def kill_one(self) -> None:
        raise NotImplementedError("no test asks for it here: a container is killed on its node only")

    async def evict_one(self) -> None:
        pod = next(pod for pod in self._pods if "deletionTimestamp" not in pod["metadata"])
        await self._cluster.delete(POD, pod["metadata"]["name"], self._namespace)

    @property
    def _namespace(self) -> str:
        return names.namespace_of(KEY.tenant, self._settings)

    async def _look(self) -> None:
        while True:
            with suppress(ClusterError):
                self._pods = (await self._cluster.find(POD, namespace=self._namespace)).items
            await asyncio.sleep(_LOOK_S)

    async def _stop_looking(self) -> None:
        self._looking.cancel()
        await asyncio.gather(self._looking, return_exceptions=True)
