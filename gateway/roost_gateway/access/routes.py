"""Where a call goes: a model's revisions with their states, and the choice among them.

Frozen values; a change of a model makes another `Route`, so a reader never sees half of one.
"""

import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import accumulate

from roost_platform.domain.errors import NotFound, Unavailable
from roost_platform.domain.scaling import ScalingPolicy
from roost_platform.domain.services import Readiness, Revision, RevisionStatus, Service, ServiceKey, TrafficTarget


class RevisionState(StrEnum):
    DEPLOYING = "deploying"
    READY = "ready"
    FAILED = "failed"


_PREFERENCE = {RevisionState.READY: 2, RevisionState.DEPLOYING: 1, RevisionState.FAILED: 0}


@dataclass(frozen=True, slots=True)
class RevisionRecord:
    """A revision and how its rollout went. `reason` is empty unless it failed."""

    revision: Revision
    state: RevisionState
    reason: str
    created_at: datetime

    @property
    def generation(self) -> int:
        """Position in the order of deployments, 1, 2, 3 …; the last digits of the name."""
        return generation_of(self.revision.name)

    def as_failed_status(self) -> RevisionStatus:
        """What the database alone knows of a revision that failed."""
        reason, _, message = self.reason.partition(": ")
        return RevisionStatus(self.revision.name, Readiness.FALSE, reason=reason, message=message)

    def as_unknown_status(self) -> RevisionStatus:
        """What is known of a revision that the engine has not taken up yet."""
        return RevisionStatus(self.revision.name, Readiness.UNKNOWN, reason="Deploying")


def revision_name(model: str, generation: int) -> str:
    return f"{model}-{generation:05d}"


def generation_of(revision: str) -> int:
    return int(revision.rpartition("-")[2])


class Route:
    """One model as calls see it. Treat as frozen.

    `service` is what the engine is told: every revision that is ready (proven) or being deployed.
    """

    __slots__ = (
        "_by_version",
        "_fallback",
        "_limits",
        "_targets",
        "created_at",
        "key",
        "last_version",
        "records",
        "service",
    )

    def __init__(
        self,
        *,
        key: ServiceKey,
        scaling: ScalingPolicy,
        traffic: tuple[TrafficTarget, ...],
        records: Sequence[RevisionRecord],
        last_version: int,
        created_at: datetime,
    ) -> None:
        """`records` in any order; every target of `traffic` must be among them and ready."""
        self.key = key
        self.records: tuple[RevisionRecord, ...] = tuple(sorted(records, key=lambda r: r.generation))
        self.last_version = last_version
        self.created_at = created_at
        live = tuple(r.revision for r in self.records if r.state is not RevisionState.FAILED)
        self.service = Service(key=key, revisions=live, traffic=traffic, scaling=scaling)
        self._targets: tuple[Revision, ...] = tuple(self.service.revision(t.revision) for t in traffic)
        self._limits: list[int] = list(accumulate(t.percent for t in traffic))
        self._by_version: dict[int, RevisionRecord] = {}
        for record in sorted(self.records, key=lambda r: (_PREFERENCE[r.state], r.generation)):
            self._by_version[record.revision.version] = record
        self._fallback = max(self.records, key=lambda r: (_PREFERENCE[r.state], r.generation), default=None)

    def says_the_same(self, other: "Route") -> bool:
        """Whether nothing that a call or an engine could notice differs."""
        return (self.service, self.records, self.last_version, self.created_at) == (
            other.service,
            other.records,
            other.last_version,
            other.created_at,
        )

    def record(self, name: str) -> RevisionRecord | None:
        return next((r for r in self.records if r.revision.name == name), None)

    def choose(self, pick: Callable[[], float] = random.random) -> Revision:
        """The revision for a call that names no version, by the traffic split; `pick` yields numbers in [0, 1).

        While a model has no traffic yet, its newest revision under way: the engine lets the call wait for it.
        Raises Unavailable with the reason when every revision failed.
        """
        targets = self._targets
        if len(targets) == 1:
            return targets[0]
        if targets:
            return targets[bisect_right(self._limits, pick() * self._limits[-1])]
        if self._fallback is None:
            raise Unavailable("the model's upload was interrupted; upload it again", code="not_deployed")
        return _usable(self._fallback)

    def for_version(self, number: int) -> Revision:
        """The newest working revision of a version, traffic or not.

        Raises NotFound when no revision of that version is kept, Unavailable with the reason when it failed.
        """
        record = self._by_version.get(number)
        if record is None:
            raise NotFound("no such version")
        return _usable(record)

    def record_of_version(self, number: int) -> RevisionRecord | None:
        """Ready before deploying before failed, the newest of its kind."""
        return self._by_version.get(number)


def _usable(record: RevisionRecord) -> Revision:
    if record.state is RevisionState.FAILED:
        raise Unavailable(
            f"version {record.revision.version} did not become ready: {record.reason}",
            code="revision_failed",
            retry_after_s=30,
        )
    return record.revision
