"""One Knative revision at work: its autoscaler (Roost's KPA, which decides as Knative's), its pods, its conditions."""

import asyncio
import re
from collections.abc import Mapping
from typing import Any

from fake_knative.activator import Activator
from fake_knative.conditions import TRUE, Condition, false, living_set, unknown, written
from fake_knative.kubelet import Kubelet, RunningPod
from fake_knative.pods import pod_of, user_container
from fake_knative.services import REVISION, SERVING
from fake_kubernetes import FakeKubernetes, Refused
from fake_kubernetes.knative_template import seconds
from roost_platform.autoscaling.revision import RevisionScaler
from roost_platform.domain.scaling import ScalingPolicy
from roost_platform.domain.services import Readiness

Object = dict[str, Any]
_AUTOSCALING = "autoscaling.knative.dev/"
_UNRESOLVED = re.compile(r"(?:dev|ko|kind)\.local/|.*@sha256:")
"""Images that Knative leaves to the kubelet; it asks the registry for the digest of all others."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0
_BUFFER_S = 1.0
"""Seconds on top of the progress deadline before a revision that never started is put to zero; Knative's are 10."""


class RunningRevision:
    """`now` is the autoscaler's clock, which tests move; deadlines of starting go by the loop's."""

    def __init__(
        self, api: FakeKubernetes, kubelet: Kubelet, revision: Object, *, now: float, queue_depth: int
    ) -> None:
        self._api, self._kubelet = api, kubelet
        self.thing = revision
        self.key = (revision["metadata"]["namespace"], revision["metadata"]["name"])
        self.policy = policy_of(revision)
        self.scaler = RevisionScaler(self.policy, reachable=True, proven=False, now=now)
        self.activator = Activator(self.ready_pods, concurrency=self.policy.container_concurrency, depth=queue_depth)
        self.initialised = False
        self._begun = asyncio.get_running_loop().time()
        self._given_up = False
        self._refusal = ""
        self._pause_s = _FIRST_PAUSE_S
        self._next_try = 0.0

    @property
    def wanted(self) -> int:
        return 0 if self._given_up or self._unknown_image() else self.scaler.wanted

    @property
    def roost_name(self) -> str:
        """Roost's name of it, by its label."""
        name: str = self.thing["metadata"]["labels"].get("roost.dev/revision", "")
        return name

    def pods(self) -> list[RunningPod]:
        """Those that are not on their way out, oldest first."""
        return [pod for pod in self._all() if pod.ending is None]

    def follow(self, revision: Object) -> None:
        self.thing = revision
        state = revision["metadata"]["labels"].get(f"{SERVING}/routingState")
        self.scaler.update(self.policy, reachable=state != "reserve")

    def tick(self, now: float) -> None:
        self.scaler.tick(now, len(self.ready_pods()))

    def seconds_left(self) -> float:
        """Until something happens by itself: the end of the time for starting."""
        if self._refusal:
            return max(0.01, self._next_try - asyncio.get_running_loop().time())
        if self.initialised or self._given_up:
            return 60.0
        left = self._begun + self._deadline() - asyncio.get_running_loop().time()
        return max(0.01, left if left > 0 else left + _BUFFER_S)

    def reconcile(self) -> None:
        """Make or delete pods until there are as many as wanted, and say how things are."""
        late = asyncio.get_running_loop().time() - self._begun - self._deadline()
        if not self.initialised and late > _BUFFER_S:
            self._given_up = True
        have = [pod for pod in self._stored() if "deletionTimestamp" not in pod["metadata"]]
        self._create(self.wanted - len(have))
        surplus = len(have) - self.wanted
        for pod in sorted(have, key=self._is_serving)[: max(0, surplus)]:
            self._api.remove("Pod", pod["metadata"]["name"], self.key[0])
        if len(self.ready_pods()) >= max(1, self.scaler_start()):
            self.initialised = True
        self.activator.pump()
        self._say(late > 0)

    def _create(self, count: int) -> None:
        """Make so many pods; after a refusal ever longer is waited for the next try."""
        now = asyncio.get_running_loop().time()
        if count <= 0:
            self._refusal, self._pause_s = "", _FIRST_PAUSE_S
        elif now >= self._next_try:
            try:
                for _ in range(count):
                    self._api.create(pod_of(self.thing), manager="controller")
                self._refusal, self._pause_s = "", _FIRST_PAUSE_S
            except Refused as refused:
                self._refusal = refused.message
                self._next_try = now + self._pause_s
                self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    def scaler_start(self) -> int:
        most = self.policy.max_scale
        return min(self.policy.initial_scale, most) if most else self.policy.initial_scale

    def _say(self, late: bool) -> None:
        meta = self.thing["metadata"]
        old = self.thing.get("status", {})
        parts = self._parts(old, late=late and not self.initialised)
        conditions = living_set(parts) | {"Active": self._active()}
        status = {
            "observedGeneration": meta["generation"],
            "conditions": written(conditions, old, info=("Active",)),
            "actualReplicas": len(self.ready_pods()),
            "desiredReplicas": self.wanted,
        }
        self.thing = self._api.set_status(REVISION, meta["name"], meta["namespace"], status)

    def _parts(self, old: Object, *, late: bool) -> Mapping[str, Condition]:
        if self._unknown_image():
            image = user_container(self.thing)["image"]
            why = f'Unable to fetch image "{image}": failed to resolve image to digest: GET {image}: MANIFEST_UNKNOWN'
            return {
                "ResourcesAvailable": unknown("ResolvingDigests"),
                "ContainerHealthy": false("ContainerMissing", why),
            }
        resources = TRUE if self.initialised else unknown("Deploying")
        healthy = next(
            (
                Condition(c["status"], c.get("reason", ""), c.get("message", ""))
                for c in old.get("conditions", ())
                if c["type"] == "ContainerHealthy"
            ),
            unknown("Deploying"),
        )
        if self._refusal:
            resources = false("FailedCreate", self._refusal)
        elif late:
            resources = false(
                "ProgressDeadlineExceeded", f'ReplicaSet "{self.key[1]}-deployment" has timed out progressing.'
            )
        ready = self.ready_pods()
        if self.wanted and not ready:
            resources, healthy = self._troubles(resources, healthy, late=late)
        if ready:
            healthy = TRUE
        if self._given_up and healthy.status != "False":
            resources = false("ProgressDeadlineExceeded", "Initial scale was never achieved")
        if self.initialised and "False" not in (resources.status, healthy.status):
            return {"ResourcesAvailable": TRUE, "ContainerHealthy": TRUE}
        return {"ResourcesAvailable": resources, "ContainerHealthy": healthy}

    def _troubles(self, resources: Condition, healthy: Condition, *, late: bool) -> tuple[Condition, Condition]:
        """What the first pod shows, when none serves though some should."""
        for pod in self._stored()[:1]:
            status = pod.get("status", {})
            for entry in status.get("conditions", ()):
                if entry["type"] == "PodScheduled" and entry["status"] == "False":
                    resources = false(entry["reason"], entry["message"])
            for container in status.get("containerStatuses", ())[:1]:
                ended = container["lastState"].get("terminated")
                waiting = container["state"].get("waiting")
                if ended is not None:
                    quiet = ended["exitCode"] == 0 and "message" not in ended
                    message = "container exited with no error" if quiet else ended.get("message", "")
                    healthy = false(f"ExitCode{ended['exitCode']}", f"Container failed with: {message}")
                elif waiting is not None and late:
                    resources = false(waiting["reason"], waiting.get("message", ""))
        return resources, healthy

    def _active(self) -> Condition:
        match self.scaler.active:
            case Readiness.TRUE:
                return TRUE
            case Readiness.FALSE:
                return false("NoTraffic", "The target is not receiving traffic.")
        return unknown("Queued", "Requests to the target are being buffered as resources are provisioned.")

    def _deadline(self) -> float:
        notes = self.thing["metadata"].get("annotations", {})
        return seconds(notes.get(f"{SERVING}/progress-deadline", "600s")) or 600.0

    def _unknown_image(self) -> bool:
        image = user_container(self.thing)["image"]
        return image not in self._kubelet.commands and not _UNRESOLVED.match(image)

    def _stored(self) -> list[Object]:
        uid = self.thing["metadata"]["uid"]
        mine = [
            p
            for p in self._api.objects("Pod", self.key[0])
            if p["metadata"]["labels"].get(f"{SERVING}/revisionUID") == uid
        ]
        return sorted(mine, key=lambda pod: int(pod["metadata"]["resourceVersion"]))

    def _all(self) -> list[RunningPod]:
        found = (self._kubelet.pods.get((self.key[0], pod["metadata"]["name"])) for pod in self._stored())
        return [pod for pod in found if pod is not None]

    def ready_pods(self) -> list[RunningPod]:
        return [pod for pod in self.pods() if pod.ready]

    def _is_serving(self, pod: Object) -> tuple[bool, int]:
        """Sorts what goes first to the front: what is not ready, then what has least to do."""
        running = self._kubelet.pods.get((self.key[0], pod["metadata"]["name"]))
        return (running is not None and running.ready, running.in_flight if running is not None else 0)


