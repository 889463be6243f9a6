"""The engines that pass the contract suite, each with its harness.

One that needs a real cluster is there only when ROOST_TEST_KUBECONFIG names it, and carries the mark `cluster`.
"""

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from cluster_harness import KUBECONFIG, ClusterHarness
from engine_harness import KEY, Harness
from knative_harness import KnativeHarness
from roost_platform.engines.local.budget import Capacity
from roost_platform.engines.local.engine import TICK_S, LocalEngine, LocalSettings

GIB = 1024**3


class LocalHarness(Harness):
    def __init__(self, capacity: Capacity | None = None) -> None:
        self.capacity = capacity or Capacity(8 * GIB, 64)
        self.now = 1000.5
        self.held = []
        self._artifacts: dict[str, Path] = {}

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
            on_usage=self.held.append,
            clock=lambda: self.now,
        )
        await self.engine.start()

    async def stop(self) -> None:
        await self.engine.stop()

    def keep(self, digest: str, artifact: bytes) -> None:
        path = self._folder / f"{digest}.json"
        path.write_bytes(artifact)
        self._artifacts[digest] = path

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


HERE = [LocalHarness, KnativeHarness]
"""Engines whose replicas are processes of this machine: they may be killed, and their queues be made short."""
_REAL = (
    [pytest.param(ClusterHarness, marks=[pytest.mark.cluster, pytest.mark.timeout(1200)])]
    if KUBECONFIG in os.environ
    else []
)
CLUSTERS = [KnativeHarness, *_REAL]
"""Engines on a cluster, where quotas are the cluster's and pods may be taken away."""
HARNESSES = [*HERE, *_REAL]

if os.environ.get("ROOST_TEST_ENGINE") == "ray":  # `make test-ray`: on its own, for it takes Ray's time
    from ray_harness import RayHarness

    HERE, CLUSTERS, HARNESSES = [RayHarness], [], [RayHarness]
