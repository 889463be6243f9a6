"""Makes the cluster as it is wished, one model at a time; only the leader has one at work.

Level-triggered: each look starts from the wish and from what is seen, does the next thing, and returns. What changes
then brings the next look; a look too many costs nothing, since applying what is there already changes nothing.
"""

import asyncio
import logging
from collections.abc import Callable
from weakref import WeakValueDictionary

from roost_platform.domain.services import ServiceKey
from roost_platform.domain.tenants import Quota
from roost_platform.engines.knative import names
from roost_platform.engines.knative.cluster import (
    FIELD_MANAGER,
    KNATIVE_REVISION,
    KNATIVE_SERVICE,
    NAMESPACE,
    SECRET,
    Cluster,
    ClusterError,
    Conflict,
    Document,
    Failed,
    Forbidden,
    Kind,
    Missing,
    Refused,
    labels_of,
)
from roost_platform.engines.knative.conditions import Trouble, refusal_of
from roost_platform.engines.knative.model import SPENT_S, Model
from roost_platform.engines.knative.objects import knative_service, service_secret
from roost_platform.engines.knative.reconcile import Plan, covers
from roost_platform.engines.knative.seen import SELECTOR, Seen
from roost_platform.engines.knative.settings import KnativeSettings
from roost_platform.engines.knative.tenants import tenant_objects
from roost_platform.engines.knative.wish import Applied, Wish, digest_of

logger = logging.getLogger(__name__)

LOOK_AGAIN_S = 2.0
"""For what no watch tells of."""
_REPAIR_PAUSE_S = 5.0
"""Least time between two repairs of one model, so that two who write the same field do not fight at full speed."""


class NameTaken(ClusterError):
    """Somebody else's object has the name."""


