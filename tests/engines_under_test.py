"""What the contract suite needs of an engine beside the port: models that behave as told, and time that passes.

Each engine has one harness. The suite is parametrised over `HARNESSES`; one that needs a cluster carries the mark
`external`.
"""

import asyncio
import hashlib
import json
import os
import signal
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

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
from roost_platform.engines.local.budget import Capacity
from roost_platform.engines.local.engine import TICK_S, LocalEngine, LocalSettings
from roost_platform.engines.port import Engine, UpstreamRequest, UpstreamResponse

KEY = ServiceKey("acme", "sleeper")
GIB = 1024**3


class Harness(ABC):
    """An engine under test. Times are seconds."""

    engine: Engine

    @abstractmethod
    async def start(self, folder: Path, *, start_timeout_s: float = 30, queue_depth: int = 10_000) -> None: ...

    @abstractmethod
    async def stop(self) -> None: ...

    @abstractmethod
    def install(self, **behaviour: Any) -> Revision:
        """An artifact whose model behaves so (see sleeper_model.py), as the next revision of KEY."""

    @abstractmethod
    async def pass_time(self, seconds: int) -> None:
        """Let the autoscaler see this much time pass."""

    @abstractmethod
    def replicas(self) -> list[int]:
        """Process ids (or the like) of everything that serves or starts a model now; spares do not count."""

    @abstractmethod
    def kill_one(self) -> None:
        """End one serving replica the hard way."""

    # What is the same for all.

    async def apply(self, *revisions: Revision, to: Revision | None = None, **policy: Any) -> None:
        """All traffic goes to `to`, or to the first revision."""
        traffic = (TrafficTarget((to or revisions[0]).name, 100),)
        await self.engine.apply(Service(KEY, revisions, traffic, ScalingPolicy(**policy)))

    async def call(self, revision: Revision, seconds: float = 0.0, *, within: float = 30.0) -> dict[str, int]:
        """One try: the answer's tensors by name, its body checked."""
        response = await self.raw_call(revision, seconds, within=within)
        assert response.status == 200, bytes(response.body)
        document = orjson.loads(response.body)
        assert document["model_name"] == KEY.model
        return {output["name"]: output["data"][0] for output in document["outputs"]}

    async def raw_call(self, revision: Revision, seconds: float, *, within: float) -> UpstreamResponse:
        body = orjson.dumps({"inputs": [{"name": "seconds", "datatype": "FP32", "shape": [1], "data": [seconds]}]})
        deadline = asyncio.get_running_loop().time() + within
        headers = [(b"content-type", b"application/json")]
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
            assert loop.time() - begin < within, "the condition did not come true"
            await asyncio.sleep(0.002)
        return loop.time() - begin


class LocalHarness(Harness):
    def __init__(self, capacity: Capacity | None = None) -> None:
        self.capacity = capacity or Capacity(8 * GIB, 64)
        self.now = 1000.5
        self._artifacts: dict[str, Path] = {}
        self._generation = 0

    async def start(self, folder: Path, *, start_timeout_s: float = 30, queue_depth: int = 10_000) -> None:
        self._folder = folder
        self.engine = LocalEngine(
            locate=lambda digest: (self._artifacts[digest], False),
            settings=LocalSettings(
                capacity=self.capacity,
                spares=2,
                tick=False,
                runtimes={"sleeper": "sleeper_model:SleeperModel"},
                start_timeout_s=start_timeout_s,
                queue_depth=queue_depth,
            ),
            clock=lambda: self.now,
        )
        await self.engine.start()

    async def stop(self) -> None:
        await self.engine.stop()

    def install(self, **behaviour: Any) -> Revision:
        self._generation += 1
        text = json.dumps({**behaviour, "generation": self._generation})
        digest = hashlib.sha256(text.encode()).hexdigest()
        path = self._folder / f"{digest}.json"
        path.write_text(text)
        self._artifacts[digest] = path
        return Revision(
            name=f"{KEY.model}-{self._generation:05d}",
            version=self._generation,
            digest=digest,
            size=len(text),
            signature=Signature((), ()),
            runtime="sleeper",
        )

    async def pass_time(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1
            self.engine.report()
            if int(self.now) % TICK_S == 0:
                self.engine.tick()
            await asyncio.sleep(0)

    def replicas(self) -> list[int]:
        """Children of the zygote that carry a model's name, as anybody could see them in ps."""
        return [pid for pid, name in _descendants() if name == f"roost:{KEY.model}"]

    def kill_one(self) -> None:
        os.kill(self.replicas()[0], signal.SIGKILL)


def _descendants() -> list[tuple[int, str]]:
    """The engines' live processes below this one, as (pid, name)."""
    found: list[tuple[int, str]] = []
    parents = [os.getpid()]
    while parents:
        with suppress(OSError):  # a process may end while we look
            for children in Path(f"/proc/{parents.pop()}/task").glob("*/children"):
                for pid in map(int, children.read_text().split()):
                    parents.append(pid)
                    stat = Path(f"/proc/{pid}/stat").read_text()
                    name = stat[stat.index("(") + 1 : stat.rindex(")")]
                    if stat[stat.rindex(")") + 2] != "Z" and name.startswith("roost:"):
                        found.append((pid, name))
    return found


HARNESSES = [LocalHarness]
