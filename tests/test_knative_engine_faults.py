"""The Knative engine while the API server is away, slow, forgetful or wrong (rows L14 to L16), and with hand edits."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from knative_engine_parts import (
    KEY,
    KREVISION,
    KSERVICE,
    NAMESPACE,
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
from roost_platform.domain.errors import Unavailable
from roost_platform.domain.services import Readiness, Revision, ServiceKey
from roost_platform.domain.tenants import Quota
from roost_platform.engines.knative.engine import KnativeEngine


@pytest.fixture
async def setting() -> AsyncIterator[Setting]:
    async with Setting() as setting:
        yield setting


@pytest.fixture
async def running(setting: Setting, tmp_path: Path) -> tuple[KnativeEngine, Revision]:
    """An engine with one model that serves."""
    engine = await setting.engine(tmp_path)
    first = make_revision(1)
    await engine.apply(make_service(first, to=first))
    await until_ready(engine, first)
    first = dataclasses.replace(first, proven=True)
    await engine.apply(make_service(first, to=first))
    return engine, first


async def test_l14_models_serve_on_without_the_api_server_and_wishes_are_followed_when_it_is_back(
    setting: Setting, running: tuple[KnativeEngine, Revision]
) -> None:
    engine, first = running
    await setting.api.vanish()
    assert (await call(engine, first))["version"] == "1"
    second = make_revision(2)
    await engine.apply(make_service(first, second, to=first))
    await asyncio.sleep(0.5)
    assert (await call(engine, first))["version"] == "1"
    assert status_of(engine, second).ready is Readiness.UNKNOWN
    await setting.api.come_back()
    await until_ready(engine, second)
    assert len(setting.api.objects(KREVISION)) == 2


async def test_l14_an_engine_that_starts_without_the_api_server_serves_what_worked_before(
    setting: Setting, running: tuple[KnativeEngine, Revision], tmp_path: Path
) -> None:
    _, first = running
    await setting.api.vanish()
    late = await setting.engine(tmp_path, start_s=0.2)
    await late.apply(make_service(first, to=first))
    assert (await call(late, first))["version"] == "1"
    await setting.api.come_back()
    await until(lambda: status_of(late, first).running == 1)


async def test_l14_a_deletion_that_cannot_reach_the_cluster_says_so_and_the_model_serves_on(
    setting: Setting, tmp_path: Path
) -> None:
    engine = await setting.engine(tmp_path, patience_s=0.5)
    first = make_revision(1)
    await engine.apply(make_service(first, to=first))
    await until_ready(engine, first)
    await setting.api.vanish()
    with pytest.raises(Unavailable) as refused:
        await engine.delete(KEY)
    assert refused.value.code == "cluster_unreachable"
    first = dataclasses.replace(first, proven=True)
    await engine.apply(make_service(first, to=first))
    assert (await call(engine, first))["version"] == "1"
    await setting.api.come_back()
    await engine.delete(KEY)
    assert left_over(setting) == []


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500, "times": 8},
        {"status": 429, "times": 3, "retry_after_s": 1},
        {"status": 409, "times": 3, "verb": "patch"},
        {"status": 503, "times": 8, "verb": "patch"},
    ],
)
async def test_l14_refusals_of_a_moment_cost_time_only(setting: Setting, tmp_path: Path, fault: dict[str, Any]) -> None:
    engine = await setting.engine(tmp_path)
    setting.api.fail(**fault)
    first = make_revision(1)
    await engine.apply(make_service(first))
    await until_ready(engine, first)
    assert len(setting.services()) == len(setting.api.objects(KREVISION)) == 1


@pytest.mark.parametrize("done", [True, False])
async def test_l14_a_connection_that_breaks_makes_no_duplicates(setting: Setting, tmp_path: Path, done: bool) -> None:
    engine = await setting.engine(tmp_path)
    setting.api.cut(done=done, times=10, verb="patch")
    first = make_revision(1)
    await engine.apply(make_service(first))
    await until_ready(engine, first)
    assert len(setting.services()) == len(setting.api.objects(KREVISION)) == 1
    setting.api.cut(done=done, times=4, verb="delete")
    await engine.delete(KEY)
    assert left_over(setting) == []


async def test_l14_a_token_that_expired_is_read_again(
    setting: Setting, running: tuple[KnativeEngine, Revision]
) -> None:
    engine, first = running
    setting.token_file.write_text(setting.api.expire_token())
    setting.api.drop_connections()
    second = make_revision(2)
    await engine.apply(make_service(first, second, to=first))
    await until_ready(engine, second)


@pytest.mark.parametrize("trouble", ["forget", "expire", "drop", "replay", "stall"])
async def test_l15_a_watch_that_fails_in_some_way_is_taken_up_again(
    setting: Setting, tmp_path: Path, trouble: str
) -> None:
    engine = await setting.engine(tmp_path, watch_s=1.0)
    first = make_revision(1)
    await engine.apply(make_service(first, to=first))
    await until_ready(engine, first)
    first = dataclasses.replace(first, proven=True)
    api = setting.api
    if trouble == "stall":
        api.stall_watches()
    elif trouble == "replay":
        api.replay(100)
    elif trouble == "expire":
        api.expire_watches()
    else:
        if trouble == "forget":
            api.forget_history()
        api.drop_connections()
    second = make_revision(2)
    await engine.apply(make_service(first, second, to=first))
    if trouble == "stall":
        await asyncio.sleep(1.5)
        api.resume_watches()
    await until_ready(engine, second)
    assert status_of(engine, first).ready is Readiness.TRUE
    assert len(setting.services()) == 1


async def test_l15_a_stalled_watch_does_not_keep_the_engine_from_the_truth(tmp_path: Path) -> None:
    """Every list is the truth again, even while no watch gives a byte."""
    async with Setting(resync_s=1.0) as setting:
        engine = await setting.engine(tmp_path, watch_s=0.5)
        setting.api.stall_watches()
        first = make_revision(1)
        await engine.apply(make_service(first))
        await until_ready(engine, first)


def _traffic_by_hand(service: dict[str, Any]) -> None:
    service["spec"]["traffic"] = [{"latestRevision": True, "percent": 100}]


def _label_by_hand(service: dict[str, Any]) -> None:
    del service["metadata"]["labels"]["app.kubernetes.io/managed-by"]


def _visibility_by_hand(service: dict[str, Any]) -> None:
    service["metadata"]["labels"]["networking.knative.dev/visibility"] = "open"


@pytest.mark.parametrize("edit", [_traffic_by_hand, _label_by_hand, _visibility_by_hand])
async def test_l16_an_edit_by_hand_is_undone(
    setting: Setting, running: tuple[KnativeEngine, Revision], edit: Any
) -> None:
    engine, first = running
    await until(lambda: setting.service()["spec"]["traffic"][0].get("tag") == "v1")
    wished = setting.service()
    setting.api.edit(KSERVICE, KEY.model, NAMESPACE, edit)

    def is_repaired() -> bool:
        now = setting.service()
        return bool(now["spec"] == wished["spec"] and now["metadata"]["labels"] == wished["metadata"]["labels"])

    assert not is_repaired()
    await until(is_repaired)
    assert (await call(engine, first))["version"] == "1"


@pytest.mark.parametrize("what", ["service", "namespace", "secret"])
async def test_l16_what_is_deleted_by_hand_is_made_again(tmp_path: Path, what: str) -> None:
    """A Secret is not watched, nor may it be: it is written again with everything else, every few minutes."""
    async with Setting(resync_s=2.0 if what == "secret" else 300.0) as setting:
        engine = await setting.engine(tmp_path)
        first = make_revision(1)
        await engine.apply(make_service(first, to=first))
        await until_ready(engine, first)
        first = dataclasses.replace(first, proven=True)
        await engine.apply(make_service(first, to=first))
        old = setting.service()["metadata"]["uid"]
        if what == "service":
            setting.api.remove(KSERVICE, KEY.model, NAMESPACE)
        elif what == "namespace":
            setting.api.remove("Namespace", NAMESPACE)
        else:
            setting.api.remove("Secret", "iris-secret", NAMESPACE)
            await until(lambda: setting.api.get("Secret", "iris-secret", NAMESPACE) is not None)
            return
        await until(lambda: (now := setting.api.get(KSERVICE, KEY.model, NAMESPACE)) and now["metadata"]["uid"] != old)
        assert (await call(engine, first))["version"] == "1"


async def test_what_nobody_wishes_is_swept_once_everything_is_known(
    setting: Setting, running: tuple[KnativeEngine, Revision], tmp_path: Path
) -> None:
    engine, first = running
    other = ServiceKey("gone", "lost")
    setting.quotas["gone"] = Quota()
    await engine.apply(make_service(make_revision(1), key=other))
    await until(lambda: len(setting.services()) == 2)
    await engine.stop()
    del setting.quotas["gone"]

    late = await setting.engine(tmp_path)
    await late.apply(make_service(first, to=first))
    await asyncio.sleep(1.5)
    assert len(setting.services()) == 2
    late.complete()
    await until(lambda: setting.api.get("Namespace", "roost-gone") is None)
    assert [s["metadata"]["name"] for s in setting.services()] == [KEY.model]
    assert (await call(late, first))["version"] == "1"


async def test_somebody_elses_namespace_is_not_touched(setting: Setting, tmp_path: Path) -> None:
    setting.api.create(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": {"is": "mine"}}}
    )
    before = setting.api.get("Namespace", NAMESPACE)
    engine = await setting.engine(tmp_path)
    engine.complete()
    first = make_revision(1)
    await engine.apply(make_service(first))
    status = await until_failed(engine, first)
    assert status.reason == "NameTaken"
    await engine.delete(KEY)
    assert setting.api.get("Namespace", NAMESPACE) == before
    assert left_over(setting) == []


async def test_somebody_elses_service_is_not_touched(setting: Setting, tmp_path: Path) -> None:
    engine = await setting.engine(tmp_path)
    await engine.apply(make_service(make_revision(1), key=ServiceKey(KEY.tenant, "first")))
    await until(lambda: len(setting.services()) == 1)
    theirs = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": KEY.model, "namespace": NAMESPACE},
        "spec": {"template": {"spec": {"containers": [{"image": "dev.local/theirs"}]}}},
    }
    setting.api.create(theirs, manager="kubectl")
    first = make_revision(1)
    await engine.apply(make_service(first))
    assert (await until_failed(engine, first)).reason == "NameTaken"
    await engine.delete(KEY)
    spec = setting.service()["spec"]["template"]["spec"]
    assert spec["containers"][0]["image"] == "dev.local/theirs"
