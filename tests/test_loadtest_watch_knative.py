"""Knative's own objects through a kubeconfig: the real client of Kubernetes against the fake cluster."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fake_kubernetes import FakeKubernetes
from kubernetes_parts import namespace
from roost_loadtest.asking import NoAnswer
from roost_loadtest.knative_watch import KnativeWatch, autoscalers
from roost_loadtest.readings import PodAutoscaler
from roost_loadtest.record import Target
from roost_platform.domain.services import ServiceKey
from roost_platform.engines.knative.names import REVISION, service_labels

IRIS = Target("acme", "iris")
SPACE = "roost-acme"


def kubeconfig(api: FakeKubernetes, folder: Path) -> Path:
    path = folder / "kubeconfig"
    path.write_text(
        f"{{apiVersion: v1, kind: Config, current-context: c, clusters: [{{name: c, cluster: {{server: '{api.url}'}}}}], "
        f"contexts: [{{name: c, context: {{cluster: c, user: u}}}}], users: [{{name: u, user: {{token: '{api.token}'}}}}]}}"
    )
    return path


def labels(revision: str, model: str = "iris") -> dict[str, str]:
    return service_labels(ServiceKey("acme", model)) | {REVISION: revision}


def pod_autoscaler(name: str, revision: str, *, model: str = "iris", **status: int) -> dict[str, Any]:
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": f"{name}-deployment"}
    return {
        "apiVersion": "autoscaling.internal.knative.dev/v1alpha1",
        "kind": "PodAutoscaler",
        "metadata": {"name": name, "namespace": SPACE, "labels": labels(revision, model)},
        "spec": {"scaleTargetRef": reference, "protocolType": "http1"},
        "status": {"metricsServiceName": "", "serviceName": name, **status},
    }


def deployment(name: str, revision: str, **status: int) -> dict[str, Any]:
    pods = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "example.org/x"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"{name}-deployment", "namespace": SPACE, "labels": labels(revision)},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": pods},
        "status": status,
    }


@pytest.fixture
async def cluster() -> AsyncIterator[FakeKubernetes]:
    async with FakeKubernetes() as api:
        api.create(namespace(SPACE))
        yield api


def shown(api: FakeKubernetes, thing: dict[str, Any]) -> None:
    """As its controller has written it."""
    meta = thing["metadata"]
    api.create({key: value for key, value in thing.items() if key != "status"})
    group = thing["apiVersion"].partition("/")[0]
    api.set_status(f"{thing['kind']}.{group}", meta["name"], SPACE, thing["status"])


async def test_replicas_are_read_from_knatives_own_objects(cluster, tmp_path):
    shown(cluster, pod_autoscaler("iris-00001-abc", "iris-00001", desiredScale=4, actualScale=1))
    shown(cluster, deployment("iris-00001-abc", "iris-00001", replicas=4, readyReplicas=1))
    shown(cluster, pod_autoscaler("other-00001-abc", "other-00001", model="other", desiredScale=9, actualScale=9))
    watch = await asyncio.to_thread(KnativeWatch, kubeconfig(cluster, tmp_path))
    assert await asyncio.to_thread(watch.look, IRIS) == (PodAutoscaler("iris-00001", 4, 1, 3),)
    assert await asyncio.to_thread(watch.look, Target("acme", "unknown")) == ()


async def test_a_cluster_that_says_no_is_no_answer(cluster, tmp_path):
    watch = await asyncio.to_thread(KnativeWatch, kubeconfig(cluster, tmp_path))
    cluster.expire_token()
    with pytest.raises(NoAnswer, match="the cluster does not show its podautoscalers: status 401"):
        await asyncio.to_thread(watch.look, IRIS)


def test_a_kubeconfig_that_is_none_is_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere"):
        KnativeWatch(tmp_path / "nowhere")
    broken = tmp_path / "broken"
    broken.write_text("{apiVersion: v1, kind: Config}")
    with pytest.raises(ValueError, match="broken"):
        KnativeWatch(broken)


def test_what_knative_does_not_know_yet_is_unknown():
    fresh = pod_autoscaler("iris-00001-abc", "iris-00001", desiredScale=-1)
    assert autoscalers([fresh], []) == (PodAutoscaler("iris-00001", None, None, None),)
    waiting = deployment("iris-00001-abc", "iris-00001", replicas=2)
    assert autoscalers([fresh], [waiting]) == (PodAutoscaler("iris-00001", None, 0, 2),)
    assert autoscalers([], [waiting]) == ()


def test_two_knative_revisions_of_one_of_roosts_are_one():
    one = pod_autoscaler("iris-00001-abc", "iris-00001", desiredScale=2, actualScale=2)
    other = pod_autoscaler("iris-00002-def", "iris-00001", desiredScale=1, actualScale=0)
    assert autoscalers([one, other], []) == (PodAutoscaler("iris-00001", 3, 2, None),)
