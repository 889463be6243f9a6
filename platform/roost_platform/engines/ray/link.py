"""The gateway's end of the link to its driver: see driver.py."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
from dataclasses import asdict
from typing import Any

from roost_platform.engines.ray.settings import RaySettings

logger = logging.getLogger(__name__)

_MOST_LINE_BYTES = 64 * 1024**2
_MOST_SAID = 2000
_WITHIN_S = {"connect": 180.0, "disconnect": 90.0}
_OTHERS_WITHIN_S = 60.0
_KILL_AFTER_S = 5.0


class DriverLost(ConnectionError):
    """The driver's process ended, or did not answer in time and was ended."""


class RayRefused(Exception):
    """A call of Ray's failed; with its words."""


class Driver:
    """One driver process at a time; the next call after one was lost starts another. Belongs to one event loop."""

    def __init__(self, settings: RaySettings) -> None:
        self._settings = settings
        self._lock = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._said: asyncio.Task[None] | None = None
        self._number = 0

    async def call(self, method: str, *arguments: Any) -> Any:
        """Raises DriverLost, or RayRefused."""
        async with self._lock:
            if self._process is None:
                await self._start()
            assert self._writer is not None
            self._number += 1
            try:
                self._writer.write(json.dumps([self._number, method, arguments]).encode() + b"\n")
                async with asyncio.timeout(_WITHIN_S.get(method, _OTHERS_WITHIN_S)):
                    answer, failure = await self._answer(self._number)
            except (TimeoutError, OSError, ValueError) as error:
                await self.drop()
                raise DriverLost(f"Ray's driver was lost in {method}") from error
        if failure is not None:
            raise RayRefused(failure)
        return answer

    async def stop(self) -> None:
        """Ends it in order, and with it a Ray that it started. No harm when there is none."""
        if self._process is None:
            return
        with contextlib.suppress(DriverLost, RayRefused):
            await self.call("disconnect")
        await self.drop()

    async def _start(self) -> None:
        ours, its = socket.socketpair()
        with its:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "roost_platform.engines.ray.driver",
                str(its.fileno()),
                pass_fds=[its.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,  # what a terminal sends is for the gateway, which ends this one in its turn
            )
        self._said = asyncio.create_task(_pass_on(self._process))
        self._reader, self._writer = await asyncio.open_unix_connection(sock=ours, limit=_MOST_LINE_BYTES)
        self._writer.write(json.dumps(asdict(self._settings)).encode() + b"\n")

    async def _answer(self, number: int) -> tuple[Any, str | None]:
        """The answer of this number: those of calls that were given up come before it."""
        assert self._reader is not None
        while line := await self._reader.readline():
            of, answer, failure = json.loads(line)
            if of == number:
                return answer, failure
        raise ConnectionResetError("the driver ended")

    async def drop(self) -> None:
        """Ends it, the hard way if it does not go. The next call starts another. No harm when there is none."""
        process, self._process = self._process, None
        if process is None:
            return
        assert self._writer is not None
        self._writer.close()
        try:
            async with asyncio.timeout(_KILL_AFTER_S):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # a Ray that it started dies with it
            await process.wait()
        if self._said is not None:
            self._said.cancel()


async def _pass_on(process: asyncio.subprocess.Process) -> None:
    """What Ray says in the driver's process is logged."""
    assert process.stdout is not None
    while said := await process.stdout.read(_MOST_SAID):
        for line in said.decode("utf-8", "replace").splitlines():
            if text := line.strip():
                logger.warning("ray_said", extra={"text": text})
