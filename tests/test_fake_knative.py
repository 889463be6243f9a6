"""The mini Knative keeps what Knative promises: what it makes of a Service, what it says, how requests travel and wait."""

import asyncio
import base64
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fake_knative import FakeKnative
from fake_kubernetes import FakeKubernetes
from kubernetes_parts import knative_service

Object = dict[str, Any]
SERVING = "serving.knative.dev"
KSVC, REVISION, ROUTE = f"Service.{SERVING}", f"Revision.{SERVING}", f"Route.{SERVING}"
PROGRAM = '''
    """Echoes; sleeps as long as the query says; refuses to start when told so."""
    import os, sys, time
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            time.sleep(float(self.path.partition("?")[2] or 0))
            text = os.environ.get("ANSWER", "") + " " + self.headers.get("Forwarded", "") + " " + os.environ["K_REVISION"]
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *args):
            pass

    if os.environ.get("ANSWER") == "exit":
        print("no model here", flush=True)
        sys.exit(3)
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
'''


class Cluster:
    def __init__(self, api: FakeKubernetes, knative: FakeKnative, session: aiohttp.ClientSession) -> None:
        self.api, self.knative, self._session = api, knative, session

    def apply(self, template: str, *, answer: str = "a", traffic: list[Object] | None = None, **notes: str) -> None:
        """The Service `iris` with this template, whose name is without `iris-`."""
        service = knative_service(
            "iris", f"iris-{template}", image="dev.local/echo", env=[{"name": "ANSWER", "value": answer}]
        )
        annotations = {f"autoscaling.knative.dev/{name.replace('_', '-')}": value for name, value in notes.items()}
        service["spec"]["template"]["metadata"]["annotations"] = annotations
        service["spec"]["template"]["spec"]["timeoutSeconds"] = 20
        if traffic is not None:
            service["spec"]["traffic"] = traffic
        if self.api.get(KSVC, "iris", "default") is None:
            self.api.create(service)
        else:
            self.api.edit(KSVC, "iris", "default", lambda t: t.update(spec=service["spec"]))

    def condition(self, kind: str, name: str, type_: str = "Ready") -> tuple[str, str, str]:
        thing = self.api.get(kind, name, "default") or {}
        for entry in thing.get("status", {}).get("conditions", ()):
            if entry["type"] == type_ and thing["status"]["observedGeneration"] == thing["metadata"]["generation"]:
                return entry["status"], entry.get("reason", ""), entry.get("message", "")
        return "", "", ""

    async def until(self, kind: str, name: str, status: str, type_: str = "Ready") -> tuple[str, str]:
        await until(lambda: self.condition(kind, name, type_)[0] == status)
        return self.condition(kind, name, type_)[1:]

    async def get(self, query: str = "", host: str = "iris.default.svc.cluster.local") -> tuple[int, str]:
        async with self._session.get(f"{self.knative.ingress_url}/{query}", headers={"Host": host}) as answer:
            return answer.status, await answer.text()


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    program = tmp_path / "echo.py"
    program.write_text(textwrap.dedent(PROGRAM))
    commands = {"dev.local/echo": (sys.executable, str(program))}
    async with (
        FakeKubernetes() as api,
        FakeKnative(api, commands=commands, cpus="2", queue_depth=3) as knative,
        aiohttp.ClientSession() as session,
    ):
        yield Cluster(api, knative, session)


async def test_a_service_becomes_a_revision_a_route_and_a_pod_that_serves(cluster: Cluster) -> None:
    cluster.apply("1")
    await cluster.until(KSVC, "iris", "True")
    status, text = await cluster.get()
    assert (status, text.split(" ")[0], text.split(" ")[-1]) == (200, "a", "iris-1")
    assert "host=iris.default.svc.cluster.local;proto=http" in text
    service = cluster.api.get(KSVC, "iris", "default")
    assert service is not None
    assert service["status"]["latestReadyRevisionName"] == "iris-1"
    assert service["status"]["url"] == "http://iris.default.svc.cluster.local"
    (pod,) = cluster.api.objects("Pod", "default")
    assert [c["name"] for c in pod["spec"]["containers"]] == ["user-container", "queue-proxy"]
    assert pod["metadata"]["labels"]["serving.knative.dev/revision"] == "iris-1"


async def test_tags_have_addresses_and_percents_are_kept_to(cluster: Cluster) -> None:
    cluster.apply("1", answer="one")
    await cluster.until(KSVC, "iris", "True")
    cluster.apply("2", answer="two", traffic=[{"revisionName": "iris-1", "percent": 100, "tag": "v1"}])
    await cluster.until(REVISION, "iris-2", "True")
    both = [{"revisionName": f"iris-{n}", "percent": 50, "tag": f"v{n}"} for n in (1, 2)]
    cluster.apply("2", answer="two", traffic=both)
    await cluster.until(KSVC, "iris", "True")
    route = cluster.api.get(ROUTE, "iris", "default")
    assert route is not None
    assert [t["url"] for t in route["status"]["traffic"]] == [
        f"http://v{n}-iris.default.svc.cluster.local" for n in (1, 2)
    ]
    for number, word in ((1, "one"), (2, "two")):
        assert (await cluster.get(host=f"v{number}-iris.default.svc"))[1].startswith(word)
    answers = [(await cluster.get())[1].split(" ")[0] for _ in range(100)]
    assert 25 <= answers.count("one") <= 75
    assert (await cluster.get(host="v3-iris.default.svc.cluster.local"))[0] == 404


