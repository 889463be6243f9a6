"""One model as this gateway knows it: the wish, what the cluster shows of it, and what follows for calls and statuses.

Reads what `Seen` keeps and writes nothing anywhere; `keeper.py` does.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from roost_platform.domain.output import OutputLine
from roost_platform.domain.services import Readiness, Revision, RevisionStatus, ServiceKey
from roost_platform.engines.knative import names
from roost_platform.engines.knative.cluster import Document, labels_of
from roost_platform.engines.knative.conditions import (
    SHORT_S,
    Facts,
    Trouble,
    condition_of,
    find_trouble,
    is_ready,
    readiness_of,
    status_of,
    trouble_of_pods,
)
from roost_platform.engines.knative.logs import LogName, Logs
from roost_platform.engines.knative.reconcile import (
    Plan,
    SeenService,
    Variant,
    plan,
    seen_service,
    variant_of,
)
from roost_platform.engines.knative.seen import Seen
from roost_platform.engines.knative.settings import KnativeSettings
from roost_platform.engines.knative.wish import Applied, Wish
from roost_platform.engines.port import RevisionFigures

STATUS_LINES = 20
SPENT_S = 60.0
"""So long a Knative revision that was ready once is given to recover by itself when nothing of it runs any more."""
_FRESH_S = 0.2


class Address(NamedTuple):
    """Where to call a revision."""

    host: str
    variant: str
    """The Knative revision behind it; empty when that is not known."""


class Model:
    """Everything happens on the event loop; `clock` is in seconds and never runs back."""

    def __init__(
        self,
        key: ServiceKey,
        *,
        seen: Seen,
        logs: Logs,
        settings: KnativeSettings,
        secret: str,
        clock: Callable[[], float],
        drained: Callable[[ServiceKey], None],
    ) -> None:
        self.key = key
        self.secret = secret
        self.wish: Wish | None = None
        self.ending = False
        """What the cluster has of it must go first, even where there is a new wish."""
        self.inflight: Counter[str] = Counter()
        """Calls that were sent, by Knative revision; none of zero."""
        self.leaving: frozenset[str] = frozenset()
        """Knative revisions that go when their last call has ended."""
        self.queued: Counter[str] = Counter()
        """Calls that wait for a replica, by Roost's name of the revision; none of zero."""
        self.activations: Counter[str] = Counter()
        """How often a revision came up from zero, by the label that has Roost's name for it."""
        self.troubled = False
        """Whether the last look at it ended in an error."""
        self.applied: Applied | None = None
        self.secret_applied = False
        self.refusals: dict[str, Trouble] = {}
        """By Knative's name: what the API server said to the last try to make it."""
        self.blocked: Trouble | None = None
        """Why none of its objects can be made."""
        self.ended: asyncio.Future[None] | None = None
        """Done when nothing of it is left in the cluster, while somebody waits for that."""
        self._seen = seen
        self._logs = logs
        self._settings = settings
        self._clock = clock
        self._drained = drained
        self._since: dict[str, tuple[str, float]] = {}  # name of a Knative revision -> its trouble, and when that began
        self._failed_since: dict[str, float] = {}
        self._statuses: dict[str, RevisionStatus] = {}
        self._looked_at = float("-inf")
        self._addresses: dict[str, Address | None] = {}  # what every call asks, until something changes
        self._ready: dict[str, bool] = {}
        self._awake: set[str] = set()
        self._changed = asyncio.get_running_loop().create_future()

    # What calls need.

    def find(self, revision: str) -> Revision | None:
        """The wished revision, unless the model is being deleted."""
        if self.wish is None:
            return None
        return next((r for r in self.wish.service.revisions if r.name == revision), None)

    def address(self, revision: Revision) -> Address | None:
        """Where to call the revision; None while it has no route, or has not proved yet that it works."""
        if not self._seen.synced:  # just started, and the API server is away: what worked before most likely does
            assert self.wish is not None
            usable = revision.proven and not self.ending
            return Address(self._host(self.wish.tags[revision.name]), "") if usable else None
        if revision.name not in self._addresses:
            self._addresses[revision.name] = self._find_address(revision)
        return self._addresses[revision.name]

    def _find_address(self, revision: Revision) -> Address | None:
        if self.ending:
            return None
        routed = seen_service(self._document()).routed or {}
        variants = [v for v in self._variants(revision) if v.name in routed]
        if not variants:
            return None
        if not revision.proven and self.status(revision.name).ready is not Readiness.TRUE:
            return None
        current = self.wish_name(revision)
        chosen = max(variants, key=lambda v: (v.ready is Readiness.TRUE, v.name == current, v.created, v.name))
        return Address(self._host(routed[chosen.name]), chosen.name)

    def wish_name(self, revision: Revision) -> str:
        assert self.wish is not None
        return self.wish.current.get(revision.name, "")

    def hopeless(self, revision: Revision) -> RevisionStatus | None:
        """Why no call can be served now; None when one may be sent, or may wait.

        One that failed after it had worked may be woken, unless its replicas fail at this moment: so it recovers.
        """
        status = self.status(revision.name)
        if status.ready is not Readiness.FALSE or status.running:
            return None
        if revision.proven and self.address(revision) and trouble_of_pods(self._pods_of(revision)) is None:
            return None
        return status

    def failed_to_wake(self, revision: Revision) -> RevisionStatus | None:
        """Why the replica that is being started for a call will not come; None while it may."""
        if self.find(revision.name) is None or trouble_of_pods(self._pods_of(revision)) is None:
            return None
        return self.hopeless(revision)

    def is_awake(self, revision: Revision) -> bool:
        if revision.name not in self._ready:
            self._ready[revision.name] = any(is_ready(pod) for pod in self._pods_of(revision))
        return self._ready[revision.name]

    @property
    def is_busy(self) -> bool:
        """Whether it has replicas, or calls that wait for one."""
        return bool(self.queued or self._seen.pods(self.key))

    def entered(self, variant: str) -> None:
        self.inflight[variant] += 1

    def left(self, variant: str) -> None:
        self.inflight[variant] -= 1
        if not self.inflight[variant]:
            del self.inflight[variant]
            if self.ending or variant in self.leaving:
                self._drained(self.key)

    async def wait_changed(self, revision: str, timeout_s: float, *others: asyncio.Future[Any]) -> None:
        """A call waits until something may have changed; everybody who waits is told in the same turn."""
        self.queued[revision] += 1
        try:
            await asyncio.wait({self._changed, *others}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.queued[revision] -= 1
            if not self.queued[revision]:
                del self.queued[revision]

    def count_activations(self) -> None:
        """Look which revisions have replicas now that had none before."""
        pods = self._seen.pods(self.key)
        awake = {name for name, those in pods.items() if any(is_ready(pod) for pod in those)}
        if self._seen.synced:
            self.activations.update(labels_of(pods[name][0]).get(names.REVISION, "") for name in awake - self._awake)
        self._awake = awake

    def notify(self) -> None:
        """Something may have changed, if only the time."""
        self._looked_at = float("-inf")
        self._addresses.clear()
        self._ready.clear()
        changed, self._changed = self._changed, self._changed.get_loop().create_future()
        changed.set_result(None)

    # What people see.

    def status(self, revision: str) -> RevisionStatus:
        return self.statuses()[revision]

    def statuses(self) -> Mapping[str, RevisionStatus]:
        """Of every wished revision, by Roost's name, in the order of the wish."""
        now = self._clock()
        if now - self._looked_at >= _FRESH_S:
            revisions = self.wish.service.revisions if self.wish is not None else ()
            self._statuses = {r.name: self._look_at(r, now) for r in revisions}
            gone = self._since.keys() - self._seen.revisions(self.key).keys() - {self.wish_name(r) for r in revisions}
            for name in gone:
                del self._since[name]
            self._looked_at = now
        return self._statuses

    def figures(self, revision: str) -> RevisionFigures:
        """Of a wished revision. What the autoscaler thinks is told by its own metrics, and who is idle by nobody."""
        found, status = self.find(revision), self.status(revision)
        assert found is not None
        return RevisionFigures(
            wanted=status.wanted,
            ready=status.running,
            starting=max(0, len(self._pods_of(found)) - status.running),
            idle=None,
            queued=self.queued.get(revision, 0),
            in_flight=sum(self.inflight.get(document["metadata"]["name"], 0) for document in self._documents(found)),
            most=self.wish.service.scaling.max_scale if self.wish is not None else 0,
            cold_starts=self.activations[names.label_value(revision)],
        )

    def output(self, revision: str) -> list[OutputLine]:
        """What was fetched of the replicas' logs; asking has those of the newest ones fetched again."""
        found = self.find(revision)
        document = self._chosen(found) if found is not None else None
        if found is None or document is None:
            return []
        log = LogName(self.key, document["metadata"]["uid"])
        self._logs.fetch_newest(log, self._pods_of(found))
        return self._logs.lines(log)

    def _look_at(self, revision: Revision, now: float) -> RevisionStatus:
        assert self.wish is not None
        trouble = self.wish.refused.get(revision.name)
        if trouble is not None and not self._documents(revision):
            return RevisionStatus(revision.name, Readiness.FALSE, trouble.reason, trouble.message)
        if not self._seen.synced and revision.proven:
            return RevisionStatus(revision.name, Readiness.TRUE)
        if revision.name not in self.wish.kept:
            words = "it is no longer kept ready: roll back to it to serve it again"
            return RevisionStatus(revision.name, Readiness.FALSE, "Retired", words)
        document = self._chosen(revision)
        facts = self._facts(revision, document)
        trouble = find_trouble(facts)
        name = uid = self.wish_name(revision)
        if document is not None:
            name, uid = document["metadata"]["name"], document["metadata"]["uid"]
        works = document is not None and readiness_of(document, "Ready") is Readiness.TRUE
        standing_s = self._standing_s(name, trouble, now, works=works)
        log = LogName(self.key, uid)
        pod, previous = (trouble.pod, trouble.previous) if trouble is not None else ("", False)
        if pod and document is not None and not self._logs.known(log, pod, previous=previous):
            self._logs.fetch(log, namespace=document["metadata"]["namespace"], pod=pod, previous=previous)
            standing_s = -1.0  # whoever is told that it failed is told its last lines, too
        status = status_of(facts, trouble, standing_s=standing_s, log=self._logs.last(log, STATUS_LINES))
        return self.wish.features.hinted(status, revision, self._settings)

    def _facts(self, revision: Revision, document: Document | None) -> Facts:
        service = self._document()
        view = seen_service(service)
        name = document["metadata"]["name"] if document is not None else ""
        routed = name in (view.routed or {})
        if routed and not revision.proven and service is not None:
            # The first time the ingress must have said that it is set up; after that, calls are the best judge.
            routed = view.settled and readiness_of(service, "RoutesReady") is Readiness.TRUE
        return Facts(
            name=revision.name,
            revision=document,
            pods=self._pods_of(revision),
            routed=routed,
            proven=revision.proven,
            refusal=self.blocked
            or self.refusals.get(self.wish_name(revision))
            or self._creation_trouble(service, revision),
            start_timeout_s=self._settings.start_timeout_s,
        )

    def _creation_trouble(self, service: Document | None, revision: Revision) -> Trouble | None:
        """What Knative said when it was to make the revision of the template."""
        if service is None or not seen_service(service).settled:
            return None
        template = service["spec"]["template"].get("metadata", {}).get("name")
        condition = condition_of(service, "ConfigurationsReady")
        if template != self.wish_name(revision) or condition is None or condition.get("status") != "False":
            return None
        _, creation, message = str(condition.get("message", "")).partition("creation failed with message:")
        return Trouble("CannotStart", f"the revision cannot be made:{message}", SHORT_S) if creation else None

    def _standing_s(self, name: str, trouble: Trouble | None, now: float, *, works: bool) -> float:
        """For how long a Knative revision has had this trouble. One that is given up and made anew under its name, as
        those are that Knative has lost hope of, has it still.
        """
        if works:
            self._since.pop(name, None)
        if trouble is None:
            return 0.0
        reason, since = self._since.get(name, ("", now))
        if reason != trouble.reason:
            since = now
        self._since[name] = (trouble.reason, since)
        return now - since

    # What the keeper needs.

    def plan(self) -> Plan:
        assert self.wish is not None
        return plan(
            self.wish.service,
            current=self.wish.current,
            variants=self._all_variants(),
            seen=self.seen(),
            revisions_kept=self._settings.revisions_kept,
            refused=frozenset(self.refusals),
        )

    @property
    def has_failed(self) -> bool:
        """Whether a Knative revision may be given up when some time has passed."""
        return bool(self._failed_since)

    def seen(self) -> SeenService:
        return seen_service(self._document())

    def block(self, trouble: Trouble | None) -> None:
        if trouble != self.blocked:
            self.blocked = trouble
            self.notify()

    def forget_applied(self) -> None:
        """Have everything written again, for whatever happened to it meanwhile."""
        self.applied = None
        self.secret_applied = False
        self.refusals.clear()

    def _document(self) -> Document | None:
        return self._seen.service(self.key)

    def _host(self, tag: str) -> str:
        return names.host_of(tag, self.key, self._settings)

    def _documents(self, revision: Revision) -> list[Document]:
        label = names.label_value(revision.name)
        return [
            d
            for d in self._seen.revisions(self.key).values()
            if labels_of(d).get(names.REVISION) == label and "deletionTimestamp" not in d["metadata"]
        ]

    def _variants(self, revision: Revision) -> list[Variant]:
        return [variant_of(d) for d in self._documents(revision)]

    def _chosen(self, revision: Revision) -> Document | None:
        """The Knative revision that stands for Roost's: one that is routed and ready, else today's, else the newest."""
        routed = seen_service(self._document()).routed or {}
        current = self.wish_name(revision)
        return max(
            self._documents(revision),
            key=lambda d: (
                d["metadata"]["name"] in routed and readiness_of(d, "Ready") is Readiness.TRUE,
                d["metadata"]["name"] == current,
                d["metadata"].get("creationTimestamp", ""),
            ),
            default=None,
        )

    def _pods_of(self, revision: Revision) -> Sequence[Document]:
        pods = self._seen.pods(self.key)
        return [pod for d in self._documents(revision) for pod in pods.get(d["metadata"]["name"], ())]

    def _all_variants(self) -> list[Variant]:
        now = self._clock()
        pods = self._seen.pods(self.key)
        found: list[Variant] = []
        failed: dict[str, float] = {}
        for name, document in self._seen.revisions(self.key).items():
            if "deletionTimestamp" in document["metadata"]:
                continue
            spent = False
            if readiness_of(document, "Ready") is Readiness.FALSE and not pods.get(name):
                since = failed[name] = self._failed_since.get(name, now)
                spent = now - since >= SPENT_S
            found.append(variant_of(document, spent=spent))
        self._failed_since = failed
        return found
