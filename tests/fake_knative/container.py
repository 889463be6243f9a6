"""One container as a real process: started with its environment, asked whether it is ready, its output kept."""

import asyncio
import itertools
import os
import signal
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

_LINES = 1000
_PROBE_S = 0.03


class Process(Protocol):
    pid: int

    async def wait(self) -> int: ...

    def send_signal(self, number: int, /) -> None: ...


Spawn = Callable[[Sequence[str], Mapping[str, str], Path], Awaitable[Process]]


class Container:
    """`changed` is called whenever it started, got ready or ended."""

    def __init__(
        self,
        *,
        argv: Sequence[str],
        env: Mapping[str, str],
        log: Path,
        probe: str,
        changed: Callable[[], None],
        spawn: Spawn,
    ) -> None:
        """`probe`: the path of its readiness probe; empty = a connection is enough."""
        self._argv, self._log, self._probe, self._changed, self._spawn = argv, log, probe, changed, spawn
        self.port = _free_port()
        self._env = {**env, "PORT": str(self.port)}
        self.process: Process | None = None
        self.ready = False
        self.exit_code: int | None = None
        """As a container runtime tells it: 128 + the signal's number for one that was killed."""
        self.ended = asyncio.Event()
        self._early = 0
        self._task = asyncio.create_task(self._run())

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None and self.exit_code is None else None

    def lines(self) -> list[str]:
        """The last lines it printed, oldest first."""
        with suppress(OSError), self._log.open(errors="replace") as file:
            return [line.rstrip("\n") for line in deque(file, _LINES)]
        return []

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            if self.process is None:
                self._early = number  # it is sent when there is somebody to send it to
            elif self.exit_code is None:
                self.process.send_signal(number)

    async def end(self) -> None:
        """At once, the hard way."""
        self.signal(signal.SIGKILL)
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        self.process = await self._spawn(self._argv, self._env, self._log)
        if self._early:
            self.signal(self._early)
        self._changed()
        probing = asyncio.create_task(self._until_ready())
        code = await self.process.wait()
        probing.cancel()
        self.ready = False
        self.exit_code = code if code >= 0 else 128 - code
        self.ended.set()
        self._changed()

    async def _until_ready(self) -> None:
        for _ in itertools.count():
            if await self._answers():
                break
            await asyncio.sleep(_PROBE_S)
        self.ready = True
        self._changed()

    async def _answers(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        try:
            if not self._probe:
                return True
            writer.write(
                f"GET {self._probe} HTTP/1.1\r\nHost: x\r\nUser-Agent: kube-probe/1.36\r\nConnection: close\r\n\r\n".encode()
            )
            status = await reader.readline()
            return status.split(b" ")[1:2] == [b"200"]
        except OSError:
            return False
        finally:
            writer.close()


async def spawn(argv: Sequence[str], env: Mapping[str, str], log: Path) -> Process:
    """Start a program of its own; it dies with this process at the latest."""
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *argv, env=env, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def base_environment() -> dict[str, str]:
    """What an image brings along: here, where programs and modules are."""
    return {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME", "LANG") if name in os.environ}