def policy_of(revision: Object) -> ScalingPolicy:
    """What a revision's annotations and spec ask of the autoscaler."""
    notes = revision["metadata"].get("annotations", {})
    values = {key.removeprefix(_AUTOSCALING): value for key, value in notes.items() if key.startswith(_AUTOSCALING)}
    policy: dict[str, Any] = {
        "container_concurrency": revision["spec"]["containerConcurrency"],
        "timeout_s": revision["spec"]["timeoutSeconds"],
    }
    for name in ("min-scale", "max-scale", "initial-scale", "activation-scale"):
        if name in values:
            policy[name.replace("-", "_")] = int(values[name])
    for name in ("target", "target-utilization-percentage", "panic-window-percentage", "panic-threshold-percentage"):
        if name in values:
            policy[name.replace("-", "_")] = float(values[name])
    for name in ("window", "scale-down-delay", "scale-to-zero-pod-retention-period"):
        if name in values:
            policy[f"{name.replace('-', '_')}_s"] = int(seconds(values[name]) or 0)
    if values.get("class", "").startswith("hpa"):
        policy["min_scale"] = max(
            1, policy.get("min_scale", 1)
        )  # an HPA never goes to zero; its load is not played here
    elif "metric" in values:
        policy["metric"] = ScalingPolicy().with_changes({"metric": values["metric"]}).metric
    return ScalingPolicy(**policy)
