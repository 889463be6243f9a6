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
from roost_platform.engines.ray.cluster import App
from roost_platform.engines.ray.settings import RaySettings

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
        self.workers: list[str] = []
        """Ids of the processes of its latest replicas."""
        self._held = held
        self._secret = secret
        self._settings = settings
        self._replicas: dict[str, HeldReplica] = {}
        self._ready: list[HeldReplica] = []
        self._proven = False
        self._since: float | None = None

    def wish(self, revision: Revision, policy: ScalingPolicy, *, reachable: bool) -> None:
        self.revision, self.policy, self.reachable = revision, policy, reachable
        self._proven = self._proven or revision.proven
        self._held.keep(policy.min_scale if reachable else 0)

    def app(self) -> App:
        """As Serve is to run it now."""
        given, revision, policy = self._settings, self.revision, self.policy
        most = policy.container_concurrency or given.most_ongoing
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

    def learn(self, details: Mapping[str, Any] | None, *, tells: bool) -> None:
        """`details` of its application; None = Serve has none. `tells`: what its replicas hold is told by this gateway."""
        deployments = list((details or {}).get("deployments", {}).values())
        replicas = [replica for one in deployments for replica in one["replicas"]]
        ready = {replica["replica_id"] for replica in replicas if replica["state"] == "RUNNING"}
        self.running = len(ready)
        self.wanted = sum(one.get("target_num_replicas") or 0 for one in deployments)
        self.routed = bool(deployments)
        self.workers = [replica["worker_id"] for replica in replicas if replica.get("worker_id")] or self.workers
        if ready or (details is not None and details["status"] == "RUNNING"):
            self._proven = True  # also where it came and went between two looks
            self.failed = None
        elif details is not None and not self.failed:
            self.failed = _failure(details, deployments)
        self._hold({replica["replica_id"]: replica["state"] for replica in replicas} if tells else {})
        self.changed.set()
        self.changed = asyncio.Event()

    def _hold(self, states: Mapping[str, str]) -> None:
        for name in self._replicas.keys() - states.keys():
            gone = self._replicas.pop(name)
            if gone in self._ready:
                self._ready.remove(gone)
            gone.ends()
        for name, state in states.items():
            replica = self._replicas.get(name)
            if replica is None:
                replica = self._replicas[name] = self._held.begin(called=self.inflight > 0)
                replica.does(Part.LOAD)
            if state == "RUNNING" and replica not in self._ready:
                replica.becomes_ready()
                self._ready.append(replica)
            elif state == "STOPPING" and replica in self._ready:
                self._ready.remove(replica)
                replica.leaves()
        self._share_calls()

    def _share_calls(self) -> None:
        """Serve does not say which replica has a call: as many count as active as there are calls, as far as they reach."""
        for place, replica in enumerate(self._ready):
            if place < self.inflight and replica.part is not Part.ACTIVE:
                replica.busy()
                replica.catch_up()
            elif place >= self.inflight and replica.part is Part.ACTIVE:
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

    def left(self) -> None:
        self.inflight -= 1
        self._share_calls()
        self.changed.set()
        self.changed = asyncio.Event()

    @property
    def full(self) -> bool:
        """Whether as many requests wait, here and in Serve, as may."""
        room = (self.policy.container_concurrency or self._settings.most_ongoing) * max(self.running, 1)
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


def _failure(details: Mapping[str, Any], deployments: list[Mapping[str, Any]]) -> tuple[str, str] | None:
    """What Serve says of an application that does not come up; None while it may. Its tracebacks are not for people."""
    if details["status"] not in _FAILED and not any(one["status"] in _FAILED for one in deployments):
        return None
    text = "\n".join([details.get("message") or "", *((one.get("message") or "") for one in deployments)])
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
