"""The Ray engine under test: the real engine, on a real Ray of this machine that has two cores.

Time cannot be moved in Ray: here it is waited for. Used where ROOST_TEST_ENGINE is `ray` only (`make test-ray`).
"""

import asyncio
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from artifact_server import ArtifactServer
from engine_harness import Harness
from roost_platform.domain.service_secrets import ServiceSecrets
from roost_platform.domain.services import Revision
from roost_platform.engines.ray.engine import RayEngine
from roost_platform.engines.ray.settings import RaySettings
from roost_process import Process, descendants

_SECRETS = ServiceSecrets(b"0123456789abcdef" * 2)
_LONGEST_WAIT_S = 25
"""What a revision needs to sleep with the shortest window."""


class RayHarness(Harness):
    unmet = MappingProxyType(
        {
            "test_k11_": "Serve says that a replica died at its start, not with which status, nor which process it was",
        }
    )
    sleep_cycles = 1
    stubborn_s = 2.0
    gone_s = drained_s = 15.0
    rollback_s = 20.0
    least_wait_s = 60.0
    look_again_s = 0.1

    def __init__(self, *, address: str = "") -> None:
        """`address`: of a Ray of somebody's."""
        self.held = []
        self._address = address

    async def start(self, folder: Path, *, start_timeout_s: float = 60, queue_depth: int = 10_000) -> None:
        tests = str(Path(__file__).parent)
        os.environ["PYTHONPATH"] = tests  # replicas find the model that behaves as told
        self._artifacts = await ArtifactServer(_SECRETS).__aenter__()
        self.engine = RayEngine(
            settings=RaySettings(
                artifact_url=self._artifacts.url,
                address=self._address,
                http_port=_free_port(),
                cpus=2,
                replica_cpus=0.1,
                start_timeout_s=start_timeout_s,
                queue_depth=queue_depth,
                runtimes={"sleeper": "sleeper_model:SleeperModel"},
            ),
            secrets=_SECRETS,
            on_usage=self.held.append,
        )
        await self.engine.start()

    async def stop(self) -> None:
        left = self._processes()
        await self.engine.stop()
        await self._artifacts.__aexit__(None, None, None)
        await self.until(lambda: not any(process.lives() for process in left))

    def keep(self, digest: str, artifact: bytes) -> None:
        self._artifacts.artifacts[digest] = artifact

    async def split(self, revisions: Sequence[Revision], shares: Mapping[Revision, int], **policy: Any) -> None:
        """With the shortest window, for all of it is waited for."""
        await super().split(revisions, shares, **({"window_s": 6} | policy))

    async def pass_time(self, seconds: int) -> None:
        await asyncio.sleep(min(seconds, _LONGEST_WAIT_S))

    def _processes(self) -> list[Process]:
        """All of this engine's Ray."""
        driver = self.engine._driver._process
        return descendants(driver.pid) if driver is not None else []

    def replicas(self) -> list[int]:
        """Those that Ray has given a replica's name."""
        return [process.pid for process in self._processes() if _command(process.pid).startswith(b"ray::ServeReplica:")]

    def kill_one(self) -> None:
        os.kill(self.replicas()[0], signal.SIGKILL)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
