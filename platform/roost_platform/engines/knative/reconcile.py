"""What to do next for one model: from the wish and what is seen, the Knative Service as it should be. Pure.

A Knative Service has one template, so Knative revisions are made one after the other: the template is the one that is
missing, and a changed setting is a missing one, because a Knative revision is named by its whole template. While none
is missing the template names one that works, since Knative takes its Service for failed while the template's failed.

Traffic names Knative revisions that are ready, and no others: a single one that is not keeps Knative from changing any
route of the Service.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from roost_platform.domain.services import Readiness, Revision, Service
from roost_platform.engines.knative import names
from roost_platform.engines.knative.cluster import Document, labels_of
from roost_platform.engines.knative.conditions import readiness_of
from roost_platform.engines.knative.objects import Target


@dataclass(frozen=True, slots=True)
class Variant:
    """A Knative revision: a Roost revision as it was deployed under one set of settings."""

    name: str
    revision: str
    """The label that names Roost's revision."""
    ready: Readiness
    created: str = ""
    spent: bool = False
    """It failed some time ago and nothing of it runs: it will not recover by itself."""


@dataclass(frozen=True, slots=True)
class SeenService:
    """The Knative Service as the cluster has it."""

    settled: bool = False
    """Whether Knative has followed its newest wish."""
    traffic: tuple[Target, ...] = ()
    """As wished."""
    routed: Mapping[str, str] | None = None
    """Tag by Knative revision, as the route carries them."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a model's Knative Service should be now; without a template there is nothing that it could be."""

    template: Revision | None
    targets: tuple[Target, ...] = ()
    delete: tuple[str, ...] = ()
    """Knative revisions that nothing needs; to be deleted once the Service is as planned and settled."""


def plan(
    service: Service,
    *,
    current: Mapping[str, str],
    variants: Sequence[Variant],
    seen: SeenService,
    revisions_kept: int,
    refused: frozenset[str] = frozenset(),
) -> Plan:
    """`current`: the Knative name, under today's settings, of each revision that may be deployed, by Roost's name.

    A revision that may not be deployed any more serves on where it is. `refused`: Knative names that the cluster does
    not take; they must not hold up the others.
    """
    kept = kept_revisions(service, revisions_kept)
    if not any(r.name in current for r in kept):
        return Plan(None)
    return _Planner(service, kept, current, variants, seen, refused).plan()


def kept_revisions(service: Service, revisions_kept: int) -> list[Revision]:
    """Those that should be in the cluster, oldest first: with traffic, not proven, and the newest of the others."""
    by_age = sorted(service.revisions, key=_age)
    busy = _with_traffic(service)
    idle = [r.name for r in by_age if r.proven and r.name not in busy]
    dropped = set(idle[: max(0, len(idle) - revisions_kept)])
    return [r for r in by_age if r.name not in dropped]


@dataclass(frozen=True)
class _Planner:
    service: Service
    kept: Sequence[Revision]
    current: Mapping[str, str]
    variants: Sequence[Variant]
    seen: SeenService
    refused: frozenset[str]

    def plan(self) -> Plan:
        template, targets = self.template(), self.targets()
        used = {t.revision_name for t in (*targets, *self.seen.traffic)} | set(self.seen.routed or ())
        used.add(self.current[template.name])
        return Plan(template, targets, tuple(v.name for v in self.variants if v.name not in used and self.useless(v)))

    def own(self, revision: Revision) -> list[Variant]:
        return [v for v in self.variants if v.revision == names.label_value(revision.name)]

    def made(self, revision: Revision) -> Variant | None:
        """The one of today's settings, where it was made already."""
        return next((v for v in self.own(revision) if v.name == self.current.get(revision.name)), None)

    def serving(self, revision: Revision) -> Variant | None:
        """The one that calls should go to: today's when it is ready, else the newest that is."""
        ready = [v for v in self.own(revision) if v.ready is Readiness.TRUE]
        current = self.current.get(revision.name)
        return max(ready, key=lambda v: (v.name == current, v.created, v.name), default=None)

    def template(self) -> Revision:
        busy = _with_traffic(self.service)
        deployable = [r for r in self.kept if r.name in self.current]
        wanted = [r for r in deployable if self.missing(r) and self.current[r.name] not in self.refused]
        if wanted:
            return min(wanted, key=lambda r: (r.name not in busy, _age(r)))
        there = [(v.ready is not Readiness.FALSE, _age(r), r) for r in deployable if (v := self.made(r)) is not None]
        # With only old variants, and none that has to be renewed, the newest is: there must be a template.
        return max(there, key=lambda entry: entry[:2])[2] if there else deployable[-1]

    def missing(self, revision: Revision) -> bool:
        if not self.own(revision):
            return True
        renewed = not revision.proven or revision.name in _with_traffic(self.service)
        return renewed and self.made(revision) is None

    def targets(self) -> tuple[Target, ...]:
        tags = names.tags_of(self.service)
        percents = {t.revision: t.percent for t in self.service.traffic}
        before = {t.revision_name: t for t in self.seen.traffic}
        ready: list[Target] = []
        everything: list[Target] = []
        for revision in self.kept:
            chosen = self.serving(revision)
            if chosen is not None:
                ready.append(Target(chosen.name, tags[revision.name], percents.get(revision.name, 0)))
                everything.append(ready[-1])
            else:
                everything += [before[v.name] for v in self.own(revision) if v.name in before]
        # One that was ready and is not now keeps its route for as long as nothing else changes: a call can then wake it.
        if {(t.revision_name, t.tag) for t in everything} != {(t.revision_name, t.tag) for t in before.values()}:
            return tuple(ready)
        bears = ready or everything[:1]  # shares of 100 percent at most, whatever the kept ones had
        return tuple(t if t in bears else Target(t.revision_name, t.tag, 0) for t in everything)

    def useless(self, variant: Variant) -> bool:
        """Another revision's, one that failed for good, or an older one that need not serve any more."""
        revision = next((r for r in self.kept if names.label_value(r.name) == variant.revision), None)
        if revision is None or variant.spent:
            return True
        known = revision.name in self.current
        return known and variant.name != self.current[revision.name] and variant is not self.serving(revision)


def variant_of(document: Document, *, spent: bool = False) -> Variant:
    return Variant(
        document["metadata"]["name"],
        labels_of(document).get(names.REVISION, ""),
        readiness_of(document, "Ready"),
        document["metadata"].get("creationTimestamp", ""),
        spent,
    )


def seen_service(document: Document | None) -> SeenService:
    if document is None:
        return SeenService()
    status = document.get("status") or {}
    return SeenService(
        settled=status.get("observedGeneration") == document["metadata"].get("generation"),
        traffic=tuple(
            Target(t.get("revisionName", ""), t.get("tag", ""), t.get("percent") or 0)
            for t in (document.get("spec") or {}).get("traffic") or ()
        ),
        routed={
            t["revisionName"]: t["tag"] for t in status.get("traffic") or () if "revisionName" in t and t.get("tag")
        },
    )


def covers(seen: object, wished: object) -> bool:
    """Whether everything that is wished is so in what is seen, which may say more."""
    if isinstance(wished, Mapping):
        return isinstance(seen, Mapping) and all(k in seen and covers(seen[k], v) for k, v in wished.items())
    return seen == wished


def _with_traffic(service: Service) -> set[str]:
    return {t.revision for t in service.traffic if t.percent > 0}


def _age(revision: Revision) -> tuple[int, str]:
    return names.generation_of(revision.name), revision.name
