"""Runs calls on a model: a queue, a number of slots, batching, cancellation; on the event loop or in threads.

    put ─▶ queue ─▶ pump: while a slot is free ─▶ execute (loop or thread) ─▶ finish: answer, free the slot, pump

All methods belong to the event loop's thread, except `_execute`, which touches nothing but its own job and the model.
No thread exists before a run needs one, so the process may be forked until then.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter_ns, thread_time_ns

from roost_runtimes.activity import Activity
from roost_runtimes.batching import can_batch, run_stacked, take_batch
from roost_runtimes.codec import Call
from roost_runtimes.content import compress
from roost_runtimes.errors import RequestError
from roost_runtimes.figures import Figures
from roost_runtimes.messages import CANCELLED_STATUS, Answer, error_answer
from roost_runtimes.model import Array, Model, ModelError, RunControl
from roost_runtimes.pace import INLINE_BELOW_US, INLINE_BODY_BYTES, Pace

logger = logging.getLogger(__name__)

Done = Callable[[Answer], None]

_TURN_NS = 10_000_000
"""Runs on the loop make way for other events after this long."""

_STATUS = {"invalid_input": 400, "model_error": 422, "out_of_memory": 502, "cancelled": CANCELLED_STATUS}


class Ticket:
    """One request on its way through the queue and a run; what `Core.cancel` takes."""

    __slots__ = (
        "accept", "answer", "born_ns", "call", "cancelled", "compute_us", "decode_us", "done", "job", "queue_us", "size",
    )  # fmt: skip

    def __init__(
        self,
        call: Call,
        done: Done,
        *,
        size: int,
        accept: str | None,
        born_ns: int,
        decode_us: int | None = None,
    ) -> None:
        """`decode_us`: None = nobody asks what reading and writing take."""
        self.call = call
        self.done = done
        self.size = size
        self.accept = accept
        self.born_ns = born_ns
        self.decode_us = decode_us
        self.queue_us = 0
        self.compute_us = 0
        self.cancelled = False
        self.answer: Answer | None = None
        self.job: Job | None = None


class Job:
    """One run: the tickets that share it."""

    __slots__ = ("control", "elapsed_us", "run_us", "runs", "tickets")

    def __init__(self, tickets: list[Ticket], control: RunControl | None) -> None:
        self.tickets = tickets
        self.control = control
        self.runs = 0
        self.run_us = 0
        self.elapsed_us = 0


class Execution:
    """The queue and the slots of one model."""

    def __init__(self, model: Model, *, slots: int, max_batch_size: int, pace: Pace, figures: Figures) -> None:
        self.batches = max_batch_size > 1 and can_batch(model)
        self.inflight = 0
        self.activity = Activity()
        self.pace = pace
        self._model = model
        self._slots = slots
        self._max_batch_size = max_batch_size
        self._figures = figures
        self._queue: deque[Ticket] = deque()
        self._running: set[Job] = set()
        self._pumping = False
        self._pool: ThreadPoolExecutor | None = None

    @property
    def queued(self) -> int:
        return len(self._queue)

    def put(self, ticket: Ticket) -> None:
        if not self.inflight:
            self.activity.began(ticket.born_ns)
        self.inflight += 1
        self._queue.append(ticket)

    def pump(self) -> None:
        """Start what is queued, as far as slots go."""
        if self._pumping:
            return  # called by a `done` of the loop below, which goes on by itself
        self._pumping = True
        queue, stop_ns, cpu_ns = self._queue, 0, 0
        try:
            while queue and len(self._running) < self._slots:
                tickets = take_batch(queue, self._max_batch_size) if self.batches else [queue.popleft()]
                if not self.pace.inline or sum(ticket.size for ticket in tickets) > INLINE_BODY_BYTES:
                    self._start_thread(tickets)
                    continue
                job = Job(tickets, None)
                now = perf_counter_ns()
                if not stop_ns:
                    stop_ns, cpu_ns = now + _TURN_NS, thread_time_ns()
                self._execute(job)
                if job.elapsed_us >= INLINE_BELOW_US:
                    # Time that this thread did not get is not the model's: on a busy machine it would look slow. What
                    # it had got in this turn before is at most the time that had passed, so this errs towards quick.
                    earlier_ns = now - (stop_ns - _TURN_NS)
                    job.elapsed_us = min(job.elapsed_us, max(1, (thread_time_ns() - cpu_ns - earlier_ns) // 1000))
                self._finish(job)
                if perf_counter_ns() > stop_ns and queue:
                    asyncio.get_running_loop().call_soon(self.pump)
                    break
        finally:
            self._pumping = False

    def cancel(self, ticket: Ticket) -> None:
        """Drop it from the queue, or end its run if nobody else waits for that. Too late is fine."""
        if ticket.cancelled or ticket.answer is not None:
            return
        ticket.cancelled = True
        job = ticket.job
        if job is None:
            self._queue.remove(ticket)
            self._answer(ticket, _cancelled())
        elif job.control is not None and all(one.cancelled for one in job.tickets):
            job.control.cancel()

    def close(self) -> None:
        """Cancel everything; runs that cannot be cancelled are left to their threads."""
        for ticket in [*self._queue, *(ticket for job in self._running for ticket in job.tickets)]:
            self.cancel(ticket)
        if self._pool is not None:
            self._pool.shutdown(wait=False)

    def _start_thread(self, tickets: list[Ticket]) -> None:
        job = Job(tickets, self._model.control())
        for ticket in tickets:
            ticket.job = job
        self._running.add(job)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._slots, thread_name_prefix="model")
        self._pool.submit(self._work, job, asyncio.get_running_loop())

    def _work(self, job: Job, loop: asyncio.AbstractEventLoop) -> None:
        self._execute(job)
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._finish_thread, job)

    def _finish_thread(self, job: Job) -> None:
        self._running.discard(job)
        self._finish(job)
        self.pump()

    def _finish(self, job: Job) -> None:
        figures = self._figures
        self.pace.observe(job.elapsed_us)
        figures.runs += job.runs
        figures.busy_us += job.run_us
        figures.batch_requests.add(len(job.tickets))
        for ticket in job.tickets:
            answer = ticket.answer
            assert answer is not None, "a job answers all its tickets"
            answer.compute_us, answer.queue_us, answer.rows = ticket.compute_us, ticket.queue_us, ticket.call.rows
            figures.compute_us.add(ticket.compute_us)
            figures.queue_us.add(ticket.queue_us)
            if answer.status == 200:
                figures.rows += ticket.call.rows
            self._answer(ticket, answer)

    def _answer(self, ticket: Ticket, answer: Answer) -> None:
        ticket.answer = answer
        self.inflight -= 1
        now_ns = perf_counter_ns()
        if not self.inflight:
            self.activity.ended(now_ns)
        self._figures.count_answer(answer.status)
        self._figures.request_us += (now_ns - ticket.born_ns) // 1000
        ticket.done(answer)

    def _execute(self, job: Job) -> None:
        """Run and write the answers of all tickets; never raises."""
        tickets, begin = job.tickets, perf_counter_ns()
        for ticket in tickets:
            ticket.queue_us = (begin - ticket.born_ns) // 1000
        if len(tickets) == 1 or not self._execute_stacked(job):
            for ticket in tickets:
                self._execute_alone(job, ticket)
        job.elapsed_us = (perf_counter_ns() - begin) // 1000

    def _execute_alone(self, job: Job, ticket: Ticket) -> None:
        call = ticket.call
        begin = perf_counter_ns()
        arrays: list[Array] = []
        failure: Exception | None = None
        try:
            arrays = self._model.run(call.feeds, call.outputs, job.control)
        except Exception as error:  # noqa: BLE001 - whatever a model raises fails its own request only
            failure = error
        ticket.compute_us = _account(job, begin)
        ticket.answer = _write(ticket, arrays) if failure is None else failure_answer(failure)

    def _execute_stacked(self, job: Job) -> bool:
        """Run a batch as one; False when each must be run alone, because the batch failed or cannot be told apart."""
        tickets = job.tickets
        begin = perf_counter_ns()
        outputs = tickets[0].call.outputs
        try:
            split = run_stacked(
                [ticket.call for ticket in tickets], lambda feeds: self._model.run(feeds, outputs, job.control)
            )
        except Exception as error:  # noqa: BLE001 - found again, and answered, in the run alone
            spent = _account(job, begin)
            if isinstance(error, ModelError) and error.code == "cancelled":
                _share(tickets, spent)
                for ticket in tickets:
                    ticket.answer = _cancelled()
                return True
            return False
        spent = _account(job, begin)
        if split is None:
            return False
        _share(tickets, spent)
        for ticket, arrays in zip(tickets, split, strict=True):
            ticket.answer = _write(ticket, arrays)
        return True


def _account(job: Job, begin_ns: int) -> int:
    """Book one run that began then; its microseconds, at least 1 so that no run is free."""
    spent = max(1, (perf_counter_ns() - begin_ns) // 1000)
    job.runs += 1
    job.run_us += spent
    return spent


def _share(tickets: Sequence[Ticket], spent_us: int) -> None:
    """Split a run's time by rows, to the last microsecond: the shares add up to the whole."""
    rows_left, us_left = sum(ticket.call.rows for ticket in tickets), spent_us
    for ticket in tickets:
        rows = ticket.call.rows
        ticket.compute_us = us_left * rows // rows_left
        us_left -= ticket.compute_us
        rows_left -= rows


