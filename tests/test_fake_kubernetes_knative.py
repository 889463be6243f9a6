"""Knative's webhook on the fake API server: its defaults, and what it refuses."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from fake_kubernetes import FakeKubernetes, Refused
from kubernetes_parts import config_map, knative_service

Object = dict[str, Any]
KSVC, REVISION = "Service.serving.knative.dev", "Revision.serving.knative.dev"


@pytest.fixture
async def api() -> AsyncIterator[FakeKubernetes]:
    async with FakeKubernetes() as api:
        yield api


async def test_defaults_are_knatives(api: FakeKubernetes) -> None:
    spec = api.create(knative_service("iris", "iris-1"))["spec"]
    assert spec["traffic"] == [{"percent": 100, "latestRevision": True}]
    template = spec["template"]["spec"]
    assert (template["timeoutSeconds"], template["containerConcurrency"], template["enableServiceLinks"]) == (
        300,
        0,
        False,
    )
    assert template["containers"][0] == {
        "image": "dev.local/x",
        "name": "user-container",
        "readinessProbe": {"tcpSocket": {"port": 0}, "successThreshold": 1},
        "resources": {},
    }
    api.create(
        config_map(
            "config-defaults", "knative-serving", **{"revision-cpu-limit": "2", "revision-timeout-seconds": "60"}
        )
    )
    other = api.create(knative_service("rose", "rose-1"))["spec"]["template"]["spec"]
    assert (other["timeoutSeconds"], other["containers"][0]["resources"]) == (60, {"limits": {"cpu": "2"}})


def note(name: str, value: str) -> Callable[[Object], None]:
    return lambda s: s["template"]["metadata"]["annotations"].update({f"autoscaling.knative.dev/{name}": value})


def template(**fields: Any) -> Callable[[Object], None]:
    return lambda s: s["template"]["spec"].update(fields)


def container(**fields: Any) -> Callable[[Object], None]:
    return lambda s: s["template"]["spec"]["containers"][0].update(fields)


def traffic(*targets: Object) -> Callable[[Object], None]:
    return lambda s: s.update(traffic=list(targets))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["template"]["metadata"].update(name="rose-1"), 'must have prefix "iris-"'),
        (lambda s: s["template"]["metadata"].update(name="iris-A"), "not a DNS 1035 label"),
        (template(timeoutSeconds=601), "expected 0 <= 601 <= 600: spec.template.spec.timeoutSeconds"),
        (template(containerConcurrency=1001), "expected 0 <= 1001 <= 1000"),
        (template(nodeSelector={"a": "b"}), r"must not set the field\(s\): spec.template.spec.nodeSelector"),
        (template(automountServiceAccountToken=True), "spec.template.spec.automountServiceAccountToken"),
        (template(volumes=[{"name": "v", "emptyDir": {}}]), 'volume with name "v" not mounted'),
        (container(env=[{"name": "PORT", "value": "1"}]), '"PORT" is a reserved environment variable'),
        (container(ports=[{"containerPort": 9090, "protocol": "TCP"}]), "9090 is a reserved port"),
        (
            container(readinessProbe={"httpGet": {"path": "/", "port": 1}, "timeoutSeconds": 1}),
            "disallowed when periodSeconds",
        ),
        (container(volumeMounts=[{"name": "v", "mountPath": "/dev"}]), "reserved path"),
        (note("min-scale", "x"), "min-scale"),
        (lambda s: [note("min-scale", "3")(s), note("max-scale", "2")(s)], "max-scale=2 is less than min-scale=3"),
        (note("activation-scale", "1"), "must be greater than 1"),
        (note("initial-scale", "0"), "not allowed by cluster"),
        (note("window", "5s"), "window"),
        (note("target", "0"), "target"),
        (note("metric", "cpu"), "metric"),
        (note("class", "x.autoscaling.knative.dev"), "class"),
        (note("panic-threshold-percentage", "109"), "panic-threshold"),
        (traffic({"revisionName": "iris-1", "percent": 99}), "Traffic targets sum to 99, want 100"),
        (traffic({"revisionName": "iris-1", "percent": 100, "latestRevision": True}), "may not set revisionName"),
        (
            traffic({"revisionName": "a", "percent": 100, "tag": "v1"}, {"revisionName": "b", "tag": "v1"}),
            'Multiple definitions for "v1"',
        ),
    ],
)
async def test_what_knative_refuses(api: FakeKubernetes, change: Callable[[Object], None], message: str) -> None:
    service = knative_service("iris", "iris-1")
    change(service["spec"])
    with pytest.raises(Refused, match=message) as refused:
        api.create(service)
    assert (refused.value.code, "admission webhook" in refused.value.message) == (400, True)


async def test_autoscaling_belongs_on_the_template(api: FakeKubernetes) -> None:
    service = knative_service("iris", "iris-1")
    service["metadata"]["annotations"] = {"autoscaling.knative.dev/min-scale": "1"}
    with pytest.raises(Refused, match="must be put under"):
        api.create(service)


async def test_a_changed_template_needs_another_name(api: FakeKubernetes) -> None:
    api.create(knative_service("iris", "iris-1"))

    def change(thing: Object) -> None:
        thing["spec"]["template"]["spec"]["timeoutSeconds"] = 5

    with pytest.raises(Refused, match="without a name change"):
        api.edit(KSVC, "iris", "default", change)

    def change_and_name(thing: Object) -> None:
        change(thing)
        thing["spec"]["template"]["metadata"]["name"] = "iris-2"

    assert api.edit(KSVC, "iris", "default", change_and_name)["metadata"]["generation"] == 2


async def test_revisions_do_not_change(api: FakeKubernetes) -> None:
    meta = {"name": "iris-1", "namespace": "default"}
    spec = knative_service("iris", "iris-1")["spec"]["template"]["spec"]
    api.create({"apiVersion": "serving.knative.dev/v1", "kind": "Revision", "metadata": meta, "spec": spec})
    with pytest.raises(Refused, match="Immutable fields changed"):
        api.edit(REVISION, "iris-1", "default", lambda t: t["spec"].update(timeoutSeconds=1))
    api.edit(REVISION, "iris-1", "default", lambda t: t["metadata"].update(labels={"a": "b"}))


async def test_features_open_fields(api: FakeKubernetes) -> None:
    api.create(config_map("config-features", "knative-serving", **{"kubernetes.podspec-nodeselector": "enabled"}))
    service = knative_service("iris", "iris-1")
    template(nodeSelector={"a": "b"})(service["spec"])
    assert api.create(service)["spec"]["template"]["spec"]["nodeSelector"] == {"a": "b"}
