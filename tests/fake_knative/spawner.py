"""Starts Python programs quickly, by way of the fork server: each is a process of its own like any other.

`python -m module arguments` goes this way, every other command is started as it is.
"""

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from fake_knative.container import Process, spawn


class _Forked:
    """Like asyncio's own processes, as far as a container needs it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def wait(self) -> int:
        return await asyncio.shield(self._code)

    def send_signal(self, number: int, /) -> None:
        if not self._code.done():
            os.kill(self.pid, number)

    def ended(self, code: int) -> None:
        self._code.set_result(code)


class Spawner:
    """The parent's side."""

    async def start(self) -> None:
        """The imports go on meanwhile."""
        self._starting: dict[int, asyncio.Future[_Forked]] = {}
        self._running: dict[int, _Forked] = {}
        env = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "fork_server",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=env,
        )
        self._reading = asyncio.create_task(self._read())

    async def stop(self) -> None:
        self._reading.cancel()
        self._process.kill()  # its children follow it
        await asyncio.gather(self._reading, self._process.wait(), return_exceptions=True)

    async def spawn(self, argv: Sequence[str], env: Mapping[str, str], log: Path) -> Process:
        if tuple(argv[:2]) != (sys.executable, "-m"):
            return await spawn(argv, env, log)
        assert self._process.stdin is not None
        future: asyncio.Future[_Forked] = asyncio.get_running_loop().create_future()
        self._starting[id(future)] = future
        order = {"id": id(future), "module": argv[2], "arguments": list(argv[3:]), "env": dict(env), "log": str(log)}
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        return await future

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            message = json.loads(line)
            if "id" in message:
                forked = self._running[message["pid"]] = _Forked(message["pid"])
                self._starting.pop(message["id"]).set_result(forked)
            else:
                self._running.pop(message["pid"]).ended(message["code"])
