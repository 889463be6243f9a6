"""One replica as the engine sees it: a process, its link, its output, and the requests in flight on it."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Sequence
from enum import StrEnum
from time import perf_counter

import orjson

from roost_platform.domain.errors import DeadlineExceeded, ReplicaLost
from roost_platform.engines.port import UpstreamRequest, UpstreamResponse
from roost_runtimes.frames import FIGURES, Buffer, FrameProtocol, Kind

CANCEL_GRACE_S = 0.5
"""How long a cancelled run may go on before its replica is killed to get the slot back."""

_LOST_CODES = {
    -signal.SIGKILL: "killed",
    -signal.SIGSEGV: "crashed",
    -signal.SIGABRT: "crashed",
    -signal.SIGBUS: "crashed",
}


UNRESPONSIVE = "Unresponsive"


class State(StrEnum):
    SPARE = "spare"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    GONE = "gone"


class Call:
    """One request in flight. Its slot is taken until the replica has answered, whoever still waits."""

    __slots__ = ("abandoned_at", "deadline", "frame_id", "future")

    def __init__(self, frame_id: int, future: asyncio.Future[UpstreamResponse], deadline: float) -> None:
        self.frame_id = frame_id
        self.future = future
        self.deadline = deadline
        self.abandoned_at: float | None = None


class Replica(FrameProtocol):
    """A child of the zygote. Times are seconds of the running loop's clock."""

    def __init__(self, *, pid: int, pidfd: int, output: int) -> None:
        super().__init__()
        self.pid = pid
        self.state = State.SPARE
        self.inflight = 0
        self.idle_since = self._loop.time()
        self.served = 0
        self.was_ready = False
        self.orphaned = False  # it died because the zygote did
        self.ready_at = 0.0  # perf_counter's seconds
        self.state_before_gone = State.SPARE
        self.run_us = 0
        self.failure: tuple[str, str] | None = None
        self.gone = asyncio.Event()
        self.exit_code: asyncio.Future[int] = self._loop.create_future()
        self._pidfd = pidfd
        self._output = Output(output)
        self._calls: dict[int, Call] = {}
        self._next_id = 0
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self.on_slot_free: Callable[[Replica], None] = _nothing
        self.on_gone: Callable[[Replica], None] = _nothing
        self.on_asks_to_drain: Callable[[Replica], None] = _nothing

    async def connect(self, link: socket.socket) -> None:
        await self._loop.create_unix_connection(lambda: self, sock=link)

    def assign(self, assignment: dict[str, object], on_line: Callable[[str], None]) -> None:
        """Hand the spare its model; `wait_ready` tells how it went."""
        self.state = State.STARTING
        self._output.redirect(on_line)
        self.send_frame(Kind.ASSIGN, meta=orjson.dumps(assignment))
        self.flush()

    async def wait_ready(self, timeout_s: float) -> bool:
        """True once it serves; False when it failed, died or took longer (then `failure` says why)."""
        try:
            await asyncio.wait_for(asyncio.shield(self._ready), timeout_s)
        except TimeoutError:
            self.failure = ("StartTimeout", f"the model was not ready within {timeout_s:g} s")
            self.kill()
        return self.state is State.READY

    def call(self, request: UpstreamRequest, deadline: float) -> Call:
        """Send one request; the slot was taken by the caller and is given back here when the answer is in."""
        self._next_id = frame_id = (self._next_id + 1) & 0xFFFFFFFF
        call = self._calls[frame_id] = Call(frame_id, self._loop.create_future(), deadline)
        meta = orjson.dumps(
            (request.method, request.path, [(k.decode("latin-1"), v.decode("latin-1")) for k, v in request.headers])
        )
        self.send_frame(Kind.REQUEST, frame_id, meta, request.body)
        return call

    def abandon(self, call: Call) -> None:
        """Nobody waits for this answer any more: ask the replica to drop the work."""
        if call.abandoned_at is None and call.frame_id in self._calls:
            call.abandoned_at = self._loop.time()
            self.send_frame(Kind.CANCEL, call.frame_id)

    def check_deadlines(self, now: float) -> None:
        """Fail what is past its deadline; kill the replica when it does not give an abandoned slot back."""
        for call in list(self._calls.values()):
            if call.abandoned_at is None and now >= call.deadline:
                if not call.future.done():
                    call.future.set_exception(DeadlineExceeded("the model did not answer within the request's time"))
                self.abandon(call)
            elif call.abandoned_at is not None and now - call.abandoned_at > CANCEL_GRACE_S:
                self.failure = (UNRESPONSIVE, "it did not stop a cancelled request and was replaced")
                self.kill()
                return

    def drain(self) -> None:
        """Nothing new will be sent; the process exits when the last answer is out."""
        if self.state in (State.READY, State.STARTING):
            self.state = State.DRAINING
            if self.inflight == 0:
                self.send_frame(Kind.DRAIN)

    def kill(self) -> None:
        """SIGKILL by pidfd: never another process that got the same pid."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    # Frames.

    def frame_received(self, kind: int, status: int, frame_id: int, meta: Buffer, body: Buffer) -> None:
        if kind == Kind.ANSWER:
            self._answer(status, frame_id, meta, body)
        elif kind == Kind.READY:
            self.run_us = int(orjson.loads(meta)["run_us"])
            if self.state is State.STARTING:
                self.state = State.READY
                self.was_ready = True
                self.idle_since = self._loop.time()
                self.ready_at = perf_counter()
            if not self._ready.done():
                self._ready.set_result(None)
        elif kind == Kind.FAILED:
            document = orjson.loads(meta)
            self.failure = (document["reason"], document["message"])
        elif kind == Kind.DRAINING:
            self.on_asks_to_drain(self)

    def _answer(self, status: int, frame_id: int, meta: Buffer, body: Buffer) -> None:
        call = self._calls.pop(frame_id, None)
        if call is None:
            return
        self.served += 1
        if not call.future.done():
            compute_us, queue_us, rows = FIGURES.unpack_from(meta)
            headers = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in orjson.loads(meta[FIGURES.size :])]
            call.future.set_result(UpstreamResponse(status, headers, body, compute_us, queue_us, rows))
        self.release()

    def release(self) -> None:
        """Give one slot back."""
        self.inflight -= 1
        if self.inflight == 0:
            self.idle_since = self._loop.time()
            if self.state is State.DRAINING:
                # Not before: a slot may have been taken whose request is not sent yet.
                self.send_frame(Kind.DRAIN)
        self.on_slot_free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.state_before_gone, self.state = self.state, State.GONE
        calls, self._calls = self._calls, {}
        for call in calls.values():
            if not call.future.done():
                call.future.set_exception(
                    ReplicaLost("the replica died while it worked on this request; it is safe to try again")
                )
            self.release()
        if not self._ready.done():
            self._ready.set_result(None)
        self.kill()  # a process that closed its link but lives on is of no use
        os.close(self._pidfd)
        self._pidfd = -1
        self.gone.set()
        self.on_gone(self)

    def exited(self, code: int) -> None:
        """The zygote says how the process ended: an exit status, or minus a signal's number."""
        if not self.exit_code.done():
            self.exit_code.set_result(code)

    @property
    def was_killed(self) -> bool:
        """Somebody else ended it with SIGKILL: an operator, or the kernel for want of memory."""
        return self.failure is None and self.exit_code.done() and self.exit_code.result() == -signal.SIGKILL

    def why_gone(self) -> tuple[str, str]:
        """Reason and sentence for the status page."""
        if self.failure is not None:
            return self.failure
        code = self.exit_code.result() if self.exit_code.done() else None
        if code is None:
            return ("Exited", "the process ended")
        if code < 0:
            name = signal.Signals(-code).name
            return ("Crashed" if code in _LOST_CODES else "Exited", f"the process was ended by {name}")
        return ("ExitedAtStart" if self.served == 0 else "Exited", f"the process exited with status {code}")


class Output:
    """What a replica prints: read without blocking, cut into lines, passed on."""

    _MAX_LINE = 4096

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""
        self._on_line: Callable[[str], None] = _nothing
        os.set_blocking(descriptor, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._read)

    def redirect(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()[: self._MAX_LINE]
        self._pass_on(lines)
        if not data:
            self._pass_on([self._rest] if self._rest else [])
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)

    def _pass_on(self, lines: Sequence[bytes]) -> None:
        for line in lines:
            self._on_line(line[: self._MAX_LINE].decode("utf-8", "replace"))


def _nothing(_: object) -> None:
    return
