"""The fake API server keeps what the real one promises: versions, subresources, deletion, checks; asked by real clients."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from kubernetes.aio import client as kubernetes_client
from kubernetes.aio.client.exceptions import ApiException

from fake_kubernetes import FakeKubernetes, Refused
from kubernetes_parts import Kubectl, config_map, knative_service, namespace, official, pod

KSVC = "Service.serving.knative.dev"


@pytest.fixture
async def api() -> AsyncIterator[FakeKubernetes]:
    async with FakeKubernetes() as api:
        yield api


async def test_versions_grow_and_a_stale_update_is_refused(api: FakeKubernetes) -> None:
    async with official(api) as client:
        core = kubernetes_client.CoreV1Api(client)
        first = await core.create_namespaced_config_map("default", config_map("a", x="1"))
        second = await core.patch_namespaced_config_map(
            "a", "default", [{"op": "add", "path": "/data/y", "value": "2"}]
        )
        assert int(second.metadata.resource_version) > int(first.metadata.resource_version)
        with pytest.raises(ApiException) as stale:
            await core.replace_namespaced_config_map("a", "default", first)
        assert (stale.value.status, json.loads(stale.value.body)["reason"]) == (409, "Conflict")
        with pytest.raises(ApiException) as twice:
            await core.create_namespaced_config_map("default", config_map("a"))
        assert json.loads(twice.value.body)["reason"] == "AlreadyExists"
        unchanged = await core.replace_namespaced_config_map("a", "default", second)
        assert unchanged.metadata.resource_version == second.metadata.resource_version


async def test_a_token_counts_until_it_expires(api: FakeKubernetes) -> None:
    async with official(api) as client:
        core = kubernetes_client.CoreV1Api(client)
        assert [n.metadata.name for n in (await core.list_namespace()).items] == [
            "default",
            "knative-serving",
            "kube-system",
        ]
        api.expire_token()
        with pytest.raises(ApiException) as late:
            await core.list_namespace()
        assert late.value.status == 401


async def test_generation_counts_specs_and_status_is_written_apart(api: FakeKubernetes) -> None:
    api.create(knative_service("iris", "iris-1"))
    labelled = api.edit(KSVC, "iris", "default", lambda t: t["metadata"]["labels"].update(a="b"))
    assert labelled["metadata"]["generation"] == 1
    changed = api.edit(KSVC, "iris", "default", lambda t: t["spec"]["template"]["metadata"].update(name="iris-2"))
    assert changed["metadata"]["generation"] == 2
    status = {"observedGeneration": 2}
    assert api.set_status(KSVC, "iris", "default", status)["metadata"]["generation"] == 2
    both = api.edit(KSVC, "iris", "default", lambda t: t.update(status={"observedGeneration": 9}))
    assert both["status"] == status


async def test_lists_are_filtered_by_labels_and_fields(api: FakeKubernetes) -> None:
    for number in range(4):
        thing = config_map(f"c{number}")
        thing["metadata"]["labels"] = {"n": str(number), **({"even": ""} if number % 2 == 0 else {})}
        api.create(thing)
    async with official(api) as client:
        core = kubernetes_client.CoreV1Api(client)

        async def names(**query: str) -> list[str]:
            return [c.metadata.name for c in (await core.list_namespaced_config_map("default", **query)).items]

        assert await names(label_selector="even") == ["c0", "c2"]
        assert await names(label_selector="!even") == ["c1", "c3"]
        assert await names(label_selector="n in (1,2), even") == ["c2"]
        assert await names(label_selector="n notin (1,2),n!=3") == ["c0"]
        assert await names(label_selector="n=3") == ["c3"]
        assert await names(field_selector="metadata.name=c1") == ["c1"]


async def test_what_a_schema_does_not_know_is_pruned_with_a_warning_or_refused(api: FakeKubernetes) -> None:
    unknown = knative_service("iris", "iris-1", nothing=1)
    async with official(api) as client:
        objects = kubernetes_client.CustomObjectsApi(client)
        answer = await objects.create_namespaced_custom_object_with_http_info(
            "serving.knative.dev", "v1", "default", "services", unknown
        )
        assert answer.status_code == 201
        assert "nothing" not in answer.data["spec"]["template"]["spec"]["containers"][0]
        assert "spec.template.spec.containers[0].nothing" in answer.headers["Warning"]
        with pytest.raises(ApiException, match="strict decoding error"):
            await objects.create_namespaced_custom_object(
                "serving.knative.dev", "v1", "default", "services", unknown, field_validation="Strict"
            )


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"spec": {"template": {"spec": {"containers": "x"}}}}, 422, "must be of type array"),
        ({"metadata": {"labels": {"a": "x" * 64}}}, 422, "63 characters"),
        ({"metadata": {"namespace": "nowhere"}}, 404, 'namespaces "nowhere" not found'),
    ],
)
def test_objects_that_are_none_are_refused(change: dict, code: int, message: str) -> None:
    async def ask() -> None:
        async with FakeKubernetes() as api:
            thing = knative_service("iris", "iris-1")
            for field, value in change.items():
                thing[field] = value if isinstance(value, str) else {**thing[field], **value}
            api.create(thing)

    with pytest.raises(Refused, match=message) as refused:
        asyncio.run(ask())
    assert refused.value.code == code


async def test_owners_take_their_dependents_along_and_finalizers_hold(api: FakeKubernetes) -> None:
    owner = api.create(config_map("owner"))
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    for name in ("free", "held"):
        child = config_map(name)
        child["metadata"]["ownerReferences"] = [{**reference, "blockOwnerDeletion": True}]
        if name == "held":
            child["metadata"]["finalizers"] = ["example.org/hold"]
        api.create(child)
    api.remove("ConfigMap", "owner", "default", propagationPolicy="Foreground")
    left = {c["metadata"]["name"]: c["metadata"] for c in api.objects("ConfigMap", "default")}
    assert set(left) == {"owner", "held"}
    assert all("deletionTimestamp" in meta for meta in left.values())
    api.edit("ConfigMap", "held", "default", lambda t: t["metadata"].update(finalizers=[]))
    assert api.objects("ConfigMap", "default") == []


async def test_a_namespace_takes_everything_along_and_nothing_comes_in_meanwhile(api: FakeKubernetes) -> None:
    api.create(namespace("roost-acme"))
    held = config_map("held", "roost-acme")
    held["metadata"]["finalizers"] = ["example.org/hold"]
    api.create(held)
    api.create(config_map("free", "roost-acme"))
    async with official(api) as client:
        core = kubernetes_client.CoreV1Api(client)
        await core.delete_namespace("roost-acme")
        assert (await core.read_namespace("roost-acme")).status.phase == "Terminating"
        with pytest.raises(ApiException, match="being terminated") as late:
            await core.create_namespaced_config_map("roost-acme", config_map("late", "roost-acme"))
        assert late.value.status == 403
    assert [c["metadata"]["name"] for c in api.objects("ConfigMap", "roost-acme")] == ["held"]
    api.edit("ConfigMap", "held", "roost-acme", lambda t: t["metadata"].update(finalizers=[]))
    assert api.get("Namespace", "roost-acme") is None


async def test_pods_must_fit_the_quota_and_name_what_it_bounds(api: FakeKubernetes) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "roost", "namespace": "default"}}
    api.create({**quota, "spec": {"hard": {"requests.cpu": "1500m", "limits.memory": "4Gi", "pods": "5"}}})
    api.create(pod("first"))
    with pytest.raises(Refused) as over:
        api.create(pod("second"))
    assert over.value.message == (
        'pods "second" is forbidden: exceeded quota: roost, requested: requests.cpu=1, used: requests.cpu=1, '
        "limited: requests.cpu=1500m"
    )
    with pytest.raises(Refused, match=r"must specify limits\.memory for: main; requests\.cpu for: main"):
        api.create(pod("third", resources={}))


async def test_limit_ranges_fill_in_and_bound(api: FakeKubernetes) -> None:
    limits = {
        "type": "Container",
        "default": {"cpu": "500m"},
        "defaultRequest": {"cpu": "100m"},
        "max": {"memory": "2Gi"},
    }
    meta = {"name": "roost", "namespace": "default"}
    api.create({"apiVersion": "v1", "kind": "LimitRange", "metadata": meta, "spec": {"limits": [limits]}})
    made = api.create(pod("a", resources={"limits": {"memory": "1Gi"}}))
    assert made["spec"]["containers"][0]["resources"] == {
        "limits": {"cpu": "500m", "memory": "1Gi"},
        "requests": {"cpu": "100m", "memory": "1Gi"},
    }
    with pytest.raises(Refused, match="maximum memory usage per Container is 2Gi, but limit is 3Gi"):
        api.create(pod("b", resources={"limits": {"memory": "3Gi"}}))


async def test_pod_security_names_everything_that_is_missing(api: FakeKubernetes) -> None:
    api.create(namespace("strict", **{"pod-security.kubernetes.io/enforce": "restricted"}))
    with pytest.raises(Refused, match=r'violates PodSecurity "restricted:latest"') as refused:
        api.create(pod("a", "strict"))
    for word in ("allowPrivilegeEscalation", "capabilities", "runAsNonRoot", "seccompProfile"):
        assert word in refused.value.message
    good = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert api.create(pod("b", "strict", securityContext=good))["status"]["phase"] == "Pending"


async def test_a_pod_on_a_node_has_its_grace(api: FakeKubernetes) -> None:
    api.create(pod("a"))
    api.edit("Pod", "a", "default", lambda t: t["spec"].update(nodeName="n"))
    api.remove("Pod", "a", "default")
    ending = api.get("Pod", "a", "default")
    assert ending is not None
    assert ending["metadata"]["deletionGracePeriodSeconds"] == 30
    api.remove("Pod", "a", "default", gracePeriodSeconds=0)
    assert api.get("Pod", "a", "default") is None


async def test_kubectl_applies_reads_labels_and_deletes(tmp_path: Path) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed here")
    async with FakeKubernetes(anonymous=True) as api:
        kubectl = Kubectl(api, tmp_path)
        given = json.dumps(knative_service("iris", "iris-1"))
        assert (await kubectl("create", "-f", "-", given=json.dumps(namespace("roost-acme")))).code == 0
        applied = await kubectl("apply", "--server-side", "--field-manager=roost", "-f", "-", given=given)
        assert applied == (0, "service.serving.knative.dev/iris serverside-applied\n")
        wrong = json.dumps(knative_service("iris", "iris-1", nothing=1))
        refused = await kubectl("apply", "--server-side", "-f", "-", given=wrong)
        assert (refused.code, "strict decoding error" in refused.text) == (1, True)
        assert (await kubectl("label", "ksvc", "iris", "a=b")).code == 0
        listed = await kubectl("get", "ksvc", "-l", "a=b", "-o", "name")
        assert listed == (0, "service.serving.knative.dev/iris\n")
        assert (await kubectl("delete", "namespace", "roost-acme", "--timeout=20s")).code == 0
        assert api.get("Namespace", "roost-acme") is None
