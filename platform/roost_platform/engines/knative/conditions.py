"""What Knative and Kubernetes say about a revision, in Roost's words. Pure: documents in, values out.

The pods know first and best why a revision does not start, Knative's conditions what pods cannot tell (there is none, or
it took too long). Some troubles pass by themselves (room comes free, a registry answers again), so each has a patience:
how long it may stand before the revision counts as failed.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from roost_platform.domain.services import Readiness, RevisionStatus
from roost_platform.engines.knative.cluster import Document, Forbidden, Refused
from roost_platform.engines.knative.template import CONTAINER

AT_ONCE = 0.0
SHORT_S = 30.0
"""For what mostly passes in seconds: a registry that is busy, a Secret that is being written."""
ROOM_S = 120.0
"""For a quota: the tenant's other replicas go to sleep after a minute or two."""

_LONGEST_MESSAGE = 500
_CONDITIONS = ("ContainerHealthy", "ResourcesAvailable", "Ready")
_IMAGE_REASONS = ("ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ErrImageNeverPull", "InvalidImageName")
_CONFIG_REASONS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError")
_KILLED = {137: "SIGKILL", 143: "SIGTERM"}
_EXCEEDED = re.compile(r"exceeded quota: [^,]+, requested: (.+?), used: (.+?), limited: (.+?)(?:[;\"]|$)")
_FIELDS = re.compile(r"must not set the field\(s\): ([\w.\[\], -]+)")
_NAMES = re.compile(r"\b(?:pods?|services?|revisions?|deployments?) \"[^\"]*\"(?: is forbidden)?:? ?")


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a revision is not ready. Two of the same reason are the same trouble that goes on."""

    reason: str
    message: str
    patience_s: float = AT_ONCE
    pod: str = ""
    """Whose log tells more; empty = no pod's."""
    previous: bool = False
    """Whether it is the log of the container before its restart."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one Roost revision at one moment."""

    name: str
    revision: Document | None
    """The Knative revision that stands for it; None = not made yet."""
    pods: Sequence[Document] = ()
    routed: bool = False
    """Whether the route carries its tag."""
    proven: bool = False
    refusal: Trouble | None = None
    """What the API server said to the last try to make it."""
    start_timeout_s: float = 600.0


def find_trouble(facts: Facts) -> Trouble | None:
    """The trouble that best explains why the revision is not ready; None = none that shows."""
    if facts.revision is None:
        return facts.refusal
    if readiness_of(facts.revision, "Ready") is Readiness.TRUE:
        return None
    pods = _live(facts.pods)
    trouble = trouble_of_pods(pods)
    if trouble is not None:
        return trouble
    for pod in pods:
        if (trouble := _scheduling_trouble(pod, facts.start_timeout_s)) is not None:
            return trouble
    return _condition_trouble(facts.revision, pods, facts.start_timeout_s)


def trouble_of_pods(pods: Sequence[Document]) -> Trouble | None:
    """Why a replica that was to start did not; None when none of them tells."""
    return next((t for pod in _live(pods) if (t := _container_trouble(pod)) is not None), None)


def _live(pods: Sequence[Document]) -> list[Document]:
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def status_of(facts: Facts, trouble: Trouble | None, *, standing_s: float, log: tuple[str, ...] = ()) -> RevisionStatus:
    """`standing_s`: for how long this trouble has been seen."""
    running = sum(1 for pod in facts.pods if is_ready(pod))
    wanted = int(((facts.revision or {}).get("status") or {}).get("desiredReplicas") or 0)
    ready = facts.revision is not None and readiness_of(facts.revision, "Ready") is Readiness.TRUE
    if ready and facts.routed:
        return RevisionStatus(facts.name, Readiness.TRUE, wanted=max(wanted, running), running=running)
    if trouble is None:
        trouble = _on_its_way(facts, ready=ready)
    failed = trouble.reason not in _ON_THE_WAY and standing_s >= trouble.patience_s
    return RevisionStatus(
        facts.name,
        Readiness.FALSE if failed else Readiness.UNKNOWN,
        reason=trouble.reason,
        message=trouble.message,
        wanted=max(wanted, running),
        running=running,
        log=log,
    )


