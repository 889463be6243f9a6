"""The framed door of a replica: the same core as behind HTTP, spoken to by the local engine over a Unix socket."""

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import uvloop

from roost_runtimes.artifact import check_digest
from roost_runtimes.content import fold_headers
from roost_runtimes.core import Answer, Core, Request
from roost_runtimes.errors import RequestError
from roost_runtimes.factories import ModelFactory
from roost_runtimes.frames import FIGURES, Buffer, FrameProtocol, Kind
from roost_runtimes.messages import error_answer
from roost_runtimes.model import ModelError
from roost_runtimes.sandbox import set_process_name

logger = logging.getLogger(__name__)

_REMEMBERED = 256
_REQUEST, _ANSWER = int(Kind.REQUEST), int(Kind.ANSWER)


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a replica is told to serve; the meta of an ASSIGN frame."""

    name: str
    version: str
    path: str
    digest: str
    """sha256 of the uploaded file, which is verified before it is loaded; a baked one was made from it."""
    baked: bool
    """The file was optimised when it was uploaded: load it as it is."""
    slots: int
    """Requests computed at once."""
    max_batch_size: int
    run_us: int
    """What a warm run took in an earlier replica of this revision; 0 = unknown, so warm up before saying ready."""
    memory_bytes: int
    """Private memory that it may take beyond what a spare has."""
    answer_bytes: int
    """Largest body of an answer: the engine hangs up on a larger one."""


Confine = Callable[[Assignment], None]
"""Gives up what this assignment does not need, for good, before the model is opened."""


class ReplicaLink(FrameProtocol):
    """Waits for one assignment, then serves it until it is drained or the engine goes away."""

    def __init__(self, factory: ModelFactory, confine: Confine, on_closed: Callable[[int], None]) -> None:
        super().__init__()
        self._factory = factory
        self._confine = confine
        self._on_closed = on_closed
        self._core: Core | None = None
        self._tickets: dict[int, Any] = {}
        self._answer_bytes = 0
        self._draining = False
        # Clients repeat themselves, so heads are read and written once for many requests.
        self._heads: dict[Buffer, tuple[str, str, dict[str, str]]] = {}
        self._answer_heads: dict[Sequence[tuple[str, str]], bytes] = {}

    def frame_received(self, kind: int, status: int, frame_id: int, meta: Buffer, body: Buffer) -> None:
        if kind == _REQUEST:
            self._request(frame_id, meta, body)
        elif kind == Kind.CANCEL:
            self._cancel(frame_id)
        elif kind == Kind.ASSIGN:
            self._assign(Assignment(**orjson.loads(meta)))
        elif kind == Kind.PING:
            self.send_frame(Kind.PONG)
        elif kind == Kind.DRAIN:
            self._draining = True
            self._exit_when_drained()

    def read_finished(self) -> None:
        if self._core is not None:
            self._core.pump()
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        # Nobody is left to answer to; a run under way is not worth waiting for.
        os._exit(0)

    def asked_to_stop(self) -> None:
        """SIGTERM: tell the engine, keep serving what still arrives, exit once it has drained us."""
        if self._core is None:
            self._on_closed(0)
        else:
            self.send_frame(Kind.DRAINING)

    def _assign(self, assignment: Assignment) -> None:
        set_process_name(f"roost:{assignment.name}")
        started = time.perf_counter()
        self._answer_bytes = assignment.answer_bytes
        try:
            self._confine(assignment)
            self._core = self._load(assignment)
        except ModelError as error:
            self._fail("OutOfMemory" if error.code == "out_of_memory" else "LoadFailed", str(error))
            return
        except MemoryError:
            self._fail("OutOfMemory", "the model does not fit into the memory of one replica")
            return
        load_us = int((time.perf_counter() - started) * 1e6)
        self.send_frame(Kind.READY, meta=orjson.dumps({"load_us": load_us, "run_us": self._core.run_us}))
        self.flush()
        logger.info("model_ready", extra={"model": assignment.name, "version": assignment.version, "load_us": load_us})

    def _load(self, assignment: Assignment) -> Core:
        if not assignment.baked:
            check_digest(Path(assignment.path), assignment.digest)
        model = self._factory(assignment.path, name=assignment.name, version=assignment.version, baked=assignment.baked)
        core = Core(
            model, slots=assignment.slots, max_batch_size=assignment.max_batch_size, run_us=assignment.run_us or None
        )
        core.warm_up()
        return core

    def _fail(self, reason: str, message: str) -> None:
        logger.error("model_failed", extra={"reason": reason, "detail": message})
        self.send_frame(Kind.FAILED, meta=orjson.dumps({"reason": reason, "message": message}))
        self.flush()
        self._on_closed(1)

    def _request(self, frame_id: int, meta: Buffer, body: Buffer) -> None:
        assert self._core is not None, "a request before the assignment"
        head = self._heads.get(meta) or self._read_head(meta)
        tickets = self._tickets

        def done(answer: Answer) -> None:
            del tickets[frame_id]
            if sum(map(len, answer.body)) > self._answer_bytes:
                answer = _too_large(answer, self._answer_bytes)
            if answer.codec_us is None:
                answer_head = self._answer_heads.get(answer.headers) or self._write_head(answer.headers)
            else:
                answer_head = orjson.dumps([*answer.headers, *answer.told()])
            figures = FIGURES.pack(answer.compute_us, answer.queue_us, answer.rows)
            self.send_frame(_ANSWER, frame_id, figures + answer_head, answer.body, status=answer.status)
            if self._draining:
                self._exit_when_drained()

        tickets[frame_id] = None  # `done` may be called before `submit` returns
        ticket = self._core.submit(Request(*head, body), done)
        if frame_id in tickets:
            tickets[frame_id] = ticket

    def _read_head(self, meta: Buffer) -> tuple[str, str, dict[str, str]]:
        method, path, pairs = orjson.loads(meta)
        if len(self._heads) >= _REMEMBERED:
            self._heads.clear()
        head = self._heads[bytes(meta)] = (method, path, fold_headers(pairs))
        return head

    def _write_head(self, headers: Sequence[tuple[str, str]]) -> bytes:
        if len(self._answer_heads) >= _REMEMBERED:
            self._answer_heads.clear()
        head = self._answer_heads[tuple(headers)] = orjson.dumps(headers)
        return head

    def _cancel(self, frame_id: int) -> None:
        if self._core is not None and frame_id in self._tickets:
            self._core.cancel(self._tickets[frame_id])

    def _exit_when_drained(self) -> None:
        if not self._tickets:
            self.flush()
            self._on_closed(0)


def _too_large(answer: Answer, limit: int) -> Answer:
    error = RequestError(f"the model's answer is larger than {limit} bytes", status=422, code="answer_too_large")
    refusal = error_answer(error)
    refusal.compute_us, refusal.queue_us, refusal.rows = answer.compute_us, answer.queue_us, answer.rows
    return refusal


def serve_link(link: socket.socket, factory: ModelFactory, confine: Confine) -> int:
    """Run one replica on its end of the link until it is drained; returns the exit status."""
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    finished: asyncio.Future[int] = loop.create_future()

    def closed(status: int) -> None:
        if not finished.done():
            finished.set_result(status)

    async def run() -> int:
        _, protocol = await loop.create_unix_connection(lambda: ReplicaLink(factory, confine, closed), sock=link)
        loop.add_signal_handler(signal.SIGTERM, protocol.asked_to_stop)
        return await finished

    return loop.run_until_complete(run())
