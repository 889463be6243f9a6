"""One revision as this gateway sees it on Ray: what Serve says of it, who calls it, what its replicas hold."""

import asyncio
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from roost_platform.domain.errors import Unavailable
from roost_platform.domain.scaling import ScalingPolicy
from roost_platform.domain.services import Readiness, Revision, RevisionKey, RevisionStatus
from roost_platform.engines.local.held import HeldReplica, HeldRevision
from roost_platform.engines.local.timeline import Part
from roost_platform.engines.output import Output
from roost_platform.engines.port import RevisionFigures
from roost_platform.engines.ray import mapping
from roost_platform.engines.ray.seats import Seat, Seats
from roost_platform.engines.ray.settings import RaySettings
from roost_platform.engines.ray.words import App, Seen

APP_PREFIX = "roost-"
_REFUSED = re.compile(r"roost-refused (\{.*?\})(?:\\n|\n|$|['\"])")
_FAILED = ("DEPLOY_FAILED", "UNHEALTHY")
_REASON = re.compile("[A-Za-z]{1,40}")
_DETAILS_BYTES = 1000
_STATUS_LOG_LINES = 20


class RayRevision:
    """Made by the engine when a revision is applied. Everything happens on the event loop."""

    def __init__(self, key: RevisionKey, held: HeldRevision, *, secret: str, settings: RaySettings) -> None:
        self.key = key
        name = hashlib.sha256(str(key).encode()).hexdigest()[:24]
        self.app_name = APP_PREFIX + name
        self.prefix = f"/{self.app_name}"
        self.inflight = 0
        self.queued = 0
        self.cold_starts = 0
        self.running = 0
        self.wanted = 0
        self.routed = False
        """Serve knows of it: requests may be sent, and wait there for a replica."""
        self.failed: tuple[str, str] | None = None
        self.changed = asyncio.Event()
        self.applied = ""
        """Fingerprint of what Serve was told last."""
        self.output = Output()
        self.workers: dict[str, str] = {}
        """Ids of the processes of its latest replicas, and of the nodes that they run on."""
        self.seats = Seats()
        self._held = held
        self._secret = secret
        self._settings = settings
        self._replicas: dict[str, HeldReplica] = {}
        self._ready: dict[str, HeldReplica] = {}
        self._proven = False
        self._since: float | None = None

    def wish(self, revision: Revision, policy: ScalingPolicy, *, reachable: bool) -> None:
        self.revision, self.policy, self.reachable = revision, policy, reachable
        self._proven = self._proven or revision.proven
        self._held.keep(policy.min_scale if reachable else 0)

    def app(self) -> App:
        """As Serve is to run it now."""
        given, revision, policy = self._settings, self.revision, self.policy
        most = self._most_ongoing
        actor: dict[str, Any] = {"num_cpus": given.replica_cpus, "num_gpus": given.replica_gpus}
        if revision.memory_bytes:
            actor["memory"] = int(revision.memory_bytes * given.memory_factor)
        service = self.key.service
        spec = {
            "url": f"{given.artifact_url}/internal/artifacts/{service.tenant}/{service.model}/{revision.digest}",
            "digest": revision.digest,
            "size": revision.size,
            "secret": self._secret,
            "factory": given.runtimes.get(revision.runtime, ""),
            "name": service.model,
            "version": str(revision.version),
            "slots": most,
            "max_batch_size": revision.max_batch_size,
            "body_bytes": given.body_bytes,
            "start_timeout_s": given.start_timeout_s,
            "cache_bytes": given.cache_bytes,
        }
        return App(
            name=self.app_name,
            prefix=self.prefix,
            spec=spec,
            autoscaling=mapping.autoscaling(
                policy, reachable=self.reachable, proven=self._proven, max_replicas=given.max_replicas
            ),
            actor=actor,
            most_ongoing=most,
            drain_s=given.drain_s,
            version=_fingerprint([spec, actor]),
        )

    def fingerprint(self) -> str:
        """Changes with everything that Serve has to be told; having proven itself is nothing of that kind."""
        wished = asdict(self.app())
        wished["autoscaling"]["initial_replicas"] = 0
        return _fingerprint(wished)

    def start_took_too_long(self, now: float) -> bool:
        """Asked at each look: whether its first replica is overdue."""
        if self._proven or self.failed or not self.routed:
            self._since = None
            return False
        self._since = self._since or now
        return now - self._since > self._settings.start_timeout_s

    # What Serve says.

    def learn(self, seen: Seen | None, *, tells: bool) -> None:
        """`seen`: None = Serve has no such application. `tells`: what its replicas hold is told by this gateway."""
        replicas = seen.replicas if seen else ()
        ready = {replica.id for replica in replicas if replica.state == "RUNNING"}
        self.running = len(ready)
        self.wanted = seen.wanted if seen else 0
        self.routed = bool(seen and seen.deployments)
        self.workers = {replica.worker: replica.node for replica in replicas if replica.worker} or self.workers
        if ready or (seen is not None and seen.status == "RUNNING"):
            self._proven = True  # also where it came and went between two looks
            self.failed = None
        elif seen is not None and not self.failed:
            self.failed = _failure(seen)
        self._hold({replica.id: replica.state for replica in replicas} if tells else {})
        straight = self._settings.ingress == "direct"
        self.seats.learn(
            {one.id: one.address for one in replicas if straight and one.address and one.id in ready},
            most_ongoing=self._most_ongoing,
        )
        self.changed.set()
        self.changed = asyncio.Event()

    @property
    def _most_ongoing(self) -> int:
        """Requests that a replica works on at once."""
        return self.policy.container_concurrency or self._settings.most_ongoing

    def _hold(self, states: Mapping[str, str]) -> None:
        for name in self._replicas.keys() - states.keys():
            self._ready.pop(name, None)
            self._replicas.pop(name).ends()
        for name, state in states.items():
            replica = self._replicas.get(name)
            if replica is None:
                replica = self._replicas[name] = self._held.begin(called=self.inflight > 0)
                replica.does(Part.LOAD)
            if state == "RUNNING" and name not in self._ready:
                replica.becomes_ready()
                self._ready[name] = replica
            elif state == "STOPPING" and name in self._ready:
                self._ready.pop(name).leaves()
        self._share_calls()

    def _share_calls(self) -> None:
        """Those with calls that went straight to them are active. Of the calls that went through its proxy Serve does not
        say which replica has them: as many others count as active as there are such calls, as far as they reach.
        """
        hidden = self.inflight - sum(map(self.seats.taken, self._ready))
        for name, replica in self._ready.items():
            active = self.seats.taken(name) > 0
            if not active and hidden > 0:
                active, hidden = True, hidden - 1
            if active and replica.part is not Part.ACTIVE:
                replica.busy()
                replica.catch_up()
            elif not active and replica.part is Part.ACTIVE:
                replica.idle()

    def ends(self) -> None:
        """Nothing more is told of its replicas."""
        self._hold({})

    # Calls.

    def entered(self) -> bool:
        """Whether this call wakes it, or waits for that."""
        asleep = self.running == 0
        self.cold_starts += asleep and self.inflight == 0
        self.inflight += 1
        self._share_calls()
        return asleep

    def left(self, seat: Seat | None) -> None:
        self.inflight -= 1
        if seat is not None:
            self.seats.give_back(seat)
        self._share_calls()

    @property
    def takes_calls(self) -> bool:
        """Whether Serve may be asked. While its first replica starts those who call wait here, where all can be told at
        once that nothing comes of it.
        """
        return self.running > 0 or (self.routed and (self._proven or not self.policy.initial_scale))

    @property
    def full(self) -> bool:
        """Whether as many requests wait, here and in Serve, as may."""
        room = self._most_ongoing * max(self.running, 1)
        return self.inflight + self.queued >= room + self._settings.queue_depth

    def unavailable(self) -> Unavailable | None:
        """Why nobody should wait for it now."""
        if self.failed is None or self.running:
            return None
        return Unavailable(
            f"the model cannot serve now ({self.failed[0]}: {self.failed[1]})", code="not_ready", retry_after_s=30
        )

    # What people see.

    def status(self) -> RevisionStatus:
        readiness, reason, message = Readiness.TRUE, "", ""
        if self.failed and not self.running:
            readiness, (reason, message) = Readiness.FALSE, self.failed
        elif not self._proven:
            readiness, reason, message = Readiness.UNKNOWN, "Deploying", "the first replica is being started"
        log = tuple(line.text for line in self.output.lines()[-_STATUS_LOG_LINES:])
        return RevisionStatus(self.key.name, readiness, reason, message, self.wanted, self.running, log)

    def figures(self) -> RevisionFigures:
        return RevisionFigures(
            wanted=self.wanted,
            ready=self.running,
            starting=max(len(self._replicas) - self.running, 0),
            idle=None,
            queued=self.queued,
            in_flight=self.inflight,
            most=self.policy.max_scale,
            cold_starts=self.cold_starts,
        )


def _failure(seen: Seen) -> tuple[str, str] | None:
    """What Serve says of an application that does not come up; None while it may. Its tracebacks are not for people."""
    if seen.status not in _FAILED and not any(status in _FAILED for status in seen.deployments):
        return None
    text = "\n".join(seen.messages)
    for found in _REFUSED.finditer(text):
        try:
            told = json.loads(found[1])
            reason, message = str(told["reason"]), str(told["message"])
        except (ValueError, KeyError, TypeError):
            continue
        if _REASON.fullmatch(reason):
            return reason, message[:_DETAILS_BYTES]
    if "ActorDied" in text or "died" in text:
        return "ExitedAtStart", "the replica's process ended while it was started"
    return "DeployFailed", "Ray Serve could not start it"


def _fingerprint(what: object) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:16]