_ON_THE_WAY = ("Deploying", "Routing")


def _on_its_way(facts: Facts, *, ready: bool) -> Trouble:
    if ready:
        return Trouble("Routing", "the revision is ready; its address is being set up")
    if facts.revision is None:
        return Trouble("Deploying", "the revision is about to be made")
    return Trouble("Deploying", "the first replica is being started")


def readiness_of(document: Document, condition: str) -> Readiness:
    """A condition's status; UNKNOWN when there is none, or when it tells of an older state of the object."""
    found = condition_of(document, condition)
    observed = (document.get("status") or {}).get("observedGeneration")
    if found is None or observed != document["metadata"].get("generation"):
        return Readiness.UNKNOWN
    return Readiness(found.get("status", "Unknown"))


def condition_of(document: Document, name: str) -> Document | None:
    conditions: Sequence[Document] = (document.get("status") or {}).get("conditions") or ()
    return next((c for c in conditions if c.get("type") == name), None)


def is_ready(pod: Document) -> bool:
    """Whether it serves."""
    if "deletionTimestamp" in pod["metadata"]:
        return False
    found = condition_of(pod, "Ready")
    return found is not None and found.get("status") == "True"


def refusal_of(error: Forbidden | Refused) -> Trouble:
    """Why an object was not taken by the API server."""
    exceeded = _quota_trouble(error.message)
    if exceeded is not None:
        return exceeded
    fields = _FIELDS.search(error.message)
    if fields is not None:
        return Trouble(
            "FeatureDisabled",
            f"the cluster's Knative does not allow {fields[1].strip(' ,')}: its operator may turn that on in config-features",
        )
    if isinstance(error, Forbidden):
        return Trouble("Forbidden", f"the cluster does not allow it: {_plain(error.message)}", ROOM_S)
    return Trouble("Refused", f"the cluster refuses it: {_plain(error.message)}")


def _container_trouble(pod: Document) -> Trouble | None:
    statuses: Sequence[Document] = (pod.get("status") or {}).get("containerStatuses") or ()
    for status in statuses:
        if status.get("name") != CONTAINER or status.get("ready"):
            continue
        name = pod["metadata"]["name"]
        now, before = status.get("state") or {}, status.get("lastState") or {}
        ended = now.get("terminated")
        if ended is not None:
            return _end_trouble(ended, name, restarts=status.get("restartCount", 0), previous=False)
        if before.get("terminated") is not None:
            trouble = _end_trouble(before["terminated"], name, restarts=status.get("restartCount", 0), previous=True)
            if trouble is not None:
                return trouble
        waiting = now.get("waiting")
        if waiting is not None:
            return _waiting_trouble(waiting, status.get("image", ""))
    return None


def _end_trouble(ended: Document, pod: str, *, restarts: int, previous: bool) -> Trouble | None:
    code = ended.get("exitCode", 0)
    if ended.get("reason") == "OOMKilled":
        return Trouble(
            "OutOfMemory", "the model does not fit into the memory of one replica", pod=pod, previous=previous
        )
    signal = _KILLED.get(code)
    if signal is None:
        message = (
            f"the process exited with status {code}" if code <= 128 else f"the process was ended by signal {code - 128}"
        )
        return Trouble("ExitedAtStart" if code <= 128 else "Crashed", message, pod=pod, previous=previous)
    # Killed from outside is hardly the model's doing: the first time it costs nothing.
    first = restarts == 0 or (restarts == 1 and previous)
    return None if first else Trouble("Exited", f"the process was ended by {signal}", pod=pod, previous=previous)