def _write(ticket: Ticket, arrays: Sequence[Array]) -> Answer:
    begin_ns = 0 if ticket.decode_us is None else perf_counter_ns()
    try:
        headers, pieces = ticket.call.encode(arrays)
        if ticket.accept is not None:
            compressed = compress(pieces, ticket.accept)
            if compressed is not None:
                encoding, pieces = compressed
                headers = (*headers, ("content-encoding", encoding), ("vary", "accept-encoding"))
    except Exception as error:  # noqa: BLE001 - an answer that cannot be written fails its own request only
        return failure_answer(error)
    answer = Answer(200, headers, pieces)
    if ticket.decode_us is not None:
        answer.codec_us = ticket.decode_us, (perf_counter_ns() - begin_ns) // 1000
    return answer


def failure_answer(error: Exception) -> Answer:
    """What the client is told of this error; what nobody foresaw is logged, and only called internal."""
    if isinstance(error, RequestError):
        return error_answer(error)
    if isinstance(error, ModelError):
        return error_answer(RequestError(error.message, status=_STATUS.get(error.code, 422), code=error.code))
    if isinstance(error, MemoryError):
        return error_answer(RequestError("the model ran out of memory on this input", status=502, code="out_of_memory"))
    logger.error("request_failed", exc_info=error)
    return error_answer(RequestError("the request failed inside the server", status=500, code="internal"))


def _cancelled() -> Answer:
    return error_answer(RequestError("the request was cancelled", status=CANCELLED_STATUS, code="cancelled"))
