"""The pod that Knative makes of a revision: the user's container, and queue-proxy beside it with resources of its own."""

import json
import secrets
from typing import Any

Object = dict[str, Any]
QUEUE = "queue-proxy"
_ANNOTATION = "queue.sidecar.serving.knative.dev/"
_PROBE = "SERVING_READINESS_PROBE"
_NOT_ON_PODS = ("serving.knative.dev/route", "serving.knative.dev/routingState")


def user_container(revision: Object) -> Object:
    found: Object = revision["spec"]["containers"][0]
    return found


def pod_of(revision: Object) -> Object:
    """One more pod for the revision."""
    meta = revision["metadata"]
    name = meta["name"]
    labels = {key: value for key, value in meta.get("labels", {}).items() if key not in _NOT_ON_PODS}
    labels |= {"serving.knative.dev/revision": name, "serving.knative.dev/revisionUID": meta["uid"]}
    labels.setdefault("app", name)
    notes = {k: v for k, v in meta.get("annotations", {}).items() if not k.startswith("autoscaling.knative.dev")}
    spec = {k: v for k, v in revision["spec"].items() if k not in _OF_THE_REVISION}
    port = (user_container(revision).get("ports") or [{"containerPort": 8080}])[0]["containerPort"]
    user = {key: value for key, value in user_container(revision).items() if key != "readinessProbe"}
    user["ports"] = [{"name": "user-port", "containerPort": port, "protocol": "TCP"}]
    user["env"] = [
        *user.get("env", ()),
        {"name": "PORT", "value": str(port)},
        {"name": "K_REVISION", "value": name},
        {"name": "K_CONFIGURATION", "value": labels.get("serving.knative.dev/configuration", "")},
        {"name": "K_SERVICE", "value": labels.get("serving.knative.dev/service", "")},
    ]
    spec["containers"] = [
        user,
        _queue_proxy(meta.get("annotations", {}), user_container(revision).get("readinessProbe", {})),
    ]
    spec["terminationGracePeriodSeconds"] = revision["spec"]["timeoutSeconds"]
    owner = {
        "apiVersion": revision["apiVersion"],
        "kind": "Revision",
        "name": name,
        "uid": meta["uid"],
        "controller": True,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{name}-deployment-{secrets.token_hex(5)}",
            "namespace": meta["namespace"],
            "labels": labels,
            "annotations": notes,
            "ownerReferences": [owner],
        },
        "spec": spec,
    }


def probe_path(pod: Object) -> str:
    """Where queue-proxy asks the user's container whether it is ready; empty = it only connects."""
    for container in pod["spec"]["containers"]:
        for variable in container.get("env", ()):
            if variable["name"] == _PROBE:
                path: str = json.loads(variable["value"]).get("httpGet", {}).get("path", "")
                return path
    return ""


_OF_THE_REVISION = ("containerConcurrency", "timeoutSeconds", "responseStartTimeoutSeconds", "idleTimeoutSeconds")


def _queue_proxy(annotations: Object, probe: Object) -> Object:
    """Without annotations it asks for a little cpu and bounds nothing: a quota on limits then refuses the pod."""
    resources: dict[str, dict[str, str]] = {"requests": {"cpu": "25m"}, "limits": {}}
    for side, word in (("requests", "request"), ("limits", "limit")):
        for name in ("cpu", "memory", "ephemeral-storage"):
            given = annotations.get(f"{_ANNOTATION}{name}-resource-{word}")
            if given is not None:
                resources[side][name] = given
    return {
        "name": QUEUE,
        "image": "knative.dev/queue",
        "env": [{"name": _PROBE, "value": json.dumps(probe)}],
        "resources": resources,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
