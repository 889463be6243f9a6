"""One replica as the engine sees it: a process, its link, its output, and the requests in flight on it."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Sequence
from enum import StrEnum
from time import perf_counter
from typing import cast

import orjson

from roost_platform.domain.errors import DeadlineExceeded, ReplicaLost, RoostError
from roost_platform.engines.local.held import HeldReplica
from roost_platform.engines.local.output import Output
from roost_platform.engines.local.pulse import Pulse, Sign, processor_ticks
from roost_platform.engines.local.timeline import Part
from roost_platform.engines.local.words import AnswerReader, read_failure, read_ready
from roost_platform.engines.port import Done, UpstreamRequest, UpstreamResponse
from roost_runtimes.frames import Buffer, FrameProtocol, Kind

CANCEL_GRACE_S = 0.5
"""How long a cancelled run may go on before its replica is killed to get the slot back."""
EXIT_GRACE_S = 5.0
"""How long a replica that has nothing to do may take to exit when it is told to."""

_MOST_NOTICES = 100
"""Frames of a replica's life that are no answers, besides one for each ping: an honest one sends a handful."""

_LOST_CODES = {
    -signal.SIGKILL: "killed",
    -signal.SIGSEGV: "crashed",
    -signal.SIGABRT: "crashed",
    -signal.SIGBUS: "crashed",
}


_READ_HEADERS = frozenset(
    {b"content-type", b"content-encoding", b"accept-encoding", b"inference-header-content-length", b"roost-trace"}
)
"""What the serving core looks at; the link carries no other, so that most requests of a client have the same head."""
_REMEMBERED = 256
_REQUEST, _ANSWER = int(Kind.REQUEST), int(Kind.ANSWER)

UNRESPONSIVE = "Unresponsive"
HUNG = "Hung"
MISBEHAVED = "Misbehaved"


class State(StrEnum):
    SPARE = "spare"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    GONE = "gone"


class Call:
    """One request in flight. Its slot is taken until the replica has answered, whoever still waits."""

    __slots__ = ("abandoned_at", "deadline", "done", "frame_id")

    def __init__(self, frame_id: int, done: Done, deadline: float) -> None:
        self.frame_id = frame_id
        self.done: Done | None = done
        self.deadline = deadline
        self.abandoned_at: float | None = None

    def settle(self, outcome: UpstreamResponse | RoostError) -> None:
        """Tell who waits, if anybody still does."""
        done, self.done = self.done, None
        if done is not None:
            done(outcome)


