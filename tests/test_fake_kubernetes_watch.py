"""Watches on the fake API server, and everything that can go wrong on the way to it, seen by the official client."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from kubernetes.aio import client as kubernetes_client
from kubernetes.aio import watch as kubernetes_watch
from kubernetes.aio.client.exceptions import ApiException

from fake_kubernetes import FakeKubernetes
from kubernetes_parts import config_map, official

Object = dict[str, Any]


@pytest.fixture
async def api() -> AsyncIterator[FakeKubernetes]:
    async with FakeKubernetes(history=20) as api:
        yield api


class Follower:
    """Reads one watch of the config maps of `default`, line by line, in the background."""

    def __init__(self, api: FakeKubernetes, **query: str) -> None:
        self.events: list[tuple[str, str]] = []
        self.objects: list[Object] = []
        self._news = asyncio.Condition()
        self._task = asyncio.create_task(self._read(api, query))

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10), self._news:
            await self._news.wait_for(lambda: len(self.events) >= count)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def wait(self) -> None:
        async with asyncio.timeout(10):
            await self._task

    async def _read(self, api: FakeKubernetes, query: dict[str, str]) -> None:
        url = f"{api.url}/api/v1/namespaces/default/configmaps"
        headers = {"Authorization": f"Bearer {api.token}"}
        async with (
            aiohttp.ClientSession() as session,
            session.get(url, params={"watch": "1", **query}, headers=headers) as response,
        ):
            assert response.status == 200, await response.text()
            async for line in response.content:
                event = json.loads(line)
                async with self._news:
                    self.events.append((event["type"], event["object"].get("metadata", {}).get("name", "")))
                    self.objects.append(event["object"])
                    self._news.notify_all()


async def test_the_official_watch_goes_on_from_where_a_list_was(api: FakeKubernetes) -> None:
    api.create(config_map("before"))
    async with official(api) as client:
        core = kubernetes_client.CoreV1Api(client)
        listed = await core.list_namespaced_config_map("default")
        api.create(config_map("after"))
        api.edit("ConfigMap", "after", "default", lambda t: t["data"].update(a="1"))
        api.remove("ConfigMap", "after", "default")
        async with kubernetes_watch.Watch() as watch:
            version = listed.metadata.resource_version
            stream = watch.stream(
                core.list_namespaced_config_map, "default", resource_version=version, timeout_seconds=1
            )
            seen = [(event["type"], event["object"].metadata.name) async for event in stream]
    assert seen == [("ADDED", "after"), ("MODIFIED", "after"), ("DELETED", "after")]


async def test_without_a_version_a_watch_begins_with_what_there_is(api: FakeKubernetes) -> None:
    api.create(config_map("a"))
    follower = Follower(api, sendInitialEvents="true", allowWatchBookmarks="true", timeoutSeconds="1")
    await follower.wait()
    assert follower.events[:2] == [("ADDED", "a"), ("BOOKMARK", "")]
    assert follower.objects[1]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_a_selector_makes_comings_and_goings_of_changes(api: FakeKubernetes) -> None:
    follower = Follower(api, labelSelector="on", resourceVersion=str(api.version))
    thing = config_map("a")
    api.create(thing)
    for labels in ({"on": ""}, {"on": "", "b": ""}, {}):
        api.edit("ConfigMap", "a", "default", lambda t, labels=labels: t["metadata"].update(labels=labels))
    await follower.until(3)
    await follower.stop()
    assert follower.events == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]


async def test_bookmarks_carry_the_version_to_go_on_from(api: FakeKubernetes) -> None:
    follower = Follower(api, resourceVersion=str(api.version), allowWatchBookmarks="true")
    api.create(config_map("a"))
    await follower.until(1)
    api.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "default"}})
    await asyncio.sleep(0.01)
    api.bookmark()
    await follower.until(2)
    await follower.stop()
    assert follower.events[1] == ("BOOKMARK", "")
    assert int(follower.objects[1]["metadata"]["resourceVersion"]) >= int(
        follower.objects[0]["metadata"]["resourceVersion"]
    )


async def test_what_is_forgotten_is_gone(api: FakeKubernetes) -> None:
    old = str(api.version)
    for number in range(30):
        api.create(config_map(f"c{number}"))
    follower = Follower(api, resourceVersion=old)
    await follower.wait()
    assert [
        (type_, thing["code"], thing["reason"])
        for (type_, _), thing in zip(follower.events, follower.objects, strict=True)
    ] == [("ERROR", 410, "Expired")]
    open_one = Follower(api, resourceVersion=str(api.version))
    await asyncio.sleep(0.05)
    api.expire_watches()
    await open_one.wait()
    assert open_one.objects[0]["code"] == 410


async def test_a_stalled_watch_sends_nothing_and_then_everything(api: FakeKubernetes) -> None:
    follower = Follower(api, resourceVersion=str(api.version))
    api.stall_watches()
    api.create(config_map("a"))
    await asyncio.sleep(0.1)
    assert follower.events == []
    api.resume_watches()
    await follower.until(1)
    api.replay(1)
    await follower.until(2)
    await follower.stop()
    assert follower.events == [("ADDED", "a")] * 2


async def test_each_fault_befalls_as_many_requests_as_asked(api: FakeKubernetes) -> None:
    async with official(api) as client:
        core = kubernetes_client.CoreV1Api(client)
        api.fail(429, retry_after_s=7, verb="list", resource="configmaps")
        await core.list_namespaced_secret("default")
        with pytest.raises(ApiException) as busy:
            await core.list_namespaced_config_map("default")
        assert (busy.value.status, busy.value.headers["Retry-After"]) == (429, "7")
        api.fail(500, times=2)
        for _ in range(2):
            with pytest.raises(ApiException) as broken:
                await core.list_namespaced_config_map("default")
            assert broken.value.status == 500
        api.slow(0.2)
        begin = time.monotonic()
        await core.list_namespaced_config_map("default")
        assert time.monotonic() - begin >= 0.2


async def test_a_connection_may_break_before_or_after_the_deed(api: FakeKubernetes) -> None:
    async with official(api) as client:
        core = kubernetes_client.CoreV1Api(client)
        for done in (False, True):
            api.cut(done=done, verb="create")
            with pytest.raises(aiohttp.ClientError):
                await core.create_namespaced_config_map("default", config_map("a"))
            assert (api.get("ConfigMap", "a", "default") is not None) is done


async def test_a_server_that_vanished_comes_back_at_its_address(api: FakeKubernetes) -> None:
    follower = Follower(api, resourceVersion=str(api.version))
    async with official(api) as client:
        core = kubernetes_client.CoreV1Api(client)
        await core.list_namespace()
        await api.vanish()
        with pytest.raises(aiohttp.ClientError):
            await core.list_namespace()
        with pytest.raises(aiohttp.ClientError):
            await follower.wait()
        await api.come_back()
        assert (await core.list_namespace()).items
