"""The thin port over the official Kubernetes client: errors, tries, logins and watches, on the fake API server."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fake_kubernetes import FakeKubernetes
from knative_engine_parts import until
from roost_platform.domain.errors import InvalidRequest
from roost_platform.engines.knative.cluster import (
    CONFIG_MAP,
    LIMIT_RANGE,
    NAMESPACE,
    SECRET,
    Cluster,
    ClusterError,
    Conflict,
    Failed,
    Gone,
    LoggedOut,
    Missing,
    NotNow,
    Refused,
    TooMany,
    Unreachable,
)
from roost_platform.engines.knative.connection import Access, in_cluster
from roost_platform.engines.knative.informer import Informer


@pytest.fixture
async def api() -> AsyncIterator[FakeKubernetes]:
    async with FakeKubernetes() as api:
        yield api


@contextlib.asynccontextmanager
async def connected(access: Access, **options: Any) -> AsyncIterator[Cluster]:
    cluster = Cluster(access, **({"timeout_s": 2.0, "attempts": 3} | options))
    await cluster.start()
    yield cluster
    await cluster.stop()


@pytest.fixture
async def cluster(api: FakeKubernetes, tmp_path: Path) -> AsyncIterator[Cluster]:
    (tmp_path / "token").write_text(api.token + "\n")
    async with connected(Access(url=api.url, token_file=tmp_path / "token")) as cluster:
        yield cluster


def secret(name: str = "s", **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": "default"},
        "stringData": data,
    }


async def test_apply_get_find_and_delete(cluster: Cluster) -> None:
    made = await cluster.apply(secret("a"))
    again = await cluster.apply(secret("a"))
    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    assert (await cluster.get(SECRET, "a", "default"))["metadata"]["uid"] == made["metadata"]["uid"]
    await cluster.apply(secret("b"))
    assert [s["metadata"]["name"] for s in (await cluster.find(SECRET, namespace="default")).items] == ["a", "b"]
    with pytest.raises(Conflict):
        await cluster.delete(SECRET, "a", "default", uid="another")
    await cluster.delete(SECRET, "a", "default", uid=made["metadata"]["uid"])
    await cluster.delete(SECRET, "a", "default")
    with pytest.raises(Missing):
        await cluster.get(SECRET, "a", "default")


@pytest.mark.parametrize(
    ("status", "kind"), [(500, Failed), (503, Failed), (409, Conflict), (400, Refused), (422, Refused), (410, Gone)]
)
async def test_errors_have_kinds(api: FakeKubernetes, cluster: Cluster, status: int, kind: type[ClusterError]) -> None:
    api.fail(status, times=3)
    with pytest.raises(kind) as error:
        await cluster.get(NAMESPACE, "default")
    assert (error.value.status, error.value.message) == (status, "a fault that the test asked for")
    api.faults.pending.clear()
    await cluster.get(NAMESPACE, "default")


async def test_a_server_that_names_a_time_is_given_it(api: FakeKubernetes, cluster: Cluster) -> None:
    api.fail(429, retry_after_s=1)
    clock = asyncio.get_running_loop().time
    began = clock()
    await cluster.get(NAMESPACE, "default")
    assert clock() - began >= 1


async def test_a_time_too_long_to_wait_here_is_told(api: FakeKubernetes, cluster: Cluster) -> None:
    api.fail(429, retry_after_s=600)
    with pytest.raises(TooMany) as error:
        await cluster.get(NAMESPACE, "default")
    assert error.value.retry_after_s == 600


async def test_an_answer_that_does_not_come_is_not_waited_for(api: FakeKubernetes, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(api.token)
    async with connected(Access(url=api.url, token_file=tmp_path / "token"), timeout_s=0.2, attempts=1) as cluster:
        api.slow(30)
        with pytest.raises(Unreachable):
            await cluster.get(NAMESPACE, "default")
    async with connected(Access(url="http://127.0.0.1:9"), attempts=1) as cluster:
        with pytest.raises(Unreachable):
            await cluster.get(NAMESPACE, "default")


async def test_a_token_is_read_for_every_request_and_a_wrong_one_is_told(
    api: FakeKubernetes, cluster: Cluster, tmp_path: Path
) -> None:
    token = api.expire_token()
    with pytest.raises(LoggedOut):
        await cluster.get(NAMESPACE, "default")
    (tmp_path / "token").write_text(token)
    await cluster.get(NAMESPACE, "default")


def kubeconfig(url: str, token: str) -> str:
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
    )


async def test_a_kubeconfig_is_read_again_when_its_login_is_refused(api: FakeKubernetes, tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(kubeconfig(api.url, api.token))
    async with connected(Access(kubeconfig=path)) as cluster:
        await cluster.get(NAMESPACE, "default")
        path.write_text(kubeconfig(api.url, api.expire_token()))
        await cluster.get(NAMESPACE, "default")
    path.write_text("{}")
    with pytest.raises(InvalidRequest):
        async with connected(Access(kubeconfig=path)):
            pass


def test_a_pod_finds_its_cluster(tmp_path: Path) -> None:
    environment = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    with pytest.raises(InvalidRequest):
        in_cluster(environment, folder=tmp_path)
    (tmp_path / "token").write_text("t")
    assert in_cluster(environment, folder=tmp_path) == Access(
        url="https://[fd00::1]:443", token_file=tmp_path / "token", ca_file=tmp_path / "ca.crt"
    )
    with pytest.raises(InvalidRequest):
        in_cluster({}, folder=tmp_path)


async def test_what_quotas_and_webhooks_say_is_passed_on(cluster: Cluster) -> None:
    wrong = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "x", "namespace": "default"}, "spec": 3}
    with pytest.raises(Refused) as error:
        await cluster.apply(wrong)
    assert error.value.message
    with pytest.raises(Missing):
        await cluster.get(LIMIT_RANGE, "x", "default")


async def _next(events: Any) -> tuple[str, str]:
    event = await anext(events)
    return event.type, event.object["metadata"]["name"]


async def test_a_watch_tells_what_changes_and_ends(api: FakeKubernetes, cluster: Cluster) -> None:
    await cluster.apply(secret("a"))
    version = (await cluster.find(SECRET)).version
    await cluster.apply(secret("b"))
    await cluster.delete(SECRET, "a", "default")
    events = cluster.watch(SECRET, version=version, timeout_s=1)
    assert [await _next(events), await _next(events)] == [("ADDED", "b"), ("DELETED", "a")]
    assert [event.type async for event in events if event.type != "BOOKMARK"] == []
    api.forget_history()
    with pytest.raises(Gone):
        await anext(cluster.watch(SECRET, version=version, timeout_s=1))


async def test_a_watch_that_breaks_says_so(api: FakeKubernetes, cluster: Cluster) -> None:
    version = (await cluster.find(SECRET)).version
    events = cluster.watch(SECRET, version=version, timeout_s=30)
    waiting = asyncio.ensure_future(anext(events))
    await until(lambda: api.watching)
    api.drop_connections()
    with pytest.raises(NotNow):
        await waiting


async def test_an_informer_ignores_what_it_has_seen_and_forgets_nothing(api: FakeKubernetes, cluster: Cluster) -> None:
    told: list[tuple[str, str]] = []

    def changed(before: dict[str, Any] | None, now: dict[str, Any] | None) -> None:
        kind = "gone" if now is None else "new" if before is None else "changed"
        told.append((kind, (now or before or {})["metadata"]["name"]))

    def config(name: str, **data: str) -> dict[str, Any]:
        metadata = {"name": name, "namespace": "default", "labels": {"is": "mine"}}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}

    api.create(config("a"))
    informer = Informer(cluster=cluster, kind=CONFIG_MAP, selector="is=mine", changed=changed, watch_s=5)
    running = asyncio.create_task(informer.run())
    await informer.synced.wait()
    api.create(config("b"))
    api.edit("ConfigMap", "a", "default", lambda thing: thing["data"].update(x="1"))
    api.remove("ConfigMap", "b", "default")
    expected = [("new", "a"), ("new", "b"), ("changed", "a"), ("gone", "b")]
    await until(lambda: len(told) == 4)
    api.replay(3)
    api.create(config("c"))
    await until(lambda: ("new", "c") in told)
    assert told == [*expected, ("new", "c")]
    assert sorted(place.name for place in informer.objects) == ["a", "c"]
    api.edit("ConfigMap", "a", "default", lambda thing: thing["metadata"].pop("labels"))
    api.edit("ConfigMap", "a", "default", lambda thing: thing["metadata"].update(labels={"is": "mine"}))
    await until(lambda: told[-1] == ("new", "a"))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