def _waiting_trouble(waiting: Document, image: str) -> Trouble | None:
    reason, message = waiting.get("reason", ""), _plain(waiting.get("message", ""))
    if reason in _IMAGE_REASONS:
        lasting = reason in ("ErrImageNeverPull", "InvalidImageName")
        return Trouble(
            "ImageMissing",
            f"the runtime's image {image} cannot be had: {message or reason}",
            AT_ONCE if lasting else SHORT_S,
        )
    if reason in _CONFIG_REASONS:
        return Trouble("CannotStart", f"the replica cannot be started: {message or reason}", SHORT_S)
    return None


def _scheduling_trouble(pod: Document, start_timeout_s: float) -> Trouble | None:
    scheduled = condition_of(pod, "PodScheduled")
    if scheduled is None or scheduled.get("status") != "False":
        return None
    return _unschedulable(scheduled.get("message", ""), start_timeout_s)


def _unschedulable(message: str, start_timeout_s: float) -> Trouble:
    # A cluster may be growing: a node can be minutes away.
    return Trouble("Unschedulable", f"no node has room for a replica: {_plain(message)}", start_timeout_s)


def _condition_trouble(revision: Document, pods: Sequence[Document], start_timeout_s: float) -> Trouble | None:
    found = [c for name in _CONDITIONS if (c := condition_of(revision, name)) is not None]
    for condition in found:  # a quota shows while Knative is still hopeful, too
        if (exceeded := _quota_trouble(condition.get("message", ""))) is not None:
            return exceeded
    failed = next((c for c in found if c.get("status") == "False"), None)
    if failed is None:
        return None
    reason, message = str(failed.get("reason", "")), str(failed.get("message", ""))
    if reason == "ProgressDeadlineExceeded":
        return _too_slow(pods, start_timeout_s)
    if reason == "Unschedulable":
        return _unschedulable(message, start_timeout_s)
    return _named_trouble(reason, message)


def _named_trouble(reason: str, message: str) -> Trouble:
    if reason.startswith("ExitCode"):
        return Trouble("ExitedAtStart", f"the process exited with status {reason.removeprefix('ExitCode')}")
    if reason == "ContainerMissing" or reason in _IMAGE_REASONS:
        return Trouble("ImageMissing", f"the runtime's image cannot be had: {_plain(message)}", SHORT_S)
    if reason in ("FailedCreate", *_CONFIG_REASONS):
        return Trouble("CannotStart", f"no replica can be made: {_plain(message)}", SHORT_S)
    return Trouble(reason or "NotReady", _plain(message) or "Knative does not say why", SHORT_S)


def _too_slow(pods: Sequence[Document], start_timeout_s: float) -> Trouble:
    message = f"the model was not ready within {start_timeout_s:g} s"
    running = next((pod for pod in pods if _runs(pod)), None)
    if running is None:
        return Trouble("StartTimeout", message)
    return Trouble(
        "StartTimeout", f"{message}: it runs, but its readiness probe fails", pod=running["metadata"]["name"]
    )


def _runs(pod: Document) -> bool:
    statuses: Sequence[Any] = (pod.get("status") or {}).get("containerStatuses") or ()
    return any(s.get("name") == CONTAINER and "running" in (s.get("state") or {}) for s in statuses)


def _quota_trouble(message: str) -> Trouble | None:
    if "exceeded quota" not in message:
        return None
    found = _EXCEEDED.search(message)
    what = f": asked for {found[1]}, in use {found[2]}, allowed {found[3]}" if found else ""
    return Trouble("QuotaExceeded", f"the tenant's quota of the cluster has no room for a replica{what}", ROOM_S)


def _plain(message: str) -> str:
    """Without the names of Kubernetes objects, which mean nothing to a tenant, and in one line."""
    text = _NAMES.sub("", message).replace("\n", " ").strip().rstrip(".")
    return text if len(text) <= _LONGEST_MESSAGE else text[: _LONGEST_MESSAGE - 1] + "…"
