"""Domain values as documents of the control API."""

from collections.abc import Mapping, Sequence

from roost_gateway.access.keys import NewKey
from roost_gateway.access.routes import RevisionRecord, RevisionState, Route
from roost_gateway.api import documents
from roost_gateway.api.services import Services
from roost_gateway.deployments.rollout import model_state
from roost_platform.domain.services import RevisionStatus, ServiceKey
from roost_platform.domain.tenants import ApiKey, Tenant
from roost_platform.engines.port import RevisionFigures
from roost_platform.registry.versions import Version

_INTERRUPTED = "its upload was interrupted before it was deployed; upload it again"
_NOT_KEPT = "it is no longer deployed; upload it again"


def model_url(parts: Services, key: ServiceKey) -> str:
    return f"{parts.url}/t/{key.tenant}/v2/models/{key.model}"


def tenant_document(tenant: Tenant) -> documents.TenantDocument:
    return documents.TenantDocument(name=tenant.name, quota=tenant.quota, created_at=tenant.created_at)


def key_document(key: ApiKey) -> documents.KeyDocument:
    return documents.KeyDocument(
        id=key.id,
        name=key.name,
        scopes=sorted(key.scopes),
        created_at=key.created_at,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
        last_used_at=key.last_used_at,
    )


def new_key_document(new: NewKey) -> documents.NewKeyDocument:
    key = new.key
    return documents.NewKeyDocument(
        id=key.id,
        name=key.name,
        scopes=sorted(key.scopes),
        created_at=key.created_at,
        expires_at=key.expires_at,
        secret=new.secret,
    )


def version_document(
    version: Version, record: RevisionRecord | None, *, url: str, deployed_once: bool = True
) -> documents.VersionDocument:
    """`record` is the revision that stands for the version, None when none is kept (or, not `deployed_once`, was made)."""
    reason = (_NOT_KEPT if deployed_once else _INTERRUPTED) if record is None else record.reason
    return documents.VersionDocument(
        tenant=version.tenant,
        model=version.model,
        version=version.number,
        digest=version.digest,
        size=version.size,
        signature=documents.SignatureDocument.model_validate(version.signature.to_json()),
        revision=None if record is None else record.revision.name,
        state=RevisionState.FAILED if record is None else record.state,
        reason=reason,
        created_at=version.created_at,
        url=url,
        predict_url=f"{url}/infer",
    )


def version_documents(versions: Sequence[Version], route: Route, *, url: str) -> list[documents.VersionDocument]:
    deployed_once = bool(route.records)
    return [
        version_document(v, route.record_of_version(v.number), url=url, deployed_once=deployed_once) for v in versions
    ]


def traffic_documents(route: Route) -> list[documents.TrafficDocument]:
    return [
        documents.TrafficDocument(
            revision=t.revision, version=route.service.revision(t.revision).version, percent=t.percent
        )
        for t in route.service.traffic
    ]


def model_document(route: Route, statuses: Sequence[RevisionStatus], *, url: str) -> documents.ModelDocument:
    return documents.ModelDocument(
        tenant=route.key.tenant,
        model=route.key.model,
        created_at=route.created_at,
        traffic=traffic_documents(route),
        latest_version=route.last_version,
        state=model_state(route, statuses),
        replicas_ready=sum(status.running for status in statuses),
        replicas_wanted=sum(status.wanted for status in statuses),
        url=url,
    )


def revision_document(
    record: RevisionRecord, status: RevisionStatus, figures: RevisionFigures | None
) -> documents.RevisionDocument:
    return documents.RevisionDocument(
        name=record.revision.name,
        version=record.revision.version,
        state=record.state,
        ready=status.ready,
        reason=status.reason,
        message=status.message,
        replicas_wanted=status.wanted,
        replicas_ready=status.running,
        log=list(status.log),
        load=None if figures is None else load_document(figures),
    )


def load_document(figures: RevisionFigures) -> documents.LoadDocument:
    return documents.LoadDocument(
        replicas_starting=figures.starting,
        queued=figures.queued,
        in_flight=figures.in_flight,
        desired=figures.desired,
        average_stable=figures.stable,
        average_panic=figures.panic,
        panicking=figures.panicking,
        cold_starts=figures.cold_starts,
    )


def status_document(
    route: Route, statuses: Sequence[RevisionStatus], figures: Mapping[str, RevisionFigures]
) -> documents.StatusDocument:
    return documents.StatusDocument(
        tenant=route.key.tenant,
        model=route.key.model,
        state=model_state(route, statuses),
        traffic=traffic_documents(route),
        scaling=route.service.scaling.to_json(),
        revisions=[revision_document(r, s, figures.get(s.name)) for r, s in zip(route.records, statuses, strict=True)],
    )
