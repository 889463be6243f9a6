"""The Engine port: what runs revisions. Every engine passes the contract suite in tests/test_engines_contract.py."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import NamedTuple

from roost_platform.domain.errors import InvalidRequest, RoostError
from roost_platform.domain.output import OutputLine
from roost_platform.domain.resources import ResourceUsage
from roost_platform.domain.scaling import Autoscaler, ScalingPolicy
from roost_platform.domain.services import RevisionKey, Service, ServiceKey, ServiceStatus

Headers = Sequence[tuple[bytes, bytes]]
"""Header pairs as on the wire; names in lower case."""


class UpstreamRequest(NamedTuple):
    """One request for a replica."""

    method: str
    path: str
    headers: Headers
    body: Sequence[bytes] | AsyncIterator[bytes] = ()
    """Whole, in the pieces it arrived in, so that nothing is joined. For an engine that streams it may be an iterator,
    whose pieces come as the client sends them; what that raises ends the request, and `send` raises it."""
    request_id: str = ""
    """Goes along as `x-request-id` where requests travel as HTTP."""
    length: int | None = None
    """Bytes of a body that is an iterator, where that is known beforehand."""


@dataclass(slots=True)
class UpstreamResponse:
    """One answer of a replica. The figures are the replica's own, in microseconds and rows.

    An engine that streams may give the body as an iterator of pieces, none of them empty. The figures are final before
    the last piece is yielded. What breaks is raised between two pieces (ReplicaLost, DeadlineExceeded): an iterator that
    ends has given the whole body. It is good inside the lease only; who leaves the lease earlier, or closes the
    iterator, cancels the work.
    """

    status: int
    headers: Headers
    body: bytes | bytearray | memoryview | AsyncIterator[bytes]
    compute_us: int = 0
    queue_us: int = 0
    rows: int = 0
    length: int | None = None
    """Bytes of a body that is an iterator, where the replica has said so."""


class Upstream(ABC):
    """A lease that was granted: the right to send one request to one replica."""

    queue_us: int = 0
    """Microseconds this lease waited for its replica, waking included. Where the engine streams, it is known once `send`
    has returned: the ingress waits there."""
    cold_start_us: int = 0
    """Part of that wait in which no replica was ready; 0 on a warm call."""

    @abstractmethod
    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send the one request and return its answer.

        Raises ReplicaLost when the replica died with the request in flight, DeadlineExceeded when the lease's deadline
        passed first (the slot is then taken back: the work is cancelled, or the replica is replaced). Cancelling the
        caller cancels the work.
        """


Done = Callable[[UpstreamResponse | RoostError], None]
"""Takes what came of a request, once: its answer, or what `Upstream.send` would have raised."""


class Slot(ABC):
    """A free slot that was taken without waiting. Either `send` or `release` follows, in the same turn of the loop."""

    @abstractmethod
    def send(self, request: UpstreamRequest, done: Done) -> None:
        """Send the one request; `done` is called once with what came of it, and the slot is free again by then."""

    @abstractmethod
    def release(self) -> None:
        """Give the slot back unused."""

    @abstractmethod
    def abandon(self) -> None:
        """Nobody waits any more: cancel the work. `done` will not be called."""


OnUsage = Callable[[ResourceUsage], None]
"""Where an engine tells what its replicas held: a keyword argument `on_usage` of its constructor. Called on the event
loop. It returns at once, raises nothing, and is safe to be told the same stretch again: what has the same source and id
counts once.

The engine tells a stretch of every living replica (kind REPLICA) at least each REPORT_HELD_S seconds and at full hours
of UTC, and a last one, `final`, when the replica has ended. When `stop` returns, it has told of all that ended with it. A
gateway that is killed has told all but the last seconds: those are nobody's.
"""
REPORT_HELD_S = 10.0


def tell_nobody(usage: ResourceUsage) -> None:
    """Where nothing is metered."""


@dataclass(frozen=True, slots=True)
class RevisionFigures:
    """One revision that is awake, or about to be. None = this engine cannot know it."""

    wanted: int
    """Replicas the autoscaler wants."""
    ready: int
    starting: int
    """Replicas on their way to being ready."""
    idle: int | None
    """Ready replicas without a request."""
    queued: int
    """Requests that wait for a replica."""
    in_flight: int
    """Requests that replicas work on."""
    most: int
    """max-scale; 0 = no bound."""
    desired: int | None = None
    """Replicas that the load alone calls for, before bounds and delays."""
    stable: float | None = None
    """Average load over the stable window, in requests in flight or requests a second: what the policy's metric says."""
    panic: float | None = None
    """The same over the panic window."""
    panicking: bool | None = None
    cold_starts: int = 0
    """How often it came up from no replica, its first start included, since this gateway runs."""


