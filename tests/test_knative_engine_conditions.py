"""Troubles read out of Kubernetes' and Knative's documents, case by case; the words are those of real clusters."""

from typing import Any

import pytest

from roost_platform.domain.services import Readiness
from roost_platform.engines.knative.cluster import Forbidden, Refused
from roost_platform.engines.knative.conditions import (
    ROOM_S,
    SHORT_S,
    Facts,
    Trouble,
    find_trouble,
    refusal_of,
    status_of,
)

START_S = 600.0
NO_ROOM = "the tenant's quota of the cluster has no room for a replica"
QUOTA = (
    'pods "iris-00001-abc123-deployment-5d9c-x2x4k" is forbidden: exceeded quota: roost, requested: limits.memory=1Gi, '
    "used: limits.memory=4Gi, limited: limits.memory=4Gi"
)
WEBHOOK = (
    'admission webhook "validation.webhook.serving.knative.dev" denied the request: validation failed: must not set the '
    "field(s): spec.template.spec.nodeSelector"
)


def revision(*conditions: tuple[str, str, str, str], observed: int = 1) -> dict[str, Any]:
    """Conditions as (type, status, reason, message)."""
    entries = [dict(zip(("type", "status", "reason", "message"), c, strict=True)) for c in conditions]
    return {
        "metadata": {"name": "iris-00001-abc123", "namespace": "roost-acme", "uid": "u1", "generation": 1},
        "status": {"observedGeneration": observed, "conditions": entries, "desiredReplicas": 1},
    }


def pod(
    *, state: dict[str, Any], last: dict[str, Any] | None = None, restarts: int = 0, **metadata: Any
) -> dict[str, Any]:
    status = {"name": "runtime", "ready": False, "image": "dev.local/x", "restartCount": restarts, "state": state}
    return {
        "metadata": {"name": "pod-1", "namespace": "roost-acme"} | metadata,
        "status": {"containerStatuses": [status | {"lastState": last or {}}]},
    }


def unschedulable_pod() -> dict[str, Any]:
    message = "0/3 nodes are available: 3 Insufficient memory."
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return {"metadata": {"name": "pod-1"}, "status": {"conditions": [condition]}}


