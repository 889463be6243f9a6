"""One revision on this machine: its replicas, the requests that wait for one, and how many there should be."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from roost_platform.autoscaling.revision import RevisionScaler
from roost_platform.domain.errors import DeadlineExceeded, RoostError, Unavailable
from roost_platform.domain.scaling import ScalingPolicy
from roost_platform.domain.services import Readiness, Revision, RevisionKey, RevisionStatus
from roost_platform.engines.local.budget import Budget, replica_bytes
from roost_platform.engines.local.held import Held, HeldReplica
from roost_platform.engines.local.replica import UNRESPONSIVE, Replica, State
from roost_platform.engines.local.setbacks import Setbacks
from roost_platform.engines.local.starting import Fetch, Locate, RunnerSettings, why_not_started
from roost_platform.engines.local.timeline import Part
from roost_platform.engines.local.waiting import Waiter, WaitingLine
from roost_platform.engines.local.zygote import Spawner
from roost_platform.engines.output import Output

logger = logging.getLogger(__name__)

_STATUS_LOG_LINES = 20
_END_GRACE_S = 5.0
_SLOW_RUN_US = 1_000_000
"""Told to a replica, it makes no run on its event loop."""


class Runner:
    """Runs one revision. Everything happens on the event loop.

    Deadlines and delays are seconds of the loop's clock; `clock` is the autoscaler's, which a test may move.
    """

    def __init__(
        self,
        key: RevisionKey,
        revision: Revision,
        policy: ScalingPolicy,
        *,
        reachable: bool,
        zygote: Spawner,
        locate: Locate,
        fetch: Fetch,
        budget: Budget,
        make_room: Callable[["Runner"], None],
        on_awake: Callable[["Runner"], None],
        on_freed: Callable[[], None],
        on_idle: Callable[[Replica], None],
        held: Held,
        settings: RunnerSettings,
        clock: Callable[[], float],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._clock = clock
        self.key = key
        self.revision = revision
        self.policy = policy
        self.scaler = RevisionScaler(
            policy, reachable=reachable or not revision.proven, now=clock(), proven=revision.proven
        )
        self.replicas: list[Replica] = []
        self.waiters = WaitingLine()
        self.wanted = 0
        self.activations = 0
        self.size = replica_bytes(measured=revision.memory_bytes, artifact=revision.size)
        self._zygote = zygote
        self._locate = locate
        self._fetch = fetch
        self._budget = budget
        self._make_room = make_room
        self._on_awake = on_awake
        self._on_freed = on_freed
        self._on_idle = on_idle
        self._settings = settings
        self._held = held.revision(key, revision)
        self._held.keep(policy.min_scale if reachable or not revision.proven else 0)
        self.starting = 0  # replicas that have no process yet
        self._starts: set[asyncio.Task[None]] = set()
        self.setbacks = Setbacks()
        self._proven = revision.proven
        self._changed = asyncio.Event()
        self.starved = False
        self._most_wanted: int | None = None  # after an eviction, until the next request
        self._run_us = 0
        self.output = Output()
        self._waking = False
        self.closed = False

    # Leasing.

    def take_slot(self) -> Replica | None:
        """The least loaded ready replica with a free slot that owes none, its slot taken; None when there is none."""
        limit = self.policy.container_concurrency
        best: Replica | None = None
        for replica in self.replicas:
            if replica.state is State.READY and not replica.owes and (best is None or replica.inflight < best.inflight):
                best = replica
        if best is None or (limit and best.inflight >= limit):
            return None
        if best.inflight == 0:
            best.held.busy()
        best.inflight += 1
        return best

    def arrived(self) -> None:
        """A request for this revision came in: count it, and wake the revision when it sleeps."""
        self._most_wanted = None
        if self.scaler.request_in(self._clock()):
            self._on_awake(self)
            self.tick(called=True)

    def left(self) -> None:
        """A request's slot is free again, or it never got one."""
        self.scaler.request_out(self._clock())

    def enqueue(self, deadline: float) -> Waiter:
        """Join the queue. Raises Unavailable when it is full or when nothing is going to serve it soon."""
        if len(self.waiters) >= self._settings.queue_depth:
            raise Unavailable("too many requests wait for this model", code="queue_full", retry_after_s=1)
        if self.closed or (self.setbacks.wait_s(self._loop.time()) and not self._hopeful()):
            raise self._unavailable()
        waiter = self.waiters.join(self._loop.create_future(), deadline)
        if not self._hopeful():
            self._on_awake(self)
            self.wanted = max(self.wanted, 1)
            self.converge(called=True)
        return waiter

    def _hopeful(self) -> bool:
        """Whether some replica serves or is on its way."""
        return self.starting > 0 or any(r.state in (State.STARTING, State.READY) for r in self.replicas)

    def too_late(self) -> RoostError:
        """Why a request in the queue got no replica before its deadline."""
        if self.starved and not self.ready:
            return Unavailable(
                "this machine has no memory or cores left for another model", code="no_capacity", retry_after_s=1
            )
        return DeadlineExceeded("no replica was free within the request's time")

    def check_deadlines(self, now: float) -> None:
        for replica in list(self.replicas):
            if replica.inflight:
                replica.check_deadlines(now)
        self.waiters.expire(now)

    def check_pulses(self) -> None:
        """Replace what no longer answers. One that loads cannot answer: its time to start is bounded instead."""
        for replica in self.replicas:
            if replica.state in (State.READY, State.DRAINING):
                replica.check_pulse()

    # Scaling.

    @property
    def ready(self) -> int:
        return sum(1 for r in self.replicas if r.state is State.READY)

    @property
    def active(self) -> bool:
        """Whether the autoscaler has anything to do here."""
        return bool(self.replicas or self.starting or self.waiters or self.wanted)

    def tick(self, *, called: bool = False) -> None:
        """One decision of the autoscaler, then make it so. `called`: because of a request that came in."""
        if self.closed:
            return
        self.wanted = self.scaler.tick(self._clock(), self.ready)
        if self._most_wanted is not None:
            self.wanted = min(self.wanted, self._most_wanted)
        elif self.waiters and self.wanted == 0:
            self.wanted = 1
        self.converge(called=called)

    def converge(self, *, called: bool = False) -> None:
        """Start or drain replicas until there are as many as wanted. `called`: a request wants them."""
        current = [r for r in self.replicas if r.state in (State.STARTING, State.READY)]
        missing = self.wanted - len(current) - self.starting
        self.starved = self.starved and missing > 0
        for _ in range(missing):
            if not self._start_one(called=called):
                break
        if missing < 0:
            idle_first = sorted(current, key=lambda r: (r.state is State.READY, r.inflight))
            for replica in idle_first[:-missing]:
                replica.drain()
        if not self.starved:
            self._held.ask_no_more()

    def _start_one(self, *, called: bool) -> bool:
        now = self._loop.time()
        if self.setbacks.wait_s(now) or self.closed:
            return False
        self.starved = not self._budget.fits(self.size)
        if self.starved:
            self._held.ask(called=called)
            self._make_room(self)
            return False
        if not self._waking and not self.ready:
            self._waking = True
            self.activations += 1
        self._budget.take(self.size)
        self.starting += 1
        task = self._loop.create_task(self._start(self._held.begin(called=called)))
        self._starts.add(task)
        task.add_done_callback(self._starts.discard)
        return True

    async def _start(self, held: HeldReplica) -> None:
        replica: Replica | None = None
        failure: tuple[str, str] | None = None
        try:
            # What is on this machine costs a wake no turn of the event loop, let alone a thread.
            path, baked = self._locate(self.revision.digest) or await self._pull(held)
            if self.closed:
                raise Unavailable("the model is being stopped", code="stopping")
            replica = await self._zygote.take()
            replica.on_ready = self._became_ready
            replica.on_slot_free = self._slot_free
            replica.on_gone = self._gone
            replica.on_asks_to_drain = self._drain_and_replace
            self.replicas.append(replica)
            replica.assign(
                self._assignment(path, baked=baked),
                partial(self.output.add, str(replica.pid)),
                answer_bytes=self._settings.limits.answer_bytes,
                held=held,
            )
        except (RoostError, OSError) as error:
            held.ends()
            self._budget.give_back(self.size)
            self._on_freed()
            failure = why_not_started(error)
        finally:
            self.starting -= 1
        if failure is not None:
            self._failed(*failure)
        elif replica is not None:
            await replica.wait_ready(self._settings.start_timeout_s)

    async def _pull(self, held: HeldReplica) -> tuple[Path, bool]:
        held.does(Part.PULL)
        found = await self._fetch(self.revision.digest)
        held.does(Part.SCHEDULE)
        return found

    def _assignment(self, path: Path, *, baked: bool) -> dict[str, object]:
        return {
            "name": self.key.service.model,
            "version": str(self.revision.version),
            "path": str(path),
            "digest": self.revision.digest,
            "baked": baked,
            "slots": self.policy.container_concurrency or self._settings.cores,
            "max_batch_size": self.revision.max_batch_size,
            "run_us": self._run_us,
            "memory_bytes": self._settings.limits.memory_bytes(self.size, self._budget.capacity.memory_bytes),
        }

    def _became_ready(self, replica: Replica) -> None:
        self.setbacks.clear()
        self._proven = True
        self._run_us = replica.run_us
        self._waking = False
        if self.closed:
            replica.drain()
        self.waiters.serve(self.take_slot)

    def _slot_free(self, replica: Replica) -> None:
        self.left()
        if self.waiters:
            self.waiters.serve(self.take_slot)
        if not replica.inflight:
            self._on_idle(replica)
        if self.closed:
            self._changed.set()

    def _drain_and_replace(self, replica: Replica) -> None:
        """Something outside told the process to stop: let it finish, and have another take its place."""
        replica.drain()
        self.converge()

    def _gone(self, replica: Replica) -> None:
        was_draining = replica.state_before_gone is State.DRAINING
        self.replicas.remove(replica)
        replica.held.ends()
        self._budget.give_back(self.size)
        self._on_freed()
        self._changed.set()
        if was_draining and replica.failure is None:
            return
        task = self._loop.create_task(self._explain(replica))
        self._starts.add(task)
        task.add_done_callback(self._starts.discard)

    async def _explain(self, replica: Replica) -> None:
        """A replica died on its own: find out how, then replace it."""
        await asyncio.wait([replica.exit_code], timeout=0.2)
        reason, message = replica.why_gone()
        self.output.add(str(replica.pid), f"replica {replica.pid} ended: {reason}: {message}")
        logger.warning("replica_lost", extra={"revision": str(self.key), "pid": replica.pid, "reason": reason})
        if reason == UNRESPONSIVE:
            self._run_us = _SLOW_RUN_US  # it may have been busy where it cannot be cancelled: the next one uses threads
        # Killed from outside is not the model's doing, as far as one can tell; nor is the end of the zygote.
        if replica.was_ready:
            self.setbacks.ended(reason)
            age_s = self._loop.time() - replica.ready_since
            to_blame = self.setbacks.died_young(age_s, useful=replica.served > 0 or replica.lost_calls > 0)
        else:
            to_blame = not (replica.was_killed and self.setbacks.forgive_once())
        if to_blame and not replica.orphaned:
            self._failed(reason, message)
        if (self.wanted or self.waiters) and not self.closed:
            self.tick()

    def _failed(self, reason: str, message: str) -> None:
        """A start failed: wait longer each time, and let nobody wait for nothing."""
        self.setbacks.add(reason, message, self._loop.time())
        if not self._hopeful():
            self.waiters.refuse(self._unavailable())

    def _unavailable(self) -> Unavailable:
        reason, message = self.setbacks.last or ("Stopped", "it is being stopped")
        wait = max(self.setbacks.wait_s(self._loop.time()), 0.1)
        return Unavailable(f"the model cannot serve now ({reason}: {message})", code="not_ready", retry_after_s=wait)

    # Change and end.

    def update(self, revision: Revision, policy: ScalingPolicy, *, reachable: bool) -> None:
        self.revision = revision
        self.policy = policy
        reachable = reachable or not self._proven
        self.scaler.update(policy, reachable=reachable)
        self._held.keep(policy.min_scale if reachable else 0)

    def idle_replicas(self) -> list[Replica]:
        """Ready replicas that do nothing and that no min-scale holds: they may be put to sleep to make room."""
        idle = [r for r in self.replicas if r.state is State.READY and r.inflight == 0]
        return idle if not self.waiters and self.policy.min_scale == 0 else []

    @property
    def leaving(self) -> int:
        """Replicas that are about to give their room back."""
        return sum(1 for r in self.replicas if r.state is State.DRAINING)

    def sleep_idle(self, replica: Replica) -> None:
        """Give room to others: this replica goes to sleep now; the next request wakes another."""
        self._most_wanted = self.wanted = max(0, self.wanted - 1)
        replica.drain()

    async def close(self, *, drain_s: float) -> None:
        """Serve out what is in flight or waiting, for at most `drain_s` seconds, then end every replica."""
        self.closed = True
        self._held.ask_no_more()
        end = self._loop.time() + drain_s
        await self._until(lambda: not self.waiters and not any(r.inflight for r in self.replicas), end)
        self.waiters.refuse(Unavailable("the model is being stopped", code="stopping", retry_after_s=1))
        for replica in list(self.replicas):
            replica.drain()
            if replica.inflight:
                replica.kill()
        await self._until(lambda: not self.replicas and not self.starting, end + _END_GRACE_S)
        for replica in list(self.replicas):
            replica.kill()

    async def _until(self, condition: Callable[[], bool], end: float) -> None:
        while not condition() and (left := end - self._loop.time()) > 0:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)

    # What people see.

    def status(self) -> RevisionStatus:
        ready = self.ready
        reason = message = ""
        readiness = Readiness.TRUE if (self._proven and not (self.setbacks.last and not ready)) else Readiness.UNKNOWN
        if self.setbacks.last and not ready:
            readiness = Readiness.FALSE
            reason, message = self.setbacks.last
        elif self.starved and not ready:
            reason, message = "InsufficientCapacity", "this machine has no memory or cores left for another replica"
        elif readiness is Readiness.UNKNOWN:
            reason, message = "Deploying", "the first replica is being started"
        log = tuple(line.text for line in self.output.lines()[-_STATUS_LOG_LINES:])
        return RevisionStatus(self.key.name, readiness, reason, message, self.wanted, ready, log)
