"""The processes behind the checker: a zygote that is there while files come in, and one child of it per file.

Nothing here knows what a verdict means. A zygote is started when it is needed, and ended when there was nothing to check
for a while, for an idle server should not pay its memory. It ends with this process, and its children end with it.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from roost_platform.domain.errors import Unavailable
from roost_platform.registry.finishing import to_the_end

LONGEST_ANSWER = 64 * 1024
_START_LIMIT_S = 60.0
_KILL_LIMIT_S = 5.0
"""A zygote that does not say so long after a kill that its child ended is stuck, and is killed itself."""
_TRIES = 3
"""How many zygotes may be lost under one file; nothing in a file can reach them."""
_MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended, and what it said; `status` as `subprocess` has it, answers too long are none."""

    status: int
    answer: bytes
    errors: bytes
    too_late: bool = False


class JobTime:
    """How long a job ran that came to an end of its own, or was ended for what it did."""

    __slots__ = ("us",)

    def __init__(self) -> None:
        self.us = 0
        """Microseconds from when a child was asked for; 0 when there was none, or it was lost."""


class CheckProcesses:
    """Runs jobs in children of a zygote. Belongs to one event loop."""

    def __init__(self, python: str, *, idle_s: float) -> None:
        self._python = python
        self._idle_s = idle_s
        self._zygote: _Zygote | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._running = 0

    def prepare(self) -> None:
        """Start the zygote if it is not there, so that it is ready when the file is. Does not wait, raises nothing."""
        with suppress(Unavailable):
            self._ensure()
            self._end_when_idle()

    async def run(self, job: dict[str, Any], *, wall_s: float, spent: JobTime) -> Ended:
        """Have a child do a job; when this returns or raises, it and all that it forked are dead.

        `spent` is told how long that took, also where nobody waits for it any more.

        Raises Unavailable (runtime_missing among others) when no child can be had.
        """
        self._running += 1
        try:
            for _ in range(_TRIES):
                zygote = self._ensure()
                ended = await zygote.run(job, wall_s=wall_s, spent=spent)
                if ended is not None:
                    return ended
                spent.us = 0
            raise _none_now()
        finally:
            self._running -= 1
            self._end_when_idle()

    def close(self) -> None:
        """End the zygote and what it does. A later use starts another."""
        if self._zygote is not None:
            self._zygote.close()
            self._zygote = None

    def _ensure(self) -> "_Zygote":
        if self._timer is not None:
            self._timer.cancel()
        if self._zygote is None or self._zygote.lost:
            self._zygote = _Zygote(self._python)
        return self._zygote

    def _end_when_idle(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if self._running else asyncio.get_running_loop().call_later(self._idle_s, self.close)


@dataclass(frozen=True, slots=True)
class _Job:
    """Both become None when the zygote is lost."""

    pidfd: asyncio.Future[int | None]
    status: asyncio.Future[int | None]


class _Zygote:
    """One process, from its start to its end."""

    def __init__(self, python: str) -> None:
        """Raises Unavailable when it cannot be started."""
        self._loop = asyncio.get_running_loop()
        self._up: asyncio.Future[str | None] = self._loop.create_future()
        """`ready`, `missing`, or None when it ended before it said so."""
        self._jobs: dict[int, _Job] = {}
        self._numbers = 0
        self.lost = False
        self._said = b""
        """What a lost one wrote to its standard error."""
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._log = os.memfd_create("check-zygote")
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - our own interpreter; starting it takes a millisecond
                    [python, "-I", "-m", "roost_runtimes.check_zygote", *self._arguments(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._log,
                    cwd="/",
                    env=check_environment(),
                    start_new_session=True,
                )
        except OSError as error:
            self._control.close()
            os.close(self._log)
            raise _none_now() from error
        self._end = weakref.finalize(self, _end, self._process, self._control, self._log)
        self._control.setblocking(False)
        self._loop.add_reader(self._control, self._on_message)

    @staticmethod
    def _arguments(control_fd: int) -> list[str]:
        return ["--parent", str(os.getpid()), "--control-fd", str(control_fd)]

    async def run(self, job: dict[str, Any], *, wall_s: float, spent: JobTime) -> Ended | None:
        """None when the zygote was lost. Raises Unavailable."""
        if not await self._ready():
            return None
        with tempfile.TemporaryDirectory(prefix="roost-check-") as folder:
            answer, errors = _Pipe(), _Pipe()
            try:
                begun = self._send(job | {"folder": folder}, answer.child_end, errors.child_end)
            finally:
                answer.close_child_end()
                errors.close_child_end()
            since_ns = time.monotonic_ns()
            try:
                return await self._listen(begun, answer, errors, wall_s)
            finally:
                spent.us = (time.monotonic_ns() - since_ns) // 1000
                answer.close()
                errors.close()
                await to_the_end(self._finish(begun))

    async def _ready(self) -> bool:
        """False when it was lost. Raises Unavailable when another one would do no better."""
        done, _ = await asyncio.wait([self._up], timeout=_START_LIMIT_S)
        if not done:
            self.close()
            raise _none_now()
        if self._up.result() == _MISSING or b"No module named" in self._said:
            raise Unavailable(
                "no ONNX runtime is installed beside the gateway: install roost[runtime]", code="runtime_missing"
            )
        if self.lost and (self._process.returncode or 0) > 0:
            raise Unavailable("the model checker does not work on this machine", code="checker_broken")
        return not self.lost

    def _send(self, job: dict[str, Any], answer: int, errors: int) -> _Job:
        self._numbers += 1
        begun = _Job(self._loop.create_future(), self._loop.create_future())
        self._jobs[self._numbers] = begun
        message = json.dumps(job | {"job": self._numbers}).encode()
        try:
            socket.send_fds(self._control, [message], [answer, errors])
        except OSError:
            self.close()
        return begun

    async def _listen(self, begun: _Job, answer: "_Pipe", errors: "_Pipe", wall_s: float) -> Ended | None:
        try:
            async with asyncio.timeout(wall_s):
                pidfd = await asyncio.shield(begun.pidfd)
                if pidfd is None:
                    return None
                answer.on_overflow = lambda: _kill(pidfd)
                status = await asyncio.shield(begun.status)
                await answer.done
                await errors.done
        except TimeoutError:
            return Ended(0, b"", b"", too_late=True)
        if status is None:
            return None
        return Ended(0, b"", b"") if answer.overflown else Ended(status, bytes(answer.kept), bytes(errors.kept))

    async def _finish(self, begun: _Job) -> None:
        try:
            async with asyncio.timeout(_KILL_LIMIT_S):
                pidfd = await asyncio.shield(begun.pidfd)
                if pidfd is not None:
                    _kill(pidfd)
                    await asyncio.shield(begun.status)
        except TimeoutError:
            self.close()
        if begun.pidfd.done() and (pidfd := begun.pidfd.result()) is not None:
            os.close(pidfd)

    def _on_message(self) -> None:
        try:
            message, descriptors, _, _ = socket.recv_fds(self._control, 4096, 1)
        except BlockingIOError:
            return
        except OSError:
            message, descriptors = b"", []
        if not message:
            self.close()
            return
        document = json.loads(message)
        if "job" not in document:
            self._up.set_result("ready" if "ready" in document else _MISSING)
        elif "status" in document:
            self._jobs.pop(document["job"]).status.set_result(document["status"])
        elif "pid" in document:
            self._jobs[document["job"]].pidfd.set_result(descriptors[0])
        else:  # no memory for a child
            job = self._jobs.pop(document["job"])
            job.pidfd.set_result(None)
            job.status.set_result(None)

    def close(self) -> None:
        """Kill it; the kernel kills its children with it."""
        if self.lost:
            return
        self.lost = True
        self._loop.remove_reader(self._control)
        self._said = os.pread(self._log, LONGEST_ANSWER, 0)
        self._end()
        if not self._up.done():
            self._up.set_result(None)
        for job in self._jobs.values():
            for future in (job.pidfd, job.status):
                if not future.done():
                    future.set_result(None)
        self._jobs.clear()


class _Pipe:
    """What a child writes to one descriptor: all is read, so that it is never held up, and the first 64 kB are kept.

    Not uvloop's own reader of pipes: that closes a descriptor twice, and in between another thread may have been given
    the same number for a file of its own.
    """

    def __init__(self) -> None:
        self.kept = bytearray()
        self.overflown = False
        self._length = 0
        self.on_overflow: Callable[[], None] = lambda: None
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self._loop.create_future()
        self._read_end, self.child_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read_end, False)
        self._loop.add_reader(self._read_end, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._read_end, LONGEST_ANSWER)
        except BlockingIOError:
            return
        if not data:
            self.close()
            return
        self.kept += data[: max(LONGEST_ANSWER - len(self.kept), 0)]
        self._length += len(data)
        if self._length > LONGEST_ANSWER and not self.overflown:
            self.overflown = True
            self.on_overflow()

    def close_child_end(self) -> None:
        """The child has its own copy."""
        os.close(self.child_end)

    def close(self) -> None:
        if self._read_end >= 0:
            self._loop.remove_reader(self._read_end)
            os.close(self._read_end)
            self._read_end = -1
            self.done.set_result(None)


def check_environment() -> dict[str, str]:
    """Nothing of ours goes along: the environment may hold secrets."""
    return {
        "PATH": os.defpath,
        "LC_ALL": "C.UTF-8",
        "ORT_DISABLE_TELEMETRY": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",  # large pages: half of the kernel's work on a large file
    }


def _kill(pidfd: int) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes], control: socket.socket, log: int) -> None:
    process.kill()
    control.close()
    process.wait()
    os.close(log)


def _none_now() -> Unavailable:
    return Unavailable("no model checker can be started right now", code="checker_lost", retry_after_s=5)
