"""Why a model is not ready: what the engine makes of what goes wrong in the cluster (rows K10 to K13)."""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from knative_engine_parts import (
    KEY,
    KREVISION,
    NAMESPACE,
    Setting,
    call,
    fall_asleep,
    make_revision,
    make_service,
    raw_call,
    status_of,
    until,
    until_failed,
    until_ready,
)
from roost_platform.domain.errors import Unavailable
from roost_platform.domain.services import Readiness, Revision, RevisionKey
from roost_platform.domain.tenants import Quota
from roost_platform.engines.knative.engine import KnativeEngine
from roost_platform.engines.knative.names import REVISION


@pytest.fixture
async def setting() -> AsyncIterator[Setting]:
    async with Setting() as setting:
        yield setting


async def test_k10_who_waits_for_a_model_that_never_gets_ready_is_told_with_all_others(tmp_path: Path) -> None:
    async with Setting(start_timeout_s=1) as setting:
        engine = await setting.engine(tmp_path)
        never = make_revision(1, runtime="never-ready")
        await engine.apply(make_service(never))

        async def refused_at() -> float:
            with pytest.raises(Unavailable, match="StartTimeout"):
                await raw_call(engine, never)
            return time.monotonic()

        ends = await asyncio.gather(*(refused_at() for _ in range(20)))

        assert max(ends) - min(ends) <= 0.2
        status = status_of(engine, never)
        assert (status.ready, status.reason) == (Readiness.FALSE, "StartTimeout")


async def test_k11_a_model_that_exits_at_start_says_so_with_its_last_lines(setting: Setting, tmp_path: Path) -> None:
    engine = await setting.engine(tmp_path)
    broken = make_revision(1, runtime="exits")
    await engine.apply(make_service(broken))
    began = time.monotonic()
    status = await until_failed(engine, broken)
    assert time.monotonic() - began < 10
    assert (status.reason, status.message) == ("ExitedAtStart", "the process exited with status 3")
    assert status.log == (*(f"line {n}" for n in range(6, 25)), "about to exit")
    assert engine.log(RevisionKey(KEY, broken.name), 2) == ["line 24", "about to exit"]
    with pytest.raises(Unavailable, match="status 3") as refused:
        await raw_call(engine, broken)
    assert (refused.value.code, refused.value.retry_after_s) == ("not_ready", 30)


async def test_k12_an_image_that_cannot_be_pulled_is_named_and_the_old_version_serves_on(
    setting: Setting, tmp_path: Path
) -> None:
    engine, old = await _with_old(setting, tmp_path)
    broken = make_revision(2, runtime="unknown-image")
    await engine.apply(make_service(old, broken, to=old, window=6))
    await until(lambda: status_of(engine, broken).reason == "ImageMissing")
    assert "dev.local/unknown" in status_of(engine, broken).message
    assert (await call(engine, old))["version"] == "1"


async def test_k12_a_runtime_without_an_image_fails_at_once(setting: Setting, tmp_path: Path) -> None:
    engine, old = await _with_old(setting, tmp_path)
    broken = make_revision(2, runtime="nothing")
    await engine.apply(make_service(old, broken, to=old, window=6))
    assert (status_of(engine, broken).ready, status_of(engine, broken).reason) == (Readiness.FALSE, "RuntimeMissing")
    assert (await call(engine, old))["version"] == "1"


async def test_k13_a_quota_that_is_used_up_is_named_and_the_old_version_serves_on(
    setting: Setting, tmp_path: Path
) -> None:
    setting.quotas[KEY.tenant] = Quota(replicas=1)
    engine, old = await _with_old(setting, tmp_path)
    second = make_revision(2)
    await engine.apply(make_service(old, second, to=old, window=6))
    await until(lambda: status_of(engine, second).reason == "QuotaExceeded")
    assert "pods=1" in status_of(engine, second).message
    assert status_of(engine, second).ready is Readiness.UNKNOWN
    assert (await call(engine, old))["version"] == "1"
    with pytest.raises(Unavailable) as refused:
        await raw_call(engine, second, within=0.5)
    assert refused.value.code == "no_capacity"


