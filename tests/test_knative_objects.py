"""A model's objects: exactly these, and whatever the wish, ones that the cluster takes."""

from base64 import b64decode
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as testing
from hypothesis import strategies as st

from knative_rules import knative_schema, kubernetes_schema, metadata_faults, schema_faults, webhook_faults
from knative_values import (
    ALL_FEATURES,
    FINGERPRINT,
    GPU_SETTINGS,
    IMAGES,
    KEY,
    SETTINGS,
    features,
    keys,
    make_revision,
    make_service,
    policies,
    services,
    settings,
)
from roost_platform.domain.errors import InvalidRequest
from roost_platform.domain.scaling import ScalingPolicy
from roost_platform.domain.services import Service
from roost_platform.engines.knative import names
from roost_platform.engines.knative.features import Features
from roost_platform.engines.knative.objects import Target, knative_service, service_secret
from roost_platform.engines.knative.settings import KnativeSettings
from roost_platform.engines.knative.template import knative_revision_name, memory_of, template_of

MIB = 1024**2


def make(service: Service, made_with: KnativeSettings = SETTINGS, given: Features = ALL_FEATURES, targets=()):
    return knative_service(
        service,
        template_revision=service.revisions[0],
        targets=targets,
        settings=made_with,
        secret_fingerprint=FINGERPRINT,
        features=given,
    )


def test_a_models_service_whole():
    service = make_service(scaling=ScalingPolicy(container_concurrency=4, max_scale=3, timeout_s=30))
    labels = {
        "app.kubernetes.io/managed-by": "roost",
        "roost.dev/tenant": "acme",
        "roost.dev/model": "iris",
    }
    made = make(service)
    name = made["spec"]["template"]["metadata"]["name"]
    assert name.startswith("iris-00001-")
    assert made == {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {
            "name": "iris",
            "namespace": "roost-acme",
            "labels": {**labels, "networking.knative.dev/visibility": "cluster-local"},
        },
        "spec": {
            "template": {
                "metadata": {
                    "name": name,
                    "labels": {**labels, "roost.dev/revision": "iris-00001", "roost.dev/version": "1"},
                    "annotations": {
                        "autoscaling.knative.dev/class": "kpa.autoscaling.knative.dev",
                        "autoscaling.knative.dev/initial-scale": "1",
                        "autoscaling.knative.dev/max-scale": "3",
                        "autoscaling.knative.dev/metric": "concurrency",
                        "autoscaling.knative.dev/min-scale": "0",
                        "autoscaling.knative.dev/panic-threshold-percentage": "200",
                        "autoscaling.knative.dev/panic-window-percentage": "10",
                        "autoscaling.knative.dev/scale-down-delay": "0s",
                        "autoscaling.knative.dev/scale-to-zero-pod-retention-period": "0s",
                        "autoscaling.knative.dev/target": "4",
                        "autoscaling.knative.dev/target-burst-capacity": "-1",
                        "autoscaling.knative.dev/target-utilization-percentage": "70",
                        "autoscaling.knative.dev/window": "60s",
                        "features.knative.dev/http-full-duplex": "Enabled",
                        "queue.sidecar.serving.knative.dev/cpu-resource-limit": "1",
                        "queue.sidecar.serving.knative.dev/cpu-resource-request": "25m",
                        "queue.sidecar.serving.knative.dev/ephemeral-storage-resource-limit": "64Mi",
                        "queue.sidecar.serving.knative.dev/ephemeral-storage-resource-request": "64Mi",
                        "queue.sidecar.serving.knative.dev/memory-resource-limit": "256Mi",
                        "queue.sidecar.serving.knative.dev/memory-resource-request": "64Mi",
                        "roost.dev/secret-fingerprint": FINGERPRINT,
                        "serving.knative.dev/progress-deadline": "600s",
                    },
                },
                "spec": {
                    "containerConcurrency": 4,
                    "timeoutSeconds": 30,
                    "responseStartTimeoutSeconds": 30,
                    "idleTimeoutSeconds": 0,
                    "serviceAccountName": "roost-runtime",
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "containers": [_CONTAINER],
                    "volumes": [
                        {"name": "model", "emptyDir": {"sizeLimit": "17Mi"}},
                        {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
                    ],
                },
            },
            "traffic": [{"revisionName": name, "tag": "v1", "percent": 100, "latestRevision": False}],
        },
    }


_CONTAINER = {
    "name": "runtime",
    "image": IMAGES["onnx-cpu"],
    "imagePullPolicy": "IfNotPresent",
    "ports": [{"name": "http1", "containerPort": 8080, "protocol": "TCP"}],
    "env": [
        {"name": "ROOST_MODEL_NAME", "value": "iris"},
        {"name": "ROOST_MODEL_VERSION", "value": "1"},
        {
            "name": "ROOST_ARTIFACT_URL",
            "value": "http://roost-internal.roost.svc.cluster.local:8001/internal/artifacts/acme/iris/" + "d" * 64,
        },
        {"name": "ROOST_ARTIFACT_DIGEST", "value": "d" * 64},
        {"name": "ROOST_ARTIFACT_SIZE", "value": "20000"},
        {"name": "ROOST_SLOTS", "value": "4"},
        {"name": "ROOST_MAX_BATCH_SIZE", "value": "1"},
        {"name": "ROOST_MODEL_FOLDER", "value": "/model"},
        {"name": "ROOST_MAX_BODY_BYTES", "value": "67108864"},
        {
            "name": "ROOST_SERVICE_SECRET",
            "valueFrom": {"secretKeyRef": {"name": "iris-secret", "key": "secret"}},
        },
    ],
    "resources": {
        "requests": {"cpu": "200m", "memory": "165Mi", "ephemeral-storage": "273Mi"},
        "limits": {"cpu": "2", "memory": "512Mi", "ephemeral-storage": "273Mi"},
    },
    "readinessProbe": {"httpGet": {"path": "/v2/health/ready", "port": 8080}, "successThreshold": 1},
    "livenessProbe": {
        "httpGet": {"path": "/v2/health/live", "port": 8080},
        "initialDelaySeconds": 600,
        "periodSeconds": 10,
        "timeoutSeconds": 5,
        "failureThreshold": 6,
    },
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsGroup": 65532,
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    },
    "terminationMessagePolicy": "FallbackToLogsOnError",
    "volumeMounts": [{"name": "model", "mountPath": "/model"}, {"name": "tmp", "mountPath": "/tmp"}],
}


