"""The engine's side of a zygote: starts it, asks it for children, keeps a few spares ahead."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from roost_platform.domain.errors import Unavailable
from roost_platform.engines.local.replica import Replica, State

logger = logging.getLogger(__name__)

REFILL_DELAY_S = 0.05
"""Spares are made again this long after one was taken, so that forking never competes with the wake itself."""

_START_TIMEOUT_S = 30.0
_TIMED_OUT = 1  # an exit status, as if it had given up itself

_TRIES = 3
"""How many zygotes may be lost under one request for a child."""

RUNTIME_MISSING = "runtime_missing"


class _ZygoteLost(Exception):
    """It ended before it could fork."""


class Spawner(Protocol):
    """Where a runner gets its replicas."""

    async def take(self) -> Replica:
        """A spare that lives. Raises Unavailable when none can be had."""


class MissingRuntime:
    """Stands where a runtime should be that this engine does not have."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def take(self) -> Replica:
        raise Unavailable(f"this engine has no runtime {self._name!r}", code=RUNTIME_MISSING)


class Zygote:
    """One zygote process and its spares. A lost zygote takes its children along and is started again on need."""

    def __init__(self, command: Sequence[str], *, spares: int, environment: dict[str, str]) -> None:
        self._command = list(command)
        self._wanted_spares = spares
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._pidfd = -1
        self._control: socket.socket | None = None
        self._loop = asyncio.get_running_loop()
        self._spares: deque[Replica] = deque()
        self._asked: deque[asyncio.Future[Replica]] = deque()
        self._forking = 0
        self._adopting = 0  # forked, and not linked to us yet
        self._children: dict[int, Replica] = {}
        self._starting = asyncio.Lock()
        self._up: asyncio.Future[bool] | None = None
        self._refill_timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopped = False
        self.in_force: dict[str, int] = {}
        """What the kernel lets its children give up: `seccomp` (0 or 1), `landlock` (its version, 0 = none)."""

    @property
    def children(self) -> int:
        return len(self._children)

    @property
    def spares(self) -> int:
        """Processes that wait for a model."""
        return sum(spare.state is State.SPARE for spare in self._spares)

    async def start(self) -> None:
        """Start the process if it is not there; returns when it can fork. Raises Unavailable when it cannot."""
        async with self._starting:
            for _ in range(_TRIES):
                if self._control is not None or self._stopped:
                    return
                status = await self._start_once()
                if status is None:
                    return
                if status != -signal.SIGKILL:
                    break
            raise Unavailable(
                "the runtime could not be started; is it installed? (pip install 'roost[runtime]')",
                code=RUNTIME_MISSING,
                retry_after_s=5,
            )

    async def _start_once(self) -> int | None:
        """None when it can fork, else how it ended."""
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise _no_process() from error
        try:
            with theirs:
                process = self._process = await asyncio.create_subprocess_exec(
                    *self._command,
                    "--parent",
                    str(os.getpid()),
                    "--control-fd",
                    str(theirs.fileno()),
                    pass_fds=[theirs.fileno()],
                    env=self._environment,
                    stdin=asyncio.subprocess.DEVNULL,
                )
            self._pidfd = os.pidfd_open(process.pid)
        except OSError as error:  # with its end closed, a process that was started nevertheless ends
            ours.close()
            raise _no_process() from error
        ours.setblocking(False)
        self._control = ours
        self._up = self._loop.create_future()
        self._loop.add_reader(ours, self._on_message)
        done, _ = await asyncio.wait([self._up], timeout=_START_TIMEOUT_S)
        if not done or not self._up.result():
            self._lost()
            return await process.wait() if done else _TIMED_OUT
        logger.info("zygote_started", extra={"pid": process.pid})
        self._refill()
        return None

    async def take(self) -> Replica:
        """A spare that lives; forks one when none is ahead, from another zygote when this one is lost meanwhile."""
        self._refill_later()
        while self._spares:
            replica = self._spares.popleft()
            if replica.state is State.SPARE:
                return replica
        for _ in range(_TRIES):
            await self.start()
            future: asyncio.Future[Replica] = self._loop.create_future()
            self._asked.append(future)
            self._fork()
            try:
                return await future
            except _ZygoteLost:
                continue
        raise _no_process()

    async def stop(self) -> None:
        """End the zygote; the kernel ends its children with it."""
        self._stopped = True
        if self._refill_timer is not None:
            self._refill_timer.cancel()
        self._lost()
        if self._process is not None:
            await self._process.wait()
        await asyncio.gather(*(child.gone.wait() for child in list(self._children.values())))

    def _fork(self) -> None:
        if self._control is None:
            self._refuse(_ZygoteLost())
            return
        self._forking += 1
        try:
            self._control.send(b"fork")
        except OSError:
            self._lost()

    def _refill_later(self) -> None:
        if self._refill_timer is None and not self._stopped:
            self._refill_timer = self._loop.call_later(REFILL_DELAY_S, self._refill)

    def _refill(self) -> None:
        self._refill_timer = None
        self._spares = deque(spare for spare in self._spares if spare.state is State.SPARE)
        ahead = len(self._spares) + self._adopting - len(self._asked)
        while ahead + self._forking < self._wanted_spares and self._control is not None:
            self._fork()

    def _on_message(self) -> None:
        assert self._control is not None
        try:
            message, descriptors, _, _ = socket.recv_fds(self._control, 4096, 3)
        except BlockingIOError:
            return
        except OSError:
            message, descriptors = b"", []
        if not message:
            self._lost()
            return
        document = json.loads(message)
        if "forked" in document:
            self._forking -= 1
            self._forked(document["forked"], descriptors)
        elif "exited" in document:
            child = self._children.pop(document["exited"], None)
            if child is not None:
                child.exited(document["code"])
        elif "failed" in document:
            self._forking -= 1
            self._refuse(_no_process())
        elif self._up is not None and not self._up.done():
            self.in_force = document["in_force"]
            self._up.set_result(True)

    def _forked(self, pid: int, descriptors: Sequence[int]) -> None:
        if len(descriptors) == 3:
            self._adopting += 1
            self._keep(self._loop.create_task(self._adopt(pid, descriptors)))
            return
        for descriptor in descriptors:  # this process has no more of them; the child ends when its link is closed
            os.close(descriptor)
        self._refuse(_no_process())

    async def _adopt(self, pid: int, descriptors: Sequence[int]) -> None:
        link, pidfd, output = descriptors
        replica = Replica(pid=pid, pidfd=pidfd, output=output)
        self._children[pid] = replica
        try:
            await replica.connect(socket.socket(fileno=link))
        finally:
            self._adopting -= 1
        while self._asked:
            future = self._asked.popleft()
            if not future.done():
                future.set_result(replica)
                return
        self._spares.append(replica)

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _refuse(self, error: Exception) -> None:
        while self._asked:
            future = self._asked.popleft()
            if not future.done():
                future.set_exception(error)
                return

    def _lost(self) -> None:
        """The zygote is gone, and with it every child; the next `take` starts another."""
        control, self._control = self._control, None
        if control is None:
            return
        self._loop.remove_reader(control)
        control.close()
        if self._up is not None and not self._up.done():
            self._up.set_result(False)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        os.close(self._pidfd)
        if self._process is not None:
            self._keep(self._loop.create_task(self._process.wait()))  # the next one takes its place in `_process`
        self._forking = 0
        self._spares.clear()
        for child in self._children.values():
            child.orphaned = True
            child.exited(-signal.SIGKILL)
        if not self._stopped:
            self._children.clear()
            logger.warning("zygote_lost")
        while self._asked:
            self._refuse(_ZygoteLost())


def _no_process() -> Unavailable:
    return Unavailable("no process could be started for the model", code="fork_failed", retry_after_s=1)


def say_isolation(runtime: str, in_force: Mapping[str, int]) -> None:
    """Log once what holds replicas back on this machine, and what could and does not."""
    logger.info(
        "isolation",
        extra={"runtime": runtime, **in_force, "limits": "rlimits", "cgroups": "not used", "namespaces": "not used"},
    )
    if not in_force["seccomp"]:
        logger.warning("sandbox_unavailable", extra={"runtime": runtime})
    if not in_force["landlock"]:
        logger.warning("landlock_unavailable", extra={"runtime": runtime})


def zygote_environment() -> dict[str, str]:
    """What the zygote may know: nothing of the gateway's settings or secrets."""
    kept = ("PATH", "LANG", "LC_ALL", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV")
    return {name: os.environ[name] for name in kept if name in os.environ} | {
        "ORT_DISABLE_TELEMETRY": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }


def runtime_command(model_factory: str) -> list[str]:
    # -P: nothing is imported from the folder that the server happens to be started in.
    return [sys.executable, "-P", "-m", "roost_runtimes.zygote", "--model-factory", model_factory]