class Keeper:
    """`look_at` may be called for different models at a time, never for the same one."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        seen: Seen,
        settings: KnativeSettings,
        quota_of: Callable[[str], Quota | None],
        leads: Callable[[], bool],
        clock: Callable[[], float],
        orphan_s: float = 10.0,
    ) -> None:
        """`orphan_s`: so long nobody must have wished a model before it is taken for nobody's: a leader that is new may
        hear of it a moment after it has seen it.
        """
        self._orphan_s = orphan_s
        self._orphans: dict[str, float] = {}  # uid -> since when
        self._cluster = cluster
        self._seen = seen
        self._settings = settings
        self._quota_of = quota_of
        self._leads = leads
        self._clock = clock
        self._tenants: dict[str, str] = {}  # -> digest of the objects as applied
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._repaired: dict[ServiceKey, float] = {}

    def forget_applied(self) -> None:
        """Have tenants' objects written again."""
        self._tenants.clear()

    async def look_at(self, model: Model) -> float | None:
        """Do what is next; returns seconds after which to look again, None where a watch will tell.

        Raises ClusterError.
        """
        if model.ending:
            return await self._finish(model)
        wish = model.wish
        if wish is None:
            return None
        if any(status.reason == "CannotStart" for status in model.statuses().values()):
            model.secret_applied = False  # that is what a replica lacks whose Secret was deleted by hand
        planned = model.plan()
        if planned.template is None:
            if wish.service.revisions:  # none may be deployed here; what was deployed before serves on
                return None
            return None if await self._delete_objects(model.key) else LOOK_AGAIN_S
        await self._prepare(model)
        return await self._service(model, wish, planned)

    async def _prepare(self, model: Model) -> None:
        """The tenant's objects and the model's Secret; what keeps them from being made keeps everything."""
        try:
            await self._tenant(model.key.tenant)
            if not model.secret_applied:
                await self._apply(service_secret(model.key, model.secret, self._settings))
                model.secret_applied = True
            if model.applied is None and self._seen.service(model.key) is None:
                name, namespace = self._place_of(model.key)
                await self._check_ours(KNATIVE_SERVICE, name, namespace)
        except NameTaken as error:
            model.block(Trouble("NameTaken", error.message))
            raise
        except (Refused, Forbidden) as error:
            model.block(refusal_of(error))
            raise
        model.block(None)

    async def sweep(self, wished: Callable[[ServiceKey], bool]) -> None:
        """Delete the models and tenants that nobody wishes, when that has been so for a while. Raises ClusterError."""
        now = self._clock()
        since = {
            document["metadata"]["uid"]: now for document in self._seen.services() if self._is_orphan(document, wished)
        }
        self._orphans = {uid: self._orphans.get(uid, first) for uid, first in since.items()}
        for document in list(self._seen.services()):
            metadata = document["metadata"]
            if now - self._orphans.get(metadata["uid"], now) < self._orphan_s or metadata["uid"] not in self._orphans:
                continue
            if "deletionTimestamp" not in metadata:
                logger.warning(
                    "orphan_deleted", extra={"namespace": metadata["namespace"], "service": metadata["name"]}
                )
                await self._delete_seen(KNATIVE_SERVICE, document)
            await self._delete(SECRET, f"{metadata['name']}-secret", metadata["namespace"])
        await self._sweep_tenants()

    def _is_orphan(self, document: Document, wished: Callable[[ServiceKey], bool]) -> bool:
        labels, metadata = labels_of(document), document["metadata"]
        key = ServiceKey(labels.get(names.TENANT, ""), labels.get(names.MODEL, ""))
        return not wished(key) or self._place_of(key) != (metadata["name"], metadata["namespace"])

    async def _sweep_tenants(self) -> None:
        used = {document["metadata"]["namespace"] for document in self._seen.services()}
        for namespace in (await self._cluster.find(NAMESPACE, selector=SELECTOR)).items:
            tenant, name = labels_of(namespace).get(names.TENANT), namespace["metadata"]["name"]
            if tenant and name == names.namespace_of(tenant, self._settings) and name not in used:
                await self._end_tenant(tenant, namespace)

    def _place_of(self, key: ServiceKey) -> tuple[str, str]:
        """Name and namespace of the model's Knative Service."""
        return names.service_name(key.model), names.namespace_of(key.tenant, self._settings)

    # One model.

    async def _service(self, model: Model, wish: Wish, planned: Plan) -> float | None:
        assert planned.template is not None
        document = knative_service(
            wish.service,
            template_revision=planned.template,
            targets=planned.targets,
            settings=self._settings,
            secret_fingerprint=wish.fingerprint,
            features=wish.features,
        )
        seen = self._seen.service(model.key)
        if seen is not None and "deletionTimestamp" in seen["metadata"]:
            return LOOK_AGAIN_S  # by hand; it is made again when it is gone
        digest = digest_of(document)
        if model.applied is None or model.applied.digest != digest:
            await self._apply_service(model, document, digest, wish.current[planned.template.name])
            return None
        if self._drifted(model.applied, seen, document):
            wait_s = self._repaired.get(model.key, float("-inf")) + _REPAIR_PAUSE_S - self._clock()
            if wait_s > 0:
                return wait_s
            self._repaired[model.key] = self._clock()
            logger.warning("service_repaired", extra=_fields(model.key))
            await self._apply_service(model, document, digest, wish.current[planned.template.name])
            return None
        model.leaving = frozenset(planned.delete)
        if planned.delete and model.seen().settled:
            await self._delete_revisions(model, planned)
        return SPENT_S if model.has_failed else None

    async def _apply_service(self, model: Model, document: Document, digest: str, template: str) -> None:
        try:
            result = await self._apply(document)
        except (Refused, Forbidden) as error:
            logger.warning("apply_refused", extra=_fields(model.key, revision=template, error=error.message))
            model.refusals[template] = refusal_of(error)
            model.notify()
            raise
        model.refusals.pop(template, None)
        model.applied = Applied(digest, result["metadata"].get("uid", ""), result["metadata"].get("generation", 0))
        logger.info("service_applied", extra=_fields(model.key, template=template))

    def _drifted(self, applied: Applied, seen: Document | None, document: Document) -> bool:
        """Whether somebody else has changed or deleted it since it was applied. An older state is just old news."""
        if seen is None:
            return True
        metadata = seen["metadata"]
        return (
            metadata.get("uid") != applied.uid
            or metadata.get("generation", 0) > applied.generation
            or not covers(metadata.get("labels"), document["metadata"]["labels"])
            or not covers(metadata.get("annotations") or {}, document["metadata"].get("annotations") or {})
        )

    async def _delete_revisions(self, model: Model, planned: Plan) -> None:
        for name in planned.delete:
            document = self._seen.revisions(model.key).get(name)
            idle = not model.inflight[name]  # else the call that ends last brings the next look
            if idle and document is not None and "deletionTimestamp" not in document["metadata"]:
                logger.info("revision_deleted", extra=_fields(model.key, knative_revision=name))
                await self._delete_seen(KNATIVE_REVISION, document)

    async def _finish(self, model: Model) -> float | None:
        """End a model whose calls have ended; done when nothing of it is left."""
        if model.inflight:
            return None  # the last one that leaves brings the next look
        if not await self._delete_objects(model.key):
            return LOOK_AGAIN_S
        model.ending = False
        model.forget_applied()
        if model.ended is not None and not model.ended.done():
            model.ended.set_result(None)
        logger.info("service_deleted", extra=_fields(model.key))
        return 0.0

    async def _delete_objects(self, key: ServiceKey) -> bool:
        """Delete the model's objects; False while they are on their way. What is not Roost's is left alone."""
        name, namespace = self._place_of(key)
        document = await self._get(KNATIVE_SERVICE, name, namespace)
        if document is not None and _is_ours(document):
            if "deletionTimestamp" not in document["metadata"]:
                await self._delete_seen(KNATIVE_SERVICE, document)
            return False
        if self._seen.pods(key) or self._seen.revisions(key):
            return False  # what a foreground deletion leaves is gone in a moment
        home = await self._get(NAMESPACE, namespace)
        if home is not None and _is_ours(home):
            await self._delete(SECRET, names.secret_name(key.model), namespace)
        return True

    async def _get(self, kind: Kind, name: str, namespace: str = "") -> Document | None:
        try:
            return await self._cluster.get(kind, name, namespace)
        except Missing:
            return None

    async def _delete_seen(self, kind: Kind, document: Document) -> None:
        metadata = document["metadata"]
        try:
            await self._delete(
                kind, metadata["name"], metadata["namespace"], uid=metadata.get("uid", ""), foreground=True
            )
        except Conflict:
            logger.info("deleted_meanwhile", extra={"kind": kind.plural, "object": metadata["name"]})

    # One tenant.

    async def _tenant(self, tenant: str) -> None:
        """Make sure of the tenant's namespace and what belongs in it."""
        quota = self._quota_of(tenant)
        if quota is None:
            raise Failed("the tenant is not known here")
        objects = tenant_objects(tenant, quota, self._settings)
        digest = digest_of({"objects": objects})
        async with self._locks.setdefault(tenant, asyncio.Lock()):
            if self._tenants.get(tenant) == digest:
                return
            for document in objects:
                if document["kind"] == NAMESPACE.kind:
                    await self._check_ours(NAMESPACE, document["metadata"]["name"])
                await self._apply(document)
            self._tenants[tenant] = digest
            logger.info("tenant_applied", extra={"tenant": tenant})

    async def _end_tenant(self, tenant: str, namespace: Document) -> None:
        if self._quota_of(tenant) is not None or "deletionTimestamp" in namespace["metadata"]:
            return
        metadata = namespace["metadata"]
        logger.info("tenant_ended", extra={"tenant": tenant})
        self._tenants.pop(tenant, None)
        await self._delete(NAMESPACE, metadata["name"], uid=metadata.get("uid", ""))

    async def end_tenant_if_unknown(self, tenant: str) -> None:
        """Delete the namespace of a tenant that is gone, where nothing of Roost's is left in it."""
        name = names.namespace_of(tenant, self._settings)
        if self._quota_of(tenant) is not None or any(d["metadata"]["namespace"] == name for d in self._seen.services()):
            return
        namespace = await self._get(NAMESPACE, name)
        if namespace is not None and _is_ours(namespace):
            await self._end_tenant(tenant, namespace)

    # Writing.

    async def _check_ours(self, kind: Kind, name: str, namespace: str = "") -> None:
        """Raises NameTaken for somebody else's, NotNow for one that is about to go."""
        document = await self._get(kind, name, namespace)
        if document is None:
            return
        if not _is_ours(document):
            raise NameTaken(f"the cluster has a {kind.kind} {name} that is not Roost's")
        if "deletionTimestamp" in document["metadata"]:
            raise Failed(f"the {kind.kind} {name} is being deleted")

    async def _delete(
        self, kind: Kind, name: str, namespace: str = "", *, uid: str = "", foreground: bool = False
    ) -> None:
        self._check_leads()
        await self._cluster.delete(kind, name, namespace, uid=uid, foreground=foreground)

    def _check_leads(self) -> None:
        if not self._leads():
            raise Failed("another gateway leads now")

    async def _apply(self, document: Document) -> Document:
        self._check_leads()
        try:
            return await self._cluster.apply(document)
        except (Missing, Forbidden) as error:
            if isinstance(error, Forbidden) and "being terminated" not in error.message:
                raise
            # Its namespace was deleted by hand: it is made again at one of the next looks.
            self._tenants.pop(labels_of(document).get(names.TENANT, ""), None)
            raise Failed(error.message) from error


def _is_ours(document: Document) -> bool:
    """By its label, or, where somebody has removed that, by who applied it."""
    if labels_of(document).get(names.MANAGED_BY) == "roost":
        return True
    managers = document["metadata"].get("managedFields") or ()
    return any(m.get("manager") == FIELD_MANAGER and m.get("operation") == "Apply" for m in managers)


def _fields(key: ServiceKey, **more: str) -> dict[str, str]:
    return {"tenant": key.tenant, "model": key.model, **more}