@given(services(), settings, features)
@testing(max_examples=60)
def test_every_service_is_one_that_the_cluster_takes(service: Service, made_with: KnativeSettings, given: Features):
    made = make(service, made_with, given)
    assert schema_faults(knative_schema("service"), made) == []
    assert list(webhook_faults(made, given)) == []
    assert make(service, made_with, given) == made


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata name", "3d-net"),
        ("metadata labels x", "-"),
        ("metadata annotations", {"autoscaling.knative.dev/min-scale": "1"}),
        ("spec template metadata name", "other-00001-abcdef"),
        ("spec template metadata annotations autoscaling.knative.dev/window", "5s"),
        ("spec template metadata annotations autoscaling.knative.dev/activation-scale", "1"),
        ("spec template metadata annotations autoscaling.knative.dev/minscale", "1"),
        ("spec template metadata annotations autoscaling.knative.dev/min-scale", "4"),
        ("spec template metadata annotations autoscaling.knative.dev/metric", "cpu"),
        ("spec template spec timeoutSeconds", 601),
        ("spec template spec timeoutSeconds", "60"),
        ("spec template spec containerConcurrency", 1001),
        ("spec template spec dnsPolicy", "Default"),
        ("spec template spec automountServiceAccountToken", True),
        ("spec template spec containers 0 lifecycle", {}),
        ("spec template spec containers 0 env 0 name", "PORT"),
        ("spec template spec containers 0 ports 0 containerPort", 8012),
        ("spec template spec containers 0 readinessProbe timeoutSeconds", 1),
        ("spec template spec containers 0 securityContext privileged", True),
        ("spec template spec containers 0 volumeMounts 0 mountPath", "/tmp"),
        ("spec template spec volumes 0", {"name": "model", "hostPath": {"path": "/"}}),
        ("spec traffic 0 percent", 99),
        ("spec traffic 0 latestRevision", True),
    ],
)
def test_the_rules_would_notice(path: str, value: object):
    """A cluster refuses these (or passes over an annotation that it does not know): were our rules blind to them, the
    test above would say nothing.
    """
    made: Any = make(make_service(scaling=ScalingPolicy(max_scale=3)))
    *way, last = (int(part) if part.isdecimal() else part for part in path.split())
    inner = made
    for part in way:
        inner = inner[part]
    inner[last] = value
    assert schema_faults(knative_schema("service"), made) or list(webhook_faults(made, Features()))


