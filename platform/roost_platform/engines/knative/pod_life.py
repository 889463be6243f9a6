"""A pod's life as the API server tells it, in microseconds since 1970. Pure: documents in, values out.

Kubernetes writes whole seconds. What it knows of a beginning is at most a second early, and so is what it knows of an end.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from math import ceil
from typing import Any

from roost_platform.domain.services import ServiceKey
from roost_platform.engines.knative import names
from roost_platform.engines.knative.cluster import Document, labels_of
from roost_platform.engines.knative.conditions import condition_of
from roost_platform.engines.knative.template import CONTAINER

KNATIVE_REVISION = "serving.knative.dev/revision"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOSTNAME_LENGTH = 63
_OVER = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class PodLife:
    """None = not yet, or not known."""

    uid: str
    name: str
    namespace: str
    variant: str
    """Knative's name of its revision."""
    key: ServiceKey
    revision: str
    """Roost's name of its revision, as the label has it."""
    version: int
    resource_class: str
    born_us: int
    ip: str = ""
    scheduled_us: int | None = None
    started_us: int | None = None
    """When its image was there and the model's process began, for the first time."""
    ready_us: int | None = None
    """When the kubelet found it ready, for the first time that is known."""
    serves: bool = False
    """Whether the kubelet finds it ready now."""
    restarted: bool = False
    """Its process is not the first one, of which it is not known that it was ever ready."""
    over: bool = False
    """Nothing of it runs any more, or ever will."""
    ended_us: int | None = None
    """When its process ended for good."""
    limit_us: int | None = None
    """When its time for finishing is over, since it is being deleted: it is not held for longer."""

    @property
    def host(self) -> str:
        """What the replica itself takes for its name."""
        return self.name[:_HOSTNAME_LENGTH].rstrip("-.")

    def followed_by(self, later: "PodLife") -> "PodLife":
        """The same pod, with what was known before and cannot be seen any more."""
        return replace(
            later,
            ip=later.ip or self.ip,
            scheduled_us=_first(self.scheduled_us, later.scheduled_us),
            started_us=_first(self.started_us, later.started_us),
            ready_us=_first(self.ready_us, later.ready_us),
            restarted=later.restarted if self.ready_us is None else self.restarted,
            ended_us=later.ended_us if self.ended_us is None else self.ended_us,
            over=self.over or later.over,
        )


def read_pod(document: Document, *, gpu_resource: str) -> PodLife | None:
    """None for a pod that is not a replica of a model's version."""
    labels, metadata = labels_of(document), document["metadata"]
    version = labels.get(names.VERSION, "")
    if not version.isascii() or not version.isdecimal() or not metadata.get("creationTimestamp"):
        return None
    status = document.get("status") or {}
    container = _container(status)
    state = container.get("state") or {}
    deleted = metadata.get("deletionTimestamp")
    failed = status.get("phase") in _OVER
    finished = _us((state.get("terminated") or {}).get("finishedAt"))
    ready = condition_of(document, "Ready") or {}
    serves = ready.get("status") == "True"
    over = failed or (bool(deleted) and bool(state.get("terminated")))
    return PodLife(
        uid=str(metadata.get("uid", "")),
        name=metadata["name"],
        namespace=metadata.get("namespace", ""),
        variant=labels.get(KNATIVE_REVISION, ""),
        key=ServiceKey(labels.get(names.TENANT, ""), labels.get(names.MODEL, "")),
        revision=labels.get(names.REVISION, ""),
        version=int(version),
        resource_class=class_of((document.get("spec") or {}).get("limits") or {}, gpu_resource=gpu_resource),
        born_us=_us(metadata["creationTimestamp"]) or 0,
        ip=status.get("podIP") or "",
        scheduled_us=_since(condition_of(document, "PodScheduled")),
        started_us=_earliest(_started(container)),
        ready_us=_us(ready.get("lastTransitionTime")) if serves else None,
        serves=serves,
        restarted=int(container.get("restartCount") or 0) > 0,
        over=over,
        ended_us=(finished or (None if serves else _us(ready.get("lastTransitionTime")))) if over else None,
        limit_us=_us(deleted),
    )


def class_of(limits: Document, *, gpu_resource: str) -> str:
    """What kind of machine a container with these limits holds: `gpu-1`, or `cpu-2` for up to two vCPU."""
    gpus = _number(limits.get(gpu_resource))
    if gpus >= 1:
        return f"gpu-{int(gpus)}"
    return f"cpu-{max(1, ceil(_number(limits.get('cpu'))))}"


def _number(quantity: Any) -> Decimal:
    """A count as Kubernetes writes it: `2`, `1500m`, `0.5`; 0 for what is none."""
    text = str(quantity or 0)
    try:
        return Decimal(text.removesuffix("m")) / (1000 if text.endswith("m") else 1)
    except InvalidOperation:
        return Decimal(0)


def _container(status: Document) -> Document:
    statuses: Sequence[Document] = status.get("containerStatuses") or ()
    return next((s for s in statuses if s.get("name") == CONTAINER), {})


def _started(container: Document) -> Iterable[int | None]:
    for state in (container.get("state") or {}, container.get("lastState") or {}):
        for kind in ("running", "terminated"):
            yield _us((state.get(kind) or {}).get("startedAt"))


def _since(condition: Document | None) -> int | None:
    true = condition is not None and condition.get("status") == "True"
    return _us(condition.get("lastTransitionTime")) if condition is not None and true else None


def _first(one: int | None, other: int | None) -> int | None:
    return _earliest((one, other))


def _earliest(times: Iterable[int | None]) -> int | None:
    return min((time for time in times if time is not None), default=None)


def _us(text: str | None) -> int | None:
    """RFC 3339, as the API server writes it."""
    if not text:
        return None
    return us_of(datetime.fromisoformat(text))


def us_of(time: datetime) -> int:
    """Microseconds since 1970 of an aware time."""
    return (time - _EPOCH) // timedelta(microseconds=1)