@dataclass(frozen=True, slots=True)
class ReplicaFigures:
    """What one replica of this machine uses."""

    revision: RevisionKey
    number: int
    """0, 1, 2 …, the lowest that no other replica of the revision has: so names stay few."""
    memory_bytes: int
    """Resident memory of its own; pages that it shares with its parent since the fork count, those of files do not."""
    processor_s: float
    """Processor time so far, in seconds."""
    cores: float
    """What it may count on."""


@dataclass(frozen=True, slots=True)
class EngineFigures:
    """For the metrics page; a snapshot. What only grows has been counted since the engine was made."""

    revisions: dict[RevisionKey, RevisionFigures] = field(default_factory=dict)
    activations: int = 0
    """Revisions woken from zero."""
    restarts: dict[tuple[RevisionKey, str], int] = field(default_factory=dict)
    """By reason: replicas that had been ready and ended although nobody wished it. Reasons are a bounded set."""
    failed_starts: dict[tuple[RevisionKey, str], int] = field(default_factory=dict)
    """By reason: replicas that never became ready. Reasons are a bounded set."""
    replicas: tuple[ReplicaFigures, ...] = ()
    """Of this machine; empty where replicas run elsewhere."""
    cores: int = 0
    """Of this machine, as far as this process may use them; 0 where replicas run elsewhere."""
    spares: dict[str, int] = field(default_factory=dict)
    """By runtime: processes that wait for a model."""


class Engine(ABC):
    """Runs revisions. All methods are safe to call at any time between `start` and `stop`."""

    runtimes: tuple[str, ...] = ("onnx-cpu",)
    """What a version may be deployed with here, the default first."""
    streams: bool = False
    """Requests travel on as they come: bodies are handed over as iterators, and there are no slots to take."""

    @abstractmethod
    async def start(self) -> None:
        """Take over what this engine runs; returns when leases can be asked for."""

    @abstractmethod
    async def stop(self) -> None:
        """Drain and end everything that would outlive this process and should not."""

    @abstractmethod
    async def apply(self, service: Service) -> None:
        """Converge to these revisions, this traffic split and this scaling policy.

        Idempotent. Returns when the wish is handed over, not when it is true: `status` tells. A revision that is new
        here is started at its initial scale once, so that `status` can say whether it works.
        """

    def check(self, scaling: ScalingPolicy) -> None:
        """Raises InvalidRequest, naming the option, for a policy that this engine cannot follow."""
        if scaling.autoscaler is not Autoscaler.KPA:
            raise InvalidRequest(
                "class must be kpa here: hpa needs an engine on Kubernetes",
                code="invalid_scaling_policy",
                field="class",
            )

    def complete(self) -> None:  # noqa: B027 - an engine whose replicas never outlive it has nothing to do here
        """Every service there is has been applied since `start`: what else this engine finds running is nobody's."""

    @abstractmethod
    async def delete(self, key: ServiceKey) -> None:
        """Refuse new leases at once, let those in flight finish, then leave nothing behind. Unknown keys are fine."""

    @abstractmethod
    def status(self, key: ServiceKey) -> ServiceStatus:
        """What is true now, one entry per revision applied. Unknown keys give no entries."""

    @abstractmethod
    def figures_of(self, key: ServiceKey) -> Mapping[str, RevisionFigures]:
        """Figures of this moment for every revision applied, asleep or not, by its name. Unknown keys give none.

        Requests are those of this gateway; replicas are all there are.
        """

    @abstractmethod
    def output(self, revision: RevisionKey) -> list[OutputLine]:
        """What the revision's replicas printed last, oldest first, those that have ended included; bounded.

        Empty when it is not known. An engine whose replicas are elsewhere may know it a moment after it was asked.
        """

    def log(self, revision: RevisionKey, lines: int) -> list[str]:
        """The last `lines` lines of `output`, bare."""
        return [line.text for line in self.output(revision)[-lines:]]

    @abstractmethod
    def lease(self, revision: RevisionKey, deadline: float) -> AbstractAsyncContextManager[Upstream]:
        """The right to send one request to one replica, taken back when the context ends.

        `deadline` is in seconds of the running loop's clock; it covers the wait and the answer. Where bodies are
        iterators, it stands still while the client is waited for: for its next piece, or to take one. Entering wakes the
        revision when it sleeps, and waits for a free slot. Raises DeadlineExceeded, Unavailable (queue full, or the
        revision cannot start: with its reason) or NotFound (no such revision).
        """

    def take_slot(self, revision: RevisionKey, deadline: float) -> Slot | None:
        """What `lease` gives, when that needs no waiting; None otherwise, and nothing has changed then.

        A call in a warm model needs no task this way. An engine need not offer it.
        """
        return None

    @abstractmethod
    def figures(self) -> EngineFigures:
        """Gauges of this moment."""
