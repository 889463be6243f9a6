"""A tenant's objects: a namespace with its limits, closed but for what serving needs."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knative_rules import QUANTITY, kubernetes_schema, metadata_faults, schema_faults
from knative_values import SETTINGS, labels
from roost_platform.domain.tenants import Quota
from roost_platform.engines.knative.tenants import tenant_objects

LABELS = {"app.kubernetes.io/managed-by": "roost", "roost.dev/tenant": "acme"}


def objects(quota: Quota | None = None, **settings: object) -> dict[str, dict]:
    made = tenant_objects("acme", quota or Quota(), replace(SETTINGS, **settings))
    return {f"{item['kind']}/{item['metadata']['name']}": item for item in made}


def namespace_peer(name: str) -> dict:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def tcp(*ports: int) -> list[dict]:
    return [{"protocol": "TCP", "port": port} for port in ports]


def test_the_namespace_comes_first_and_everything_is_in_it():
    made = tenant_objects("acme", Quota(), SETTINGS)
    assert [f"{item['kind']}/{item['metadata']['name']}" for item in made] == [
        "Namespace/roost-acme",
        "ServiceAccount/roost-runtime",
        "ResourceQuota/roost",
        "LimitRange/roost",
        "NetworkPolicy/default-deny",
        "NetworkPolicy/from-serving",
        "NetworkPolicy/to-artifacts",
    ]
    assert all(item["metadata"]["namespace"] == "roost-acme" for item in made[1:])
    assert all(item["metadata"]["labels"].items() >= LABELS.items() for item in made)


def test_the_namespace_holds_its_pods_to_the_restricted_level():
    assert objects()["Namespace/roost-acme"] == {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": "roost-acme",
            "labels": {
                **LABELS,
                "pod-security.kubernetes.io/enforce": "restricted",
                "pod-security.kubernetes.io/audit": "restricted",
                "pod-security.kubernetes.io/warn": "restricted",
            },
        },
    }


def test_no_pod_is_given_a_token():
    assert objects()["ServiceAccount/roost-runtime"]["automountServiceAccountToken"] is False


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        (Quota(), {}),
        (
            Quota(cpu_millicores=8000, memory_bytes=16 * 1024**3, replicas=20, gpus=2),
            {"limits.cpu": "8", "limits.memory": "16Gi", "pods": "20", "requests.nvidia.com/gpu": "2"},
        ),
        (Quota(cpu_millicores=2500, memory_bytes=10**9), {"limits.cpu": "2500m", "limits.memory": "1000000000"}),
    ],
)
def test_the_quota_is_the_tenants(quota: Quota, expected: dict[str, str]):
    never = {"services.nodeports": "0", "services.loadbalancers": "0", "persistentvolumeclaims": "0"}
    assert objects(quota)["ResourceQuota/roost"]["spec"] == {"hard": never | expected}


def test_a_container_without_limits_is_taken_for_a_small_one():
    assert objects()["LimitRange/roost"]["spec"] == {
        "limits": [
            {
                "type": "Container",
                "defaultRequest": {"cpu": "25m", "memory": "64Mi", "ephemeral-storage": "64Mi"},
                "default": {"cpu": "1", "memory": "256Mi", "ephemeral-storage": "64Mi"},
            }
        ]
    }


def test_nothing_enters_or_leaves_but_what_serving_needs():
    made = objects()
    assert made["NetworkPolicy/default-deny"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert made["NetworkPolicy/from-serving"]["spec"] == {
        "podSelector": {},
        "policyTypes": ["Ingress"],
        "ingress": [
            {"from": [namespace_peer("knative-serving")], "ports": tcp(8012, 8112, 9090)},
            {"from": [namespace_peer("kourier-system")], "ports": tcp(8012, 8112)},
            {
                "from": [
                    namespace_peer("roost")
                    | {"podSelector": {"matchLabels": {"app.kubernetes.io/component": "gateway"}}}
                ],
                "ports": tcp(8080),
            },
        ],
    }
    assert made["NetworkPolicy/to-artifacts"]["spec"] == {
        "podSelector": {},
        "policyTypes": ["Egress"],
        "egress": [
            {"to": [namespace_peer("kube-system")], "ports": [{"protocol": "UDP", "port": 53}, *tcp(53)]},
            {"to": [namespace_peer("roost")], "ports": tcp(8001)},
        ],
    }


def test_an_operator_may_open_metrics_a_node_s_dns_and_an_object_store():
    made = objects(
        monitoring_namespace="monitoring",
        dns_namespace="openshift-dns",
        dns_ports=(53, 5353),
        dns_cidrs=("169.254.20.10/32",),
        redirect_cidrs=("192.0.2.0/24",),
        internal_port=9001,
    )
    assert made["NetworkPolicy/from-serving"]["spec"]["ingress"][3:] == [
        {"from": [namespace_peer("monitoring")], "ports": tcp(9091)}
    ]
    dns = [{"protocol": "UDP", "port": port} for port in (53, 5353)] + tcp(53, 5353)
    assert made["NetworkPolicy/to-artifacts"]["spec"]["egress"] == [
        {"to": [namespace_peer("openshift-dns"), {"ipBlock": {"cidr": "169.254.20.10/32"}}], "ports": dns},
        {"to": [namespace_peer("roost")], "ports": tcp(9001)},
        {"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}], "ports": tcp(443)},
    ]


limits = st.integers(0, 2**53)
quotas = st.builds(Quota, cpu_millicores=limits, memory_bytes=limits, replicas=limits, gpus=limits)


@given(labels, quotas)
def test_every_tenants_objects_are_ones_that_kubernetes_takes(tenant: str, quota: Quota):
    for item in tenant_objects(tenant, quota, SETTINGS):
        version = item["apiVersion"].replace(".k8s.io/", "-")
        assert schema_faults(kubernetes_schema(item["kind"], version), item) == []
        assert list(metadata_faults(item["metadata"])) == []
        if item["kind"] == "ResourceQuota":
            assert all(QUANTITY.fullmatch(value) for value in item["spec"]["hard"].values())
    assert tenant_objects(tenant, quota, SETTINGS) == tenant_objects(tenant, quota, SETTINGS)