DEPLOYING = revision(("Ready", "Unknown", "Deploying", ""))
END_3 = {"terminated": {"exitCode": 3, "reason": "Error"}}
CASES = {
    "made and on its way": (DEPLOYING, [], None),
    "ready": (revision(("Ready", "True", "", "")), [pod(state=END_3)], None),
    "exits": (DEPLOYING, [pod(state=END_3)], ("ExitedAtStart", "the process exited with status 3", 0.0)),
    "exits again and again": (
        DEPLOYING,
        [pod(state={"waiting": {"reason": "CrashLoopBackOff"}}, last=END_3, restarts=2)],
        ("ExitedAtStart", "the process exited with status 3", 0.0),
    ),
    "crashes": (
        DEPLOYING,
        [pod(state={"terminated": {"exitCode": 139}})],
        ("Crashed", "the process was ended by signal 11", 0.0),
    ),
    "is killed once": (
        DEPLOYING,
        [pod(state={"running": {}}, last={"terminated": {"exitCode": 137}}, restarts=1)],
        None,
    ),
    "is killed again and again": (
        DEPLOYING,
        [pod(state={"running": {}}, last={"terminated": {"exitCode": 137}}, restarts=2)],
        ("Exited", "the process was ended by SIGKILL", 0.0),
    ),
    "has too little memory": (
        DEPLOYING,
        [pod(state={"running": {}}, last={"terminated": {"exitCode": 137, "reason": "OOMKilled"}}, restarts=1)],
        ("OutOfMemory", "the model does not fit into the memory of one replica", 0.0),
    ),
    "is deleted meanwhile": (DEPLOYING, [pod(state=END_3, deletionTimestamp="2026-01-01T00:00:00Z")], None),
    "has no image": (
        DEPLOYING,
        [pod(state={"waiting": {"reason": "ErrImagePull", "message": "not found"}})],
        ("ImageMissing", "the runtime's image dev.local/x cannot be had: not found", SHORT_S),
    ),
    "has an image of no name": (
        DEPLOYING,
        [pod(state={"waiting": {"reason": "InvalidImageName"}})],
        ("ImageMissing", "the runtime's image dev.local/x cannot be had: InvalidImageName", 0.0),
    ),
    "has an image without digest": (
        revision(("ContainerHealthy", "False", "ContainerMissing", "failed to resolve image to digest: not found")),
        [],
        ("ImageMissing", "the runtime's image cannot be had: failed to resolve image to digest: not found", SHORT_S),
    ),
    "lacks its Secret": (
        DEPLOYING,
        [pod(state={"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "iris-secret" not found'}})],
        ("CannotStart", 'the replica cannot be started: secret "iris-secret" not found', SHORT_S),
    ),
    "finds no node": (
        DEPLOYING,
        [unschedulable_pod()],
        ("Unschedulable", "no node has room for a replica: 0/3 nodes are available: 3 Insufficient memory", START_S),
    ),
    "finds no node, says Knative": (
        revision(("ResourcesAvailable", "False", "Unschedulable", "0/1 nodes are available: 1 Insufficient cpu.")),
        [],
        ("Unschedulable", "no node has room for a replica: 0/1 nodes are available: 1 Insufficient cpu", START_S),
    ),
    "is over the quota": (
        revision(("ResourcesAvailable", "False", "FailedCreate", QUOTA)),
        [],
        (
            "QuotaExceeded",
            f"{NO_ROOM}: asked for limits.memory=1Gi, in use limits.memory=4Gi, allowed limits.memory=4Gi",
            ROOM_S,
        ),
    ),
    "takes too long": (
        revision(("ResourcesAvailable", "False", "ProgressDeadlineExceeded", "Initial scale was never achieved")),
        [],
        ("StartTimeout", "the model was not ready within 600 s", 0.0),
    ),
    "runs and does not answer its probe": (
        revision(("ResourcesAvailable", "False", "ProgressDeadlineExceeded", "Initial scale was never achieved")),
        [pod(state={"running": {}})],
        ("StartTimeout", "the model was not ready within 600 s: it runs, but its readiness probe fails", 0.0),
    ),
    "exits, says Knative": (
        revision(("ContainerHealthy", "False", "ExitCode3", "Container failed with: x")),
        [],
        ("ExitedAtStart", "the process exited with status 3", 0.0),
    ),
    "something new": (
        revision(("Ready", "False", "Strange", "line one\nline two.")),
        [],
        ("Strange", "line one line two", SHORT_S),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_trouble(name: str) -> None:
    document, pods, expected = CASES[name]
    trouble = find_trouble(Facts(name="iris-00001", revision=document, pods=pods, start_timeout_s=START_S))
    assert (trouble and (trouble.reason, trouble.message, trouble.patience_s)) == expected


@pytest.mark.parametrize(
    ("error", "reason", "words"),
    [
        (Forbidden(QUOTA, status=403), "QuotaExceeded", "limits.memory=4Gi"),
        (Refused(WEBHOOK, status=400), "FeatureDisabled", "spec.template.spec.nodeSelector: its operator"),
        (Refused("spec.template.x: Invalid value", status=422), "Refused", "spec.template.x: Invalid value"),
        (Forbidden('secrets "iris-secret" is forbidden: no access', status=403), "Forbidden", "no access"),
    ],
)
def test_what_the_api_server_refuses(error: Forbidden | Refused, reason: str, words: str) -> None:
    trouble = refusal_of(error)
    assert trouble.reason == reason
    assert words in trouble.message


def test_a_refusal_tells_why_nothing_was_made() -> None:
    refusal = Trouble("Refused", "no")
    facts = Facts(name="iris-00001", revision=None, refusal=refusal)
    assert find_trouble(facts) == refusal
    assert status_of(facts, refusal, standing_s=0).ready is Readiness.FALSE
    status = status_of(Facts(name="iris-00001", revision=None), None, standing_s=0)
    assert (status.ready, status.reason) == (Readiness.UNKNOWN, "Deploying")


def test_a_trouble_that_may_pass_is_given_its_time() -> None:
    facts = Facts(name="iris-00001", revision=DEPLOYING)
    trouble = Trouble("QuotaExceeded", "no room", ROOM_S)
    assert status_of(facts, trouble, standing_s=ROOM_S - 1).ready is Readiness.UNKNOWN
    status = status_of(facts, trouble, standing_s=ROOM_S, log=("x",))
    assert (status.ready, status.reason, status.message, status.log) == (
        Readiness.FALSE,
        "QuotaExceeded",
        "no room",
        ("x",),
    )


def test_ready_needs_the_route_and_the_newest_word() -> None:
    ready = revision(("Ready", "True", "", ""))
    assert status_of(Facts("iris-00001", ready), None, standing_s=0).reason == "Routing"
    assert status_of(Facts("iris-00001", ready, routed=True), None, standing_s=0).ready is Readiness.TRUE
    old_news = revision(("Ready", "True", "", ""), observed=0)
    assert status_of(Facts("iris-00001", old_news, routed=True), None, standing_s=0).ready is Readiness.UNKNOWN