async def test_k13_what_knative_gives_up_and_is_made_anew_gets_no_new_patience(
    setting: Setting, tmp_path: Path
) -> None:
    """Knative loses hope after the start limit; a revision that is then made again is in the same trouble still."""
    setting.quotas[KEY.tenant] = Quota(replicas=1)
    later_s = 0.0
    engine, old = await _with_old(setting, tmp_path, clock=lambda: time.monotonic() + later_s)
    second = make_revision(2)
    await engine.apply(make_service(old, second, to=old, window=6))
    await until(lambda: status_of(engine, second).reason == "QuotaExceeded")

    def made() -> str | None:
        found = [r for r in setting.api.objects(KREVISION) if r["metadata"]["labels"][REVISION] == second.name]
        return found[0]["metadata"]["uid"] if found else None

    first = made()
    later_s = 100.0
    assert status_of(engine, second).ready is Readiness.UNKNOWN
    [given_up] = [r["metadata"]["name"] for r in setting.api.objects(KREVISION) if r["metadata"]["uid"] == first]
    setting.api.remove(KREVISION, given_up, NAMESPACE)
    await until(lambda: made() not in (None, first) and status_of(engine, second).reason == "QuotaExceeded")
    assert status_of(engine, second).ready is Readiness.UNKNOWN
    later_s = 125.0
    await until(lambda: status_of(engine, second).ready is Readiness.FALSE)
    assert (await call(engine, old))["version"] == "1"


async def test_k13_a_node_without_room_is_named_and_the_old_version_serves_on(tmp_path: Path) -> None:
    async with Setting(cpu_request_m=40_000, cpu_limit_m=50_000) as setting:
        engine, old = await _with_old(setting, tmp_path)
        second = make_revision(2)
        await engine.apply(make_service(old, second, to=old, window=6))
        await until(lambda: status_of(engine, second).reason == "Unschedulable")
        assert "Insufficient cpu" in status_of(engine, second).message
        assert (await call(engine, old))["version"] == "1"


async def test_a_field_that_the_cluster_does_not_allow_is_named(tmp_path: Path) -> None:
    async with Setting(runtime_class="gvisor") as setting:
        engine = await setting.engine(tmp_path)
        first = make_revision(1)
        await engine.apply(make_service(first))
        status = await until_failed(engine, first)
        assert status.reason == "FeatureDisabled"
        assert "kubernetes.podspec-runtimeclassname" in status.message


async def test_calls_that_wake_a_model_in_vain_are_told_why_and_it_recovers(setting: Setting, tmp_path: Path) -> None:
    engine, old = await _with_old(setting, tmp_path)
    await fall_asleep(setting)
    commands = setting.knative.kubelet.commands
    assert isinstance(commands, dict)
    works, commands["dev.local/onnx-cpu"] = commands["dev.local/onnx-cpu"], commands["dev.local/exits"]
    try:
        with pytest.raises(Unavailable, match="ExitedAtStart"):
            await raw_call(engine, old)
        assert status_of(engine, old).ready is Readiness.FALSE
        await fall_asleep(setting)
    finally:
        commands["dev.local/onnx-cpu"] = works
    assert status_of(engine, old).ready is Readiness.FALSE
    assert (await call(engine, old))["version"] == "1"
    await until(lambda: status_of(engine, old).ready is Readiness.TRUE)


async def _with_old(
    setting: Setting, folder: Path, clock: Callable[[], float] = time.monotonic
) -> tuple[KnativeEngine, Revision]:
    engine = await setting.engine(folder, clock=clock)
    old = make_revision(1)
    await engine.apply(make_service(old, to=old, window=6))
    await until_ready(engine, old)
    old = dataclasses.replace(old, proven=True)
    await engine.apply(make_service(old, to=old, window=6))
    return engine, old
