"""What the contract suite needs of an engine beside the port: models that behave as told, and time that passes."""

import asyncio
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import orjson

from roost_platform.domain.resources import ResourceUsage
from roost_platform.domain.scaling import ScalingPolicy
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
from roost_platform.engines.port import Engine, UpstreamRequest, UpstreamResponse

KEY = ServiceKey("acme", "sleeper")
ROOM_S = 130
"""Longer than an engine waits for a quota to have room again."""


class Harness(ABC):
    """An engine under test. Times are seconds."""

    engine: Engine
    held: list[ResourceUsage]
    """What the engine told of its replicas, oldest first."""
    sleep_cycles = 1000
    """How often K2 goes to the edge of sleep and back."""
    stubborn_s = 20.0
    """How long a run that cannot be cancelled may have left when its caller's time is over, so that the next call is
    answered within two and a half seconds more: as long as it likes where replicas are replaced then.
    """
    gone_s = 5.0
    """Within this an idle replica of a deleted model is gone."""
    drained_s = 1.0
    """Within this a replica is gone when its last call is answered and it is not wanted any more."""
    rollback_s = 1.0
    """Within this a version that slept answers again when traffic goes back to it."""
    least_wait_s = 0.0
    """How long `until` waits in any case: where things happen on other machines, they take their time."""
    look_again_s = 0.002
    """Between two looks of `until`."""
    unmet: Mapping[str, str] = MappingProxyType({})
    """Cases of the contract that this engine cannot meet (how their names begin), and why. They are tried nonetheless, and
    have to fail: so we hear of it when they no longer do.
    """
    _generation = 0

    @abstractmethod
    async def start(self, folder: Path, *, start_timeout_s: float = 30, queue_depth: int = 10_000) -> None: ...

    @abstractmethod
    async def stop(self) -> None: ...

    def shows_refusal(self, status: RevisionStatus, message: str) -> bool:
        """Whether a status tells what a model said when it refused to be loaded."""
        return status.message == message

    def headers_seen(self) -> list[tuple[bytes, bytes]] | None:
        """The headers of the last request as they left the engine; None where they travel in frames of its own."""
        return None

    @abstractmethod
    def keep(self, digest: str, artifact: bytes) -> None:
        """Have an artifact where replicas get theirs from."""

    @abstractmethod
    async def pass_time(self, seconds: int) -> None:
        """Let the autoscaler see this much time pass."""

    @abstractmethod
    def replicas(self) -> list[int]:
        """Process ids (or the like) of everything that serves or starts a model now; spares do not count."""

    @abstractmethod
    def kill_one(self) -> None:
        """End one serving replica the hard way."""

    async def evict_one(self) -> None:
        """Have one serving replica taken away, with its time for finishing. For engines on a cluster."""
        raise NotImplementedError

    # What is the same for all.

    def install(self, **behaviour: Any) -> Revision:
        """An artifact whose model behaves so (see sleeper_model.py), as the next revision of KEY."""
        self._generation += 1
        artifact = json.dumps({**behaviour, "generation": self._generation}).encode()
        digest = hashlib.sha256(artifact).hexdigest()
        self.keep(digest, artifact)
        return Revision(
            name=f"{KEY.model}-{self._generation:05d}",
            version=self._generation,
            digest=digest,
            size=len(artifact),
            signature=Signature((), ()),
            runtime="sleeper",
        )

    async def apply(self, *revisions: Revision, to: Revision | None = None, **policy: Any) -> None:
        """All traffic goes to `to`, or to the first revision."""
        await self.split(revisions, {(to or revisions[0]): 100}, **policy)

    async def split(self, revisions: Sequence[Revision], shares: Mapping[Revision, int], **policy: Any) -> None:
        """Traffic by percents."""
        traffic = tuple(TrafficTarget(revision.name, percent) for revision, percent in shares.items())
        await self.engine.apply(Service(KEY, tuple(revisions), traffic, ScalingPolicy(**policy)))

    async def call(self, revision: Revision, seconds: float = 0.0, *, within: float = 30.0) -> dict[str, int]:
        """One try: the answer's tensors by name, its body checked."""
        response = await self.raw_call(revision, seconds, within=within)
        assert response.status == 200, bytes(response.body)
        document = orjson.loads(response.body)
        assert document["model_name"] == KEY.model
        return {output["name"]: output["data"][0] for output in document["outputs"]}

    async def raw_call(
        self, revision: Revision, seconds: float, *, within: float, more: Sequence[tuple[bytes, bytes]] = ()
    ) -> UpstreamResponse:
        body = orjson.dumps({"inputs": [{"name": "seconds", "datatype": "FP32", "shape": [1], "data": [seconds]}]})
        deadline = asyncio.get_running_loop().time() + within
        headers = [(b"content-type", b"application/json"), *more]
        request = UpstreamRequest("POST", f"/v2/models/{KEY.model}/infer", headers, [body])
        async with self.engine.lease(RevisionKey(KEY, revision.name), deadline) as upstream:
            return await upstream.send(request)

    def status(self, revision: Revision) -> RevisionStatus:
        found = self.engine.status(KEY).revision(revision.name)
        assert found is not None
        return found

    async def until_ready(self, revision: Revision) -> None:
        await self.until(lambda: self.status(revision).ready is not Readiness.UNKNOWN)
        assert self.status(revision).ready is Readiness.TRUE, self.status(revision)

    async def until(self, condition: Any, within: float = 10.0) -> float:
        """Wait until it holds; returns how long that took."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        while not condition():
            assert loop.time() - begin < max(within, self.least_wait_s), "the condition did not come true"
            await asyncio.sleep(self.look_again_s)
        return loop.time() - begin
