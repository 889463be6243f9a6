"""A real engine with the official client on the fake API server and the mini Knative, for tests of its behaviour."""

import asyncio
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import orjson

from fake_knative import FakeKnative
from fake_kubernetes import FakeKubernetes
from fake_kubernetes.store import Object
from roost_platform.domain.scaling import ScalingPolicy
from roost_platform.domain.service_secrets import ServiceSecrets
from roost_platform.domain.services import (
    Readiness,
    Revision,
    RevisionKey,
    RevisionStatus,
    Service,
    ServiceKey,
    TrafficTarget,
)
from roost_platform.domain.signatures import Signature
from roost_platform.domain.tenants import Quota
from roost_platform.engines.knative.cluster import Cluster
from roost_platform.engines.knative.connection import Access
from roost_platform.engines.knative.engine import KnativeEngine
from roost_platform.engines.knative.ingress import Ingress
from roost_platform.engines.knative.settings import KnativeSettings
from roost_platform.engines.port import UpstreamRequest, UpstreamResponse

KEY = ServiceKey("acme", "iris")
NAMESPACE = "roost-acme"
KSERVICE = "Service.serving.knative.dev"
KREVISION = "Revision.serving.knative.dev"
SMALL_MODEL = Path(__file__).with_name("knative_small_model.py")
IMAGES = {name: f"dev.local/{name}" for name in ("onnx-cpu", "exits", "never-ready", "slow")}
COMMANDS = {image: [sys.executable, "-S", "-E", str(SMALL_MODEL), name] for name, image in IMAGES.items()}
IMAGES["unknown-image"] = "dev.local/unknown"
SECRETS = ServiceSecrets(b"0" * 32)


def make_revision(
    generation: int = 1, *, version: int = 0, runtime: str = "onnx-cpu", proven: bool = False
) -> Revision:
    return Revision(
        name=f"{KEY.model}-{generation:05d}",
        version=version or generation,
        digest=f"{version or generation:064x}",
        size=1000,
        signature=Signature((), ()),
        runtime=runtime,
        memory_bytes=1024**2,
        proven=proven,
    )


def make_service(*revisions: Revision, to: Revision | None = None, key: ServiceKey = KEY, **policy: Any) -> Service:
    """All traffic goes to `to`; none where it is not given."""
    traffic = (TrafficTarget(to.name, 100),) if to is not None else ()
    return Service(key, revisions, traffic, ScalingPolicy().with_changes(policy))


class Setting:
    """One API server and one Knative, and as many engines as a test wants; `quotas` are the known tenants."""

    def __init__(self, **settings: Any) -> None:
        self._settings = settings
        self.api = FakeKubernetes()
        self.quotas: dict[str, Quota] = {KEY.tenant: Quota()}
        self.token_file = Path()

    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
        await self._stack.enter_async_context(self.api)
        self.knative = await self._stack.enter_async_context(FakeKnative(self.api, commands=COMMANDS))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def engine(self, folder: Path, *, leads: Callable[[], bool] = lambda: True, **options: Any) -> KnativeEngine:
        self.token_file = folder / "token"
        self.token_file.write_text(self.api.token)
        usual: dict[str, Any] = {
            "images": IMAGES,
            "ingress_url": self.knative.ingress_url,
            "start_timeout_s": 60,
            "resync_s": 60.0,
        }
        settings = KnativeSettings(**(usual | self._settings))
        engine = KnativeEngine(
            settings=settings,
            cluster=Cluster(Access(url=self.api.url, token_file=self.token_file), timeout_s=2, attempts=3),
            ingress=Ingress(url=settings.ingress_url),
            secrets=SECRETS,
            quota_of=self.quotas.get,
            leads=leads,
            replica_url=lambda _: "",  # these containers tell nobody how busy they were
            **({"watch_s": 5.0, "orphan_s": 0.2, "patience_s": 5.0} | options),
        )
        await engine.start()
        self._stack.push_async_callback(engine.stop)
        return engine

    def services(self) -> list[Object]:
        return self.api.objects(KSERVICE)

    def service(self) -> Object:
        found = self.api.get(KSERVICE, KEY.model, NAMESPACE)
        assert found is not None
        return found


async def until(condition: Callable[[], Any], within: float = 20.0) -> float:
    """Wait until it holds; returns how long that took."""
    clock = asyncio.get_running_loop().time
    began = clock()
    while not condition():
        assert clock() - began < within, "the condition did not come true"
        await asyncio.sleep(0.005)
    return clock() - began


def status_of(engine: KnativeEngine, revision: Revision) -> RevisionStatus:
    found = engine.status(KEY).revision(revision.name)
    assert found is not None
    return found


async def until_ready(engine: KnativeEngine, revision: Revision) -> None:
    await until(lambda: status_of(engine, revision).ready is not Readiness.UNKNOWN)
    assert status_of(engine, revision).ready is Readiness.TRUE, status_of(engine, revision)


async def until_failed(engine: KnativeEngine, revision: Revision) -> RevisionStatus:
    await until(lambda: status_of(engine, revision).ready is Readiness.FALSE)
    return status_of(engine, revision)


async def raw_call(
    engine: KnativeEngine, revision: Revision, *, seconds: float = 0.0, within: float = 20.0
) -> UpstreamResponse:
    request = UpstreamRequest(
        "POST", "/v2/models/iris/infer", [(b"content-type", b"application/json")], [orjson.dumps({"seconds": seconds})]
    )
    deadline = asyncio.get_running_loop().time() + within
    async with engine.lease(RevisionKey(KEY, revision.name), deadline) as upstream:
        return await upstream.send(request)


async def call(
    engine: KnativeEngine, revision: Revision, *, seconds: float = 0.0, within: float = 20.0
) -> dict[str, Any]:
    """One try: the answer's body, checked."""
    response = await raw_call(engine, revision, seconds=seconds, within=within)
    assert response.status == 200
    assert isinstance(response.body, (bytes, bytearray, memoryview))
    answer: dict[str, Any] = orjson.loads(response.body)
    assert answer["secret_known"] is True
    return answer


def left_over(setting: Setting) -> list[str]:
    """Everything of Roost's models that the cluster still has; what belongs to a tenant is not of a model."""
    kinds = (KSERVICE, KREVISION, "Secret", "Pod")
    return [f"{kind}/{thing['metadata']['name']}" for kind in kinds for thing in setting.api.objects(kind)]


async def fall_asleep(setting: Setting) -> None:
    """For models with a window of six seconds; one whose replicas do not start is tried for ten minutes first."""
    for _ in range(90):
        await setting.knative.pass_time(10)
        if not setting.api.objects("Pod"):
            return
    await until(lambda: not setting.api.objects("Pod"))
