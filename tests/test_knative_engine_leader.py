"""Several gateways on one cluster: one writes, all see; and what an account must be allowed to do for that."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from knative_engine_parts import (
    KEY,
    KREVISION,
    Setting,
    call,
    left_over,
    make_revision,
    make_service,
    status_of,
    until,
    until_failed,
    until_ready,
)
from roost_platform.domain.errors import InvalidRequest, NotFound
from roost_platform.domain.scaling import ScalingPolicy
from roost_platform.domain.services import Readiness, RevisionKey

READING = {"get", "list", "watch"}
ALLOWED = {
    ("get", "namespaces"),
    ("list", "namespaces"),
    ("patch", "namespaces"),
    ("delete", "namespaces"),
    ("patch", "serviceaccounts"),
    ("patch", "resourcequotas"),
    ("patch", "limitranges"),
    ("patch", "networkpolicies.networking.k8s.io"),
    ("patch", "secrets"),
    ("delete", "secrets"),
    ("get", "services.serving.knative.dev"),
    ("list", "services.serving.knative.dev"),
    ("watch", "services.serving.knative.dev"),
    ("patch", "services.serving.knative.dev"),
    ("delete", "services.serving.knative.dev"),
    ("list", "revisions.serving.knative.dev"),
    ("watch", "revisions.serving.knative.dev"),
    ("delete", "revisions.serving.knative.dev"),
    ("list", "pods"),
    ("watch", "pods"),
    ("get", "pods/log"),
    ("get", "configmaps"),
}
"""What the gateway's role in the manifests gives (`patch` with `create`: an object that is new is applied, too)."""


@pytest.fixture
async def setting() -> AsyncIterator[Setting]:
    async with Setting() as setting:
        yield setting


class Leadership:
    def __init__(self) -> None:
        self.leader = "a"

    def of(self, name: str) -> Callable[[], bool]:
        return lambda: self.leader == name


async def test_a_follower_writes_nothing_and_serves_what_the_leader_made(setting: Setting, tmp_path: Path) -> None:
    follower = await setting.engine(tmp_path, leads=lambda: False)
    follower.complete()
    first = make_revision(1)
    await follower.apply(make_service(first, to=first))
    await asyncio.sleep(0.7)
    assert {asked.verb for asked in setting.api.asked} <= READING
    assert status_of(follower, first).ready is Readiness.UNKNOWN

    leader = await setting.engine(tmp_path)
    await leader.apply(make_service(first, to=first))
    await until_ready(follower, first)
    assert (await call(follower, first))["version"] == "1"

    await follower.delete(KEY)
    with pytest.raises(NotFound):
        follower.lease(RevisionKey(KEY, first.name), 1e9)
    assert (await call(leader, first))["version"] == "1"
    await leader.delete(KEY)
    assert left_over(setting) == []


async def test_a_new_leader_carries_on_where_the_old_one_was(setting: Setting, tmp_path: Path) -> None:
    leadership = Leadership()
    engines = {name: await setting.engine(tmp_path, leads=leadership.of(name)) for name in ("a", "b")}
    first = make_revision(1)
    for engine in engines.values():
        await engine.apply(make_service(first, to=first))
        engine.complete()
    for engine in engines.values():
        await until_ready(engine, first)
    first = dataclasses.replace(first, proven=True)
    made = [r["metadata"]["uid"] for r in setting.api.objects(KREVISION)]

    for generation, leader in enumerate(["b", "a", "nobody", "b"], start=2):
        leadership.leader = leader
        new = make_revision(generation)
        for engine in engines.values():
            await engine.apply(make_service(first, new, to=first))
        if leader == "nobody":
            await asyncio.sleep(0.7)
            continue
        for engine in engines.values():
            await until_ready(engine, new)
            assert (await call(engine, first))["version"] == "1"
    assert made[0] in [r["metadata"]["uid"] for r in setting.api.objects(KREVISION)]
    await until(lambda: len(setting.api.objects(KREVISION)) == 2)


async def test_a_model_deleted_at_a_follower_and_unknown_to_the_next_leader_is_swept(
    setting: Setting, tmp_path: Path
) -> None:
    leadership = Leadership()
    old = await setting.engine(tmp_path, leads=leadership.of("a"))
    new = await setting.engine(tmp_path, leads=leadership.of("b"))
    first = make_revision(1)
    await old.apply(make_service(first))
    await until_ready(old, first)
    new.complete()
    leadership.leader = "b"
    await until(lambda: left_over(setting) == [])


async def test_everything_asked_of_the_api_server_is_in_the_role(setting: Setting, tmp_path: Path) -> None:
    engine = await setting.engine(tmp_path)
    engine.complete()
    first, broken = make_revision(1), make_revision(2, runtime="exits")
    await engine.apply(make_service(first, broken))
    await until_ready(engine, first)
    await until_failed(engine, broken)
    await engine.apply(make_service(dataclasses.replace(first, proven=True), to=first))
    await until(lambda: len(setting.api.objects(KREVISION)) == 1)
    setting.quotas.clear()
    await engine.delete(KEY)
    await until(lambda: not setting.api.get("Namespace", "roost-acme"))
    assert {(asked.verb, asked.resource) for asked in setting.api.asked} == ALLOWED


async def test_a_policy_over_the_clusters_limits_is_refused(setting: Setting, tmp_path: Path) -> None:
    def limit(config: dict) -> None:
        config["data"]["max-scale-limit"] = "5"

    setting.api.edit("ConfigMap", "config-autoscaler", "knative-serving", limit)
    engine = await setting.engine(tmp_path)
    await until(lambda: _refuses(engine, ScalingPolicy(max_scale=6)))
    engine.check(ScalingPolicy(max_scale=5))


def _refuses(engine: object, policy: ScalingPolicy) -> bool:
    try:
        engine.check(policy)
    except InvalidRequest:
        return True
    return False
