"""Where a call goes: a model's revisions with their states, and the choice among them.

Frozen values; a change of a model makes another `Route`, so a reader never sees half of one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from operator import itemgetter

from roost_gateway.access.choosing import Caller, Chooser
from roost_platform.domain.errors import NotFound, Unavailable
from roost_platform.domain.routing import Routing
from roost_platform.domain.scaling import ScalingPolicy
from roost_platform.domain.services import Readiness, Revision, RevisionStatus, Service, ServiceKey, TrafficTarget


class RevisionState(StrEnum):
    DEPLOYING = "deploying"
    READY = "ready"
    FAILED = "failed"


NO_ROUTING = Routing()
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
        "_chooser",
        "_fallback",
        "_leading",
        "created_at",
        "key",
        "last_version",
        "records",
        "routing",
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
        routing: Routing = NO_ROUTING,
    ) -> None:
        """`records` in any order; every target of `traffic` must be among them and ready."""
        self.key = key
        self.routing = routing
        self.records: tuple[RevisionRecord, ...] = tuple(sorted(records, key=lambda r: r.generation))
        self.last_version = last_version
        self.created_at = created_at
        live = tuple(r.revision for r in self.records if r.state is not RevisionState.FAILED)
        self.service = Service(key=key, revisions=live, traffic=traffic, scaling=scaling)
        self._by_version: dict[int, RevisionRecord] = {}
        for record in sorted(self.records, key=lambda r: (_PREFERENCE[r.state], r.generation)):
            self._by_version[record.revision.version] = record
        shares = [(self.service.revision(t.revision), t.percent) for t in traffic]
        self._leading = max(shares, key=itemgetter(1))[0] if shares else None
        self._chooser: Chooser | None = None
        if len(shares) > 1 or (shares and routing.rules):
            ready = {n: r.revision for n, r in self._by_version.items() if r.state is RevisionState.READY}
            self._chooser = Chooser(shares, routing=routing, usable=ready)
        self._fallback = max(self.records, key=lambda r: (_PREFERENCE[r.state], r.generation), default=None)

    def says_the_same(self, other: "Route") -> bool:
        """Whether nothing that a call or an engine could notice differs."""
        return (self.service, self.records, self.last_version, self.created_at, self.routing) == (
            other.service,
            other.records,
            other.last_version,
            other.created_at,
            other.routing,
        )

    def record(self, name: str) -> RevisionRecord | None:
        return next((r for r in self.records if r.revision.name == name), None)

    def revision_for(self, version: int | str | None, caller: Caller, *, peek: bool = False) -> Revision:
        """The revision for a call: of the version or alias that it names, else by rules and split.

        `peek`: who asks may yet leave the call to another, so it uses up no turn of the split. Raises NotFound, Unavailable.
        """
        if version is not None:
            return self.for_version(version)
        return self.leading() if self._chooser is None else self._chooser.choose(caller, peek=peek)

    def take_turn(self, version: int | str | None, caller: Caller) -> None:
        """The call that peeked is taken on."""
        if version is None and self._chooser is not None:
            self._chooser.choose(caller)

    def leading(self) -> Revision:
        """The revision with most of the traffic.

        While a model has no traffic yet, its newest revision under way: the engine lets the call wait for it.
        Raises Unavailable with the reason when every revision failed.
        """
        if self._leading is not None:
            return self._leading
        if self._fallback is None:
            raise Unavailable("the model's upload was interrupted; upload it again", code="not_deployed")
        return _usable(self._fallback)

    def for_version(self, version: int | str) -> Revision:
        """The newest working revision of a version (by number or alias), traffic or not.

        Raises NotFound when no revision of that version is kept, Unavailable with the reason when it failed.
        """
        number = self.routing.alias(version) if isinstance(version, str) else version
        record = self._by_version.get(number) if number is not None else None
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