async def test_traffic_waits_for_a_revision_that_is_not_there_and_the_old_route_stays(cluster: Cluster) -> None:
    cluster.apply("1")
    await cluster.until(KSVC, "iris", "True")
    cluster.apply("1", traffic=[{"revisionName": "iris-9", "percent": 100}])
    reason, message = await cluster.until(KSVC, "iris", "False")
    assert (reason, message) == ("RevisionMissing", 'Revision "iris-9" referenced in traffic not found.')
    assert (await cluster.get())[0] == 200


async def test_it_sleeps_and_wakes_for_those_who_wait(cluster: Cluster) -> None:
    cluster.apply("1", window="6s")
    await cluster.until(KSVC, "iris", "True")
    await cluster.knative.pass_time(60)
    await until(lambda: not cluster.knative.pods())
    assert cluster.condition(REVISION, "iris-1", "Active")[:2] == ("False", "NoTraffic")
    assert cluster.condition(REVISION, "iris-1")[0] == "True"
    answers = await asyncio.gather(*(cluster.get("?0.05") for _ in range(3)))
    assert [status for status, _ in answers] == [200] * 3
    assert len(cluster.knative.pods()) == 1


async def test_one_at_a_time_means_so_and_the_queue_has_an_end(cluster: Cluster) -> None:
    service = knative_service("iris", "iris-1", image="dev.local/echo")
    service["spec"]["template"]["spec"] |= {"containerConcurrency": 1, "timeoutSeconds": 2}
    service["spec"]["template"]["metadata"]["annotations"] = {"autoscaling.knative.dev/max-scale": "1"}
    cluster.api.create(service)
    await cluster.until(KSVC, "iris", "True")
    answers = await asyncio.gather(*(cluster.get("?0.05") for _ in range(5)))
    assert sorted(status for status, _ in answers) == [200, 200, 200, 200, 503]
    assert next(text for status, text in answers if status == 503) == "pending request queue full\n"
    assert await cluster.get("?10") == (504, "request timeout")


async def test_a_container_that_exits_is_told_of_with_its_words(cluster: Cluster) -> None:
    cluster.apply("1", answer="exit")
    reason, message = await cluster.until(REVISION, "iris-1", "False")
    assert (reason, message) == ("ExitCode3", "Container failed with: no model here")
    await until(lambda: _waiting(cluster).get("reason") == "CrashLoopBackOff")
    (pod,) = cluster.api.objects("Pod", "default")
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 2
    assert _waiting(cluster)["message"].startswith("back-off 10s restarting failed container=user-container")
    assert cluster.api.log_of("default", pod["metadata"]["name"], True) == "no model here\n"


@pytest.mark.parametrize(
    ("image", "reason"), [("example.org/nothing:1", "ContainerMissing"), ("dev.local/nothing", "ImagePullBackOff")]
)
async def test_an_image_that_cannot_be_had(cluster: Cluster, image: str, reason: str) -> None:
    service = knative_service("iris", "iris-1", image=image)
    service["spec"]["template"]["metadata"]["annotations"] = {"serving.knative.dev/progress-deadline": "1s"}
    cluster.api.create(service)
    found, message = await cluster.until(REVISION, "iris-1", "False")
    assert found == reason
    assert image in message


async def test_what_no_node_or_quota_has_room_for_is_named(cluster: Cluster) -> None:
    resources = {"requests": {"cpu": "4"}, "limits": {"cpu": "4"}}
    cluster.api.create(knative_service("big", "big-1", image="dev.local/echo", resources=resources))
    reason, message = await cluster.until(REVISION, "big-1", "False")
    assert (reason, message.startswith("0/1 nodes are available: 1 Insufficient cpu.")) == ("Unschedulable", True)
    meta = {"name": "q", "namespace": "default"}
    cluster.api.create(
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": {"hard": {"limits.cpu": "1"}}}
    )
    cluster.apply("1")
    reason, message = await cluster.until(REVISION, "iris-1", "False")
    assert reason == "FailedCreate"
    assert "failed quota: q: must specify limits.cpu for: user-container,queue-proxy" in message


async def test_secrets_reach_the_process_and_their_absence_its_status(cluster: Cluster) -> None:
    env = [{"name": "ANSWER", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
    cluster.api.create(knative_service("iris", "iris-1", image="dev.local/echo", env=env))
    await until(lambda: _waiting(cluster).get("reason", "ContainerCreating") != "ContainerCreating")
    assert _waiting(cluster) == {"reason": "CreateContainerConfigError", "message": 'secret "s" not found'}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "default"}}
    cluster.api.create({**secret, "data": {"k": base64.b64encode(b"hush").decode()}})
    await cluster.until(KSVC, "iris", "True")
    assert (await cluster.get())[1].startswith("hush ")


def _waiting(cluster: Cluster) -> Object:
    """What the first pod's container waits for."""
    for pod in cluster.api.objects("Pod", "default"):
        for status in pod.get("status", {}).get("containerStatuses", ())[:1]:
            found: Object = status["state"].get("waiting", {})
            return found
    return {}


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        await asyncio.sleep(0.01)


async def test_a_deleted_service_takes_all_along_when_its_requests_are_answered(cluster: Cluster) -> None:
    cluster.apply("1")
    await cluster.until(KSVC, "iris", "True")
    call = asyncio.ensure_future(cluster.get("?0.5"))
    await asyncio.sleep(0.1)
    cluster.api.remove(KSVC, "iris", "default")
    assert (await call)[0] == 200
    await until(lambda: not cluster.knative.pods() and not cluster.api.objects("Pod", "default"))
    assert [cluster.api.objects(f"{k}.{SERVING}") for k in ("Service", "Configuration", "Route", "Revision")] == [
        []
    ] * 4
    assert (await cluster.get())[0] == 404
