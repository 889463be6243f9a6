"""What the cluster shows of Roost's models: Knative Services, revisions and pods, by model."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from roost_platform.domain.services import ServiceKey
from roost_platform.engines.knative import names
from roost_platform.engines.knative.cluster import (
    KNATIVE_REVISION,
    KNATIVE_SERVICE,
    POD,
    Cluster,
    Document,
    labels_of,
)
from roost_platform.engines.knative.informer import Changed, Informer
from roost_platform.engines.knative.settings import KnativeSettings
from roost_platform.engines.knative.template import CONTAINER

SELECTOR = f"{names.MANAGED_BY}=roost"
Group = dict[ServiceKey, dict[str, Document]]
"""A model's objects of one kind, by name."""
KNATIVE_REVISION_LABEL = "serving.knative.dev/revision"


def _nobody(_: Document | None, __: Document | None) -> None:
    """Is told of it in vain."""


class Seen:
    """Kept by three informers; readable at any time, and old while the API server is away."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        settings: KnativeSettings,
        changed: Callable[[ServiceKey], None],
        watch_s: float,
        pod_changed: Changed = _nobody,
    ) -> None:
        """`changed` is told the model of whatever changed, `pod_changed` of each pod of a model."""
        self._settings = settings
        self._changed = changed
        self._pod_changed = pod_changed
        self._services: Group = {}
        self._revisions: Group = {}
        self._pods: Group = {}
        informer = partial(Informer, cluster=cluster, selector=SELECTOR, watch_s=watch_s, relist_s=settings.resync_s)
        self._services_informer = informer(kind=KNATIVE_SERVICE, changed=partial(self._moved, self._services))
        self._pods_informer = informer(kind=POD, thin=_keep_limits, changed=self._pod_moved)
        self._informers = (
            self._services_informer,
            informer(kind=KNATIVE_REVISION, thin=_drop_spec, changed=partial(self._moved, self._revisions)),
            self._pods_informer,
        )
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(informer.run()) for informer in self._informers]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def synced(self) -> bool:
        """Whether everything was seen once."""
        return all(informer.synced.is_set() for informer in self._informers)

    async def wait_synced(self) -> None:
        for informer in self._informers:
            await informer.synced.wait()

    @property
    def pods_sure_until(self) -> float:
        """See `Informer.sure_until`."""
        return self._pods_informer.sure_until

    def service(self, key: ServiceKey) -> Document | None:
        return self._services.get(key, {}).get(names.service_name(key.model))

    def revisions(self, key: ServiceKey) -> Mapping[str, Document]:
        """By Knative's name."""
        return self._revisions.get(key, {})

    def pods(self, key: ServiceKey) -> Mapping[str, list[Document]]:
        """By Knative's name of their revision."""
        found: dict[str, list[Document]] = {}
        for pod in self._pods.get(key, {}).values():
            found.setdefault(labels_of(pod).get(KNATIVE_REVISION_LABEL, ""), []).append(pod)
        return found

    def services(self) -> Iterator[Document]:
        """Every Knative Service with Roost's label in a namespace of Roost's, whatever else its labels say."""
        for place, document in list(self._services_informer.objects.items()):
            if place.namespace.startswith(self._settings.namespace_prefix):
                yield document

    def _pod_moved(self, before: Document | None, now: Document | None) -> None:
        self._moved(self._pods, before, now)
        if any(pod is not None and self.key_of(pod) is not None for pod in (before, now)):
            self._pod_changed(before, now)

    def _moved(self, group: Group, before: Document | None, now: Document | None) -> None:
        old = self.key_of(before) if before is not None else None
        new = self.key_of(now) if now is not None else None
        if before is not None and old is not None and old != new:
            left = group.get(old, {})
            left.pop(before["metadata"]["name"], None)
            if not left:
                group.pop(old, None)
            self._changed(old)
        if now is not None and new is not None:
            group.setdefault(new, {})[now["metadata"]["name"]] = now
            self._changed(new)

    def key_of(self, document: Document) -> ServiceKey | None:
        """The model that an object belongs to; None when its labels and its namespace do not agree."""
        labels = labels_of(document)
        tenant, model = labels.get(names.TENANT, ""), labels.get(names.MODEL, "")
        if not tenant or not model:
            return None
        if document["metadata"].get("namespace") != names.namespace_of(tenant, self._settings):
            return None
        return ServiceKey(tenant, model)


def _drop_spec(document: Document) -> None:
    document.pop("spec", None)


def _keep_limits(pod: Document) -> None:
    """Of a pod's wish only what its model may use is read."""
    containers = (pod.pop("spec", None) or {}).get("containers") or ()
    limits = next(((c.get("resources") or {}).get("limits") or {} for c in containers if c["name"] == CONTAINER), {})
    pod["spec"] = {"limits": limits}
