"""Server-side apply on the fake API server: who owns which field, what a conflict is, what goes when nobody wants it."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from kubernetes.aio import client as kubernetes_client
from kubernetes.aio.client.exceptions import ApiException

from fake_kubernetes import FakeKubernetes
from fake_kubernetes.fields import decode
from kubernetes_parts import config_map, knative_service, official

Object = dict[str, Any]
Apply = Callable[..., Awaitable[Object]]
KSVC = "Service.serving.knative.dev"


@pytest.fixture
async def api() -> AsyncIterator[FakeKubernetes]:
    async with FakeKubernetes() as api:
        yield api


@pytest.fixture
async def apply(api: FakeKubernetes) -> AsyncIterator[Apply]:
    async with official(api) as client:

        async def apply(thing: Object, manager: str = "roost", *, force: bool = False) -> Object:
            """As a client does that knows nothing of the kind: by path."""
            meta = thing["metadata"]
            group = "/apis/serving.knative.dev/v1" if thing["kind"] == "Service" else "/api/v1"
            plural = {"Service": "services", "ConfigMap": "configmaps", "Pod": "pods"}[thing["kind"]]
            answer = await client.rest_client.request(
                "PATCH",
                f"{api.url}{group}/namespaces/{meta['namespace']}/{plural}/{meta['name']}"
                f"?fieldManager={manager}&force={str(force).lower()}",
                headers={"Content-Type": "application/apply-patch+yaml", "Authorization": f"Bearer {api.token}"},
                body=thing,
            )
            text = await answer.response.read()
            document: Object = json.loads(text)
            if answer.status >= 400:
                raise ApiException(status=answer.status, reason=document["message"])
            return document

        yield apply


def owned(thing: Object, manager: str, operation: str = "Apply") -> set[str]:
    """The leaves that a manager owns, dotted."""
    for entry in thing["metadata"]["managedFields"]:
        if (entry["manager"], entry["operation"]) == (manager, operation):
            return {".".join(step[2:] for step in path) for path in decode(entry["fieldsV1"])}
    return set()


async def test_each_manager_owns_what_it_applies_and_takes_only_that_along(api: FakeKubernetes, apply: Apply) -> None:
    await apply(config_map("c", a="1", b="2"))
    both = await apply(config_map("c", b="2", z="9"), "other")
    assert owned(both, "roost") == {"data.a", "data.b"}
    assert owned(both, "other") == {"data.b", "data.z"}
    less = await apply(config_map("c"))
    assert less["data"] == {"b": "2", "z": "9"}
    assert owned(less, "roost") == {"data"} or owned(less, "roost") == set()


async def test_another_value_is_a_conflict_until_it_is_forced(api: FakeKubernetes, apply: Apply) -> None:
    await apply(config_map("c", a="1"))
    with pytest.raises(
        ApiException, match=r'Apply failed with 1 conflict: conflict with "roost" using v1: .data.a'
    ) as no:
        await apply(config_map("c", a="2"), "other")
    assert no.value.status == 409
    forced = await apply(config_map("c", a="2"), "other", force=True)
    assert (forced["data"], owned(forced, "roost"), owned(forced, "other")) == ({"a": "2"}, set(), {"data.a"})


async def test_a_hand_edit_takes_over_and_an_apply_with_force_takes_back(api: FakeKubernetes, apply: Apply) -> None:
    await apply(knative_service("iris", "iris-1"))
    edited = api.edit(
        KSVC, "iris", "default", lambda t: t["metadata"]["labels"].update({"networking.knative.dev/visibility": "x"})
    )
    label = "metadata.labels.networking.knative.dev/visibility"
    assert label in owned(edited, "kubectl-edit", "Update")
    assert label not in owned(edited, "roost")
    with pytest.raises(ApiException, match="conflict with"):
        await apply(knative_service("iris", "iris-1"))
    back = await apply(knative_service("iris", "iris-1"), force=True)
    assert back["metadata"]["labels"] == {"networking.knative.dev/visibility": "cluster-local"}


async def test_the_same_again_changes_nothing(api: FakeKubernetes, apply: Apply) -> None:
    first = await apply(knative_service("iris", "iris-1"))
    again = await apply(knative_service("iris", "iris-1"))
    assert again == first
    assert first["spec"]["template"]["spec"]["timeoutSeconds"] == 300, "the webhook's defaults are nobody's, and stay"
    assert not any("timeoutSeconds" in path for path in owned(again, "roost"))


async def test_lists_are_maps_by_key_where_the_schema_says_so_and_atomic_elsewhere(
    api: FakeKubernetes, apply: Apply
) -> None:
    def template(**container: Any) -> Object:
        return knative_service("iris", "iris-1", **container)

    await apply(template(env=[{"name": "A", "value": "1"}]))
    wish = template(env=[{"name": "B", "value": "2"}])
    wish["spec"]["template"]["metadata"]["name"] = "iris-2"
    # Knative's containers are atomic: the whole list is one field.
    with pytest.raises(ApiException, match=r"\.spec\.template\.spec\.containers"):
        await apply(wish, "other")

    thing = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [{"name": "main", "image": "x", "env": [{"name": "A", "value": "1"}]}]},
    }
    made = await apply(thing)
    assert 'spec.containers.{"name":"main"}.env.{"name":"A"}.value' in owned(made, "roost")


async def test_an_item_of_a_map_list_goes_with_its_last_owner(api: FakeKubernetes, apply: Apply) -> None:
    def labelled(*names: str) -> Object:
        thing = config_map("c")
        thing["metadata"]["ownerReferences"] = [
            {"apiVersion": "v1", "kind": "Secret", "name": name, "uid": f"uid-{name}"} for name in names
        ]
        return thing

    anchor = api.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "default"}})
    await apply(config_map("c"))
    thing = config_map("c")
    reference = {"apiVersion": "v1", "kind": "Secret", "name": "s", "uid": anchor["metadata"]["uid"]}
    thing["metadata"]["ownerReferences"] = [reference]
    assert (await apply(thing))["metadata"]["ownerReferences"] == [reference]
    assert (await apply(thing, "other"))["metadata"]["ownerReferences"] == [reference]
    assert (await apply(config_map("c")))["metadata"]["ownerReferences"] == [reference]
    assert "ownerReferences" not in (await apply(config_map("c"), "other"))["metadata"]


async def test_apply_needs_a_manager_and_no_book(api: FakeKubernetes, apply: Apply) -> None:
    with pytest.raises(ApiException, match="is required for apply patch"):
        await apply(config_map("c"), "")
    made = await apply(config_map("c", a="1"))
    with pytest.raises(ApiException, match="managedFields must be nil"):
        await apply(made)


async def test_patches_of_both_kinds_count_as_updates(api: FakeKubernetes) -> None:
    api.create(config_map("c", a="1", b="2"))
    async with official(api) as client:
        core = kubernetes_client.CoreV1Api(client)
        merged = await core.patch_namespaced_config_map(
            "c",
            "default",
            {"data": {"a": None, "c": "3"}},
            _content_type="application/merge-patch+json",
            field_manager="m",
        )
        assert merged.data == {"b": "2", "c": "3"}
        with pytest.raises(ApiException) as unfit:
            await core.patch_namespaced_config_map("c", "default", [{"op": "test", "path": "/data/b", "value": "9"}])
        assert unfit.value.status == 422
    stored = api.get("ConfigMap", "c", "default")
    assert stored is not None
    assert owned(stored, "m", "Update") == {"data.c"}