class Replica(FrameProtocol):
    """A child of the zygote. Times are seconds of the running loop's clock."""

    def __init__(self, *, pid: int, pidfd: int, output: int) -> None:
        super().__init__()
        self.pid = pid
        self.held: HeldReplica  # from `assign` on; what a spare holds is nobody's
        self.state = State.SPARE
        self.inflight = 0
        self.idle_since = self._loop.time()
        self.served = 0
        self.was_ready = False
        self.orphaned = False  # it died because the zygote did
        self.ready_at = 0.0  # perf_counter's seconds
        self.ready_since = 0.0
        self.lost_calls = 0  # requests that were in flight when it went
        self.max_body_bytes = 0
        self.state_before_gone = State.SPARE
        self.run_us = 0
        self.failure: tuple[str, str] | None = None
        self.gone = asyncio.Event()
        self.exit_code: asyncio.Future[int] = self._loop.create_future()
        self._pidfd = pidfd
        self._output = Output(output)
        self._answers = AnswerReader()
        self._answer_bytes = 0
        self._notices = _MOST_NOTICES
        self._condemned = False
        self._told_to_exit: asyncio.TimerHandle | None = None
        self._calls: dict[int, Call] = {}
        self.owes = 0
        """Slots of calls that nobody waits for and that are not given back yet. While there are any nothing new is sent:
        it would be lost if the replica has to be killed over them."""
        self._next_id = 0
        self._heads: dict[tuple[str, str, tuple[tuple[bytes, bytes], ...]], bytes] = {}
        self._pulse = Pulse()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self.on_ready: Callable[[Replica], None] = _nothing
        self.on_slot_free: Callable[[Replica], None] = _nothing
        self.on_gone: Callable[[Replica], None] = _nothing
        self.on_asks_to_drain: Callable[[Replica], None] = _nothing

    async def connect(self, link: socket.socket) -> None:
        await self._loop.create_unix_connection(lambda: self, sock=link)

    def assign(
        self,
        assignment: dict[str, object],
        on_line: Callable[[str], None],
        *,
        answer_bytes: int,
        held: HeldReplica,
    ) -> None:
        """Hand the spare its model; `wait_ready` tells how it went. `answer_bytes`: the most it may answer with."""
        self.state = State.STARTING
        self.held = held
        held.does(Part.LOAD)
        self._answer_bytes = answer_bytes
        self._output.redirect(on_line)
        self.send_frame(Kind.ASSIGN, meta=orjson.dumps({**assignment, "answer_bytes": answer_bytes}))
        self.flush()

    async def wait_ready(self, timeout_s: float) -> None:
        """Until it serves, failed or died. One that takes longer is killed, and `failure` says why."""
        try:
            await asyncio.wait_for(asyncio.shield(self._ready), timeout_s)
        except TimeoutError:
            self.failure = ("StartTimeout", f"the model was not ready within {timeout_s:g} s")
            self.kill()

    def call(self, request: UpstreamRequest, deadline: float, done: Done) -> Call:
        """Send one request; the slot was taken by the caller and is given back here when the answer is in."""
        self._next_id = frame_id = (self._next_id + 1) & 0xFFFFFFFF
        call = self._calls[frame_id] = Call(frame_id, done, deadline)
        self.max_body_bytes = self._answer_bytes
        body = cast("Sequence[bytes]", request.body)  # this engine does not stream
        self.send_frame(_REQUEST, frame_id, self._head(request), body)
        return call

    def _head(self, request: UpstreamRequest) -> bytes:
        """The meta of a REQUEST. Clients repeat themselves, so it is written once for many requests."""
        read = tuple([pair for pair in request.headers if pair[0] in _READ_HEADERS])
        key = (request.method, request.path, read)
        head = self._heads.get(key)
        if head is None:
            head = orjson.dumps(
                (request.method, request.path, [(k.decode("latin-1"), v.decode("latin-1")) for k, v in read])
            )
            if len(self._heads) >= _REMEMBERED:
                self._heads.clear()
            self._heads[key] = head
        return head

    def abandon(self, call: Call) -> None:
        """Nobody waits for this answer any more: ask the replica to drop the work."""
        call.done = None
        if call.abandoned_at is None and call.frame_id in self._calls:
            call.abandoned_at = self._loop.time()
            self.owes += 1
            self.send_frame(Kind.CANCEL, call.frame_id)

    def check_deadlines(self, now: float) -> None:
        """Fail what is past its deadline; kill the replica when it does not give an abandoned slot back."""
        for call in list(self._calls.values()):
            if call.abandoned_at is None and now >= call.deadline:
                call.settle(DeadlineExceeded("the model did not answer within the request's time"))
                self.abandon(call)
            elif call.abandoned_at is not None and now - call.abandoned_at > CANCEL_GRACE_S:
                self.failure = (UNRESPONSIVE, "it did not stop a cancelled request and was replaced")
                self.kill()
                return

    def check_pulse(self) -> None:
        """Ask whether it is there, now and then; kill it when it no longer answers."""
        sign = self._pulse.look(served=self.served, busy=self.inflight > 0, computed=lambda: processor_ticks(self.pid))
        if sign is Sign.ASK:
            self._notices += 1
            self.send_frame(Kind.PING)
        elif sign is Sign.HUNG:
            self.failure = (HUNG, "it stopped answering and was replaced")
            self.kill()

    def drain(self) -> None:
        """Nothing new will be sent; the process exits when the last answer is out."""
        if self.state in (State.READY, State.STARTING):
            self.state = State.DRAINING
            self.held.leaves()
            if self.inflight == 0:
                self._tell_to_exit()

    def _tell_to_exit(self) -> None:
        if self._told_to_exit is None:
            self.send_frame(Kind.DRAIN)
            self._told_to_exit = self._loop.call_later(EXIT_GRACE_S, self.kill)

    def kill(self) -> None:
        """SIGKILL by pidfd: never another process that got the same pid."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    # Frames.

    def frame_received(self, kind: int, status: int, frame_id: int, meta: Buffer, body: Buffer) -> None:
        if self._condemned:
            return
        if kind == _ANSWER:
            self._answer(status, frame_id, meta, body)
            return
        self._notices -= 1
        if self._notices < 0:
            self._misbehaved("it said too much")
        elif kind == Kind.READY:
            self._became_ready(read_ready(meta))
        elif kind == Kind.FAILED:
            self.failure = read_failure(meta)
            if self.failure is None or self.state is not State.STARTING:
                self._misbehaved("it failed in a way that there is not")
        elif kind == Kind.PONG:
            self._pulse.heard()
        elif kind == Kind.DRAINING:
            self.on_asks_to_drain(self)
        else:
            self._misbehaved("it sent what no replica sends")

    def _became_ready(self, run_us: int | None) -> None:
        if run_us is None or self._ready.done():
            self._misbehaved("it became ready in a way that there is not")
            return
        self.run_us = run_us
        if self.state is State.STARTING:
            self.state = State.READY
            self.was_ready = True
            self.idle_since = self.ready_since = self._loop.time()
            self.ready_at = perf_counter()
            self.held.becomes_ready()
            self.on_ready(self)  # at once: somebody waits
        self._ready.set_result(None)

    def _answer(self, status: int, frame_id: int, meta: Buffer, body: Buffer) -> None:
        call = self._calls.get(frame_id)
        response = self._answers.read(status, meta, body)
        if call is None or response is None:
            self._misbehaved("it sent an answer that is malformed or that nobody asked for")
            return
        del self._calls[frame_id]
        if call.abandoned_at is not None:
            self.owes -= 1
        if not self._calls:
            self.max_body_bytes = 0
        self.served += 1
        self.release()
        call.settle(response)

    def _refuse(self) -> None:
        self._misbehaved("it announced more than it may send")

    def _misbehaved(self, how: str) -> None:
        """No honest replica does this: whatever it has become, it is not heard further."""
        self._condemned = True
        self.failure = (MISBEHAVED, f"the replica was ended because {how}")
        self.kill()
        super()._refuse()

    def release(self) -> None:
        """Give one slot back."""
        self.inflight -= 1
        if self.inflight == 0:
            self.held.idle()
            self.idle_since = self._loop.time()
            if self.state is State.DRAINING:
                # Not before: a slot may have been taken whose request is not sent yet.
                self._tell_to_exit()
        self.on_slot_free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.state_before_gone, self.state = self.state, State.GONE
        calls, self._calls = self._calls, {}
        self.lost_calls = len(calls)
        if self._told_to_exit is not None:
            self._told_to_exit.cancel()
        for call in calls.values():
            self.release()
            call.settle(ReplicaLost("the replica died while it worked on this request; it is safe to try again"))
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


def _nothing(_: object) -> None:
    return