@given(services(most=1), settings)
@testing(max_examples=20)
def test_every_template_makes_a_pod_that_kubernetes_takes(service: Service, made_with: KnativeSettings):
    """The CRD holds only the fields that Knative knows; Kubernetes' own schema says what they may hold."""
    template = template_of(service, service.revisions[0], made_with, FINGERPRINT, ALL_FEATURES)
    spec = {
        name: value
        for name, value in template["spec"].items()
        if not name.endswith(("TimeoutSeconds", "timeoutSeconds", "containerConcurrency"))
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": spec}
    assert schema_faults(kubernetes_schema("Pod"), pod) == []


@given(keys)
def test_every_secret_is_one_that_kubernetes_takes(key):
    secret = service_secret(key, "ab" * 32, SETTINGS)
    assert schema_faults(kubernetes_schema("Secret"), secret) == []
    assert list(metadata_faults(secret["metadata"])) == []
    assert secret["metadata"]["name"] == names.secret_name(key.model)
    assert b64decode(secret["data"]["secret"]) == b"ab" * 32


def test_a_secret_whole():
    assert service_secret(KEY, "geheim", SETTINGS) == {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {"name": "iris-secret", "namespace": "roost-acme", "labels": names.service_labels(KEY)},
        "data": {"secret": "Z2VoZWlt"},
    }


def test_the_name_of_a_revision_tells_its_template():
    service = make_service()
    revision = service.revisions[0]

    def name(service=service, revision=revision, made_with=SETTINGS, fingerprint=FINGERPRINT, given=ALL_FEATURES):
        found = knative_revision_name(service, revision, made_with, fingerprint, given)
        assert template_of(service, revision, made_with, fingerprint, given)["metadata"]["name"] == found
        return found

    others = [
        name(make_service(scaling=ScalingPolicy(min_scale=1))),
        name(made_with=replace(SETTINGS, images={"onnx-cpu": "another"})),
        name(made_with=replace(SETTINGS, cpu_limit_m=3000)),
        name(fingerprint="ba9876543210"),
        name(revision=make_revision(max_batch_size=8)),
        name(revision=make_revision(digest="e" * 64)),
        name(given=replace(ALL_FEATURES, max_timeout_s=60)),
        name(revision=make_revision("iris-00002")),
    ]
    assert len({name(), *others}) == len(others) + 1
    assert {other.rpartition("-")[0] for other in others} == {"iris-00001", "iris-00002"}
    # What says nothing about how a revision runs makes no other one: that it worked, and what else there is.
    assert name(revision=make_revision(proven=True)) == name()
    assert name(make_service(make_revision(), make_revision("iris-00002", 2))) == name()
    assert name(made_with=replace(SETTINGS, revisions_kept=3, resync_s=5, ingress_url="http://other")) == name()


@given(policies(), policies())
def test_policies_that_knative_would_follow_differently_make_different_revisions(one, other):
    def made(policy):
        template = template_of(make_service(scaling=policy), make_revision(), SETTINGS, FINGERPRINT, ALL_FEATURES)
        return template["metadata"].pop("name"), template

    (first, template), (second, changed) = made(one), made(other)
    assert (first == second) == (template == changed)


def test_traffic_goes_by_revision_name_with_a_tag_for_each():
    targets = [Target("iris-00001-aaaaaa", "v1", 90), Target("iris-00002-bbbbbb", "v2", 10), Target("x", "v1-g3", 0)]
    assert make(make_service(), targets=targets)["spec"]["traffic"] == [
        {"revisionName": "iris-00001-aaaaaa", "tag": "v1", "percent": 90, "latestRevision": False},
        {"revisionName": "iris-00002-bbbbbb", "tag": "v2", "percent": 10, "latestRevision": False},
        {"revisionName": "x", "tag": "v1-g3", "percent": 0, "latestRevision": False},
    ]


@given(st.lists(st.integers(0, 100), min_size=1, max_size=5).filter(lambda percents: sum(percents) <= 100))
def test_a_share_that_no_target_has_goes_to_the_largest(percents: list[int]):
    """A revision with traffic may be gone or not ready for a while; Knative wants 100 percent all the same."""
    targets = [Target(f"iris-{index}", f"v{index}", percent) for index, percent in enumerate(percents)]
    made = [target["percent"] for target in make(make_service(), targets=targets)["spec"]["traffic"]]
    assert sum(made) == 100
    changed = [index for index, (wish, got) in enumerate(zip(percents, made, strict=True)) if wish != got]
    assert all(percents[index] == max(percents) for index in changed)
    assert len(changed) <= 1


@pytest.mark.parametrize(
    "targets",
    [
        [Target("a", "v1", 60), Target("b", "v2", 60)],
        [Target("a", "v1", 50), Target("b", "v1", 50)],
    ],
)
def test_traffic_that_knative_would_refuse_is_refused_here(targets: list[Target]):
    with pytest.raises(ValueError, match="traffic targets"):
        make(make_service(), targets=targets)


def test_a_gpu_replica_asks_for_one_gpu_and_goes_where_there_is_one():
    service = make_service(make_revision(runtime="onnx-gpu"))
    spec = make(service, GPU_SETTINGS)["spec"]["template"]["spec"]
    resources = spec["containers"][0]["resources"]
    assert (resources["requests"]["nvidia.com/gpu"], resources["limits"]["nvidia.com/gpu"]) == ("1", "1")
    assert spec["nodeSelector"] == {"accelerator": "gpu"}
    assert spec["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "team", "operator": "Equal", "value": "ml", "effect": "NoExecute"},
    ]
    assert spec["runtimeClassName"] == "nvidia"
    placed: set[str] = {"nodeSelector", "tolerations", "runtimeClassName"}
    assert make(service, GPU_SETTINGS, Features())["spec"]["template"]["spec"].keys() == spec.keys() - placed
    assert not make(make_service(), GPU_SETTINGS)["spec"]["template"]["spec"].keys() & placed


def test_settings_name_the_image_its_secret_and_the_runtime_class():
    made_with = replace(SETTINGS, image_pull_secret="registry", runtime_class="gvisor", image_pull_policy="Always")
    spec: dict[str, Any] = make(make_service(), made_with)["spec"]["template"]["spec"]
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert spec["runtimeClassName"] == "gvisor"
    assert spec["containers"][0]["imagePullPolicy"] == "Always"
    with pytest.raises(InvalidRequest, match="runtime must be one of onnx-cpu, onnx-gpu") as refused:
        make(make_service(make_revision(runtime="tensorflow")))
    assert (refused.value.code, refused.value.field) == ("unknown_runtime", "runtime")


@pytest.mark.parametrize(
    ("revision", "expected"),
    [
        (make_revision(memory_bytes=5 * MIB), (165, 512)),
        (make_revision(memory_bytes=0, size=10 * MIB), (180, 512)),  # not measured: twice the artifact
        (make_revision(memory_bytes=300 * MIB), (460, 1360)),
        (make_revision(memory_bytes=300 * MIB + 1), (461, 1361)),
        (make_revision(memory_bytes=300 * MIB, runtime="onnx-gpu"), (2508, 3408)),
    ],
)
def test_memory_is_what_the_checker_measured_with_headroom(revision, expected: tuple[int, int]):
    assert memory_of(revision, SETTINGS) == (expected[0] * MIB, expected[1] * MIB)


def test_slots_are_the_concurrency_or_else_the_cores():
    def slots(policy: ScalingPolicy, limit_m: int) -> str:
        made = make(make_service(scaling=policy), replace(SETTINGS, cpu_limit_m=limit_m))
        return next(
            env["value"]
            for env in made["spec"]["template"]["spec"]["containers"][0]["env"]
            if env["name"] == "ROOST_SLOTS"
        )

    assert slots(ScalingPolicy(container_concurrency=7), 500) == "7"
    assert [slots(ScalingPolicy(), limit_m) for limit_m in (500, 1000, 1001, 4000)] == ["1", "1", "2", "4"]
