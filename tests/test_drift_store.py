"""What of drift is kept, on both databases: written again it is the same, and what is about nothing is not written."""

from datetime import timedelta

import pytest

from gateway_parts import IRIS, NOON, Parts, gateway_parts
from roost_platform.domain.errors import NotFound
from roost_platform.domain.services import ServiceKey
from roost_platform.drift import store
from roost_platform.drift.profiles import Counted, Profile, features_of
from roost_platform.drift.quality import Judged, Sums
from roost_platform.drift.store import Answer, VersionKey, Window

COLUMNS = {"input.x": [float(value) for value in range(200)], "output.y": ["a", "b"] * 100}
ONE, GONE = VersionKey(IRIS, 1), VersionKey(IRIS, 9)


@pytest.fixture
async def parts(tmp_path, each_database):
    async with gateway_parts(tmp_path) as made:
        await made.add_tenant()
        await made.add_version()
        yield made


def profile(name: str) -> Profile:
    return Profile(name, NOON, "calls", 200, features_of(COLUMNS))


async def put(parts: Parts, *windows: Window, source: str = "a", answers=(), made: Profile | None = None) -> None:
    found = {} if made is None else {ONE: made}
    await parts.database.write(store.put_harvest, source, found, windows, answers)


async def test_the_first_reference_stays_until_there_is_a_new_one(parts: Parts):
    await put(parts, made=profile("first"))
    await put(parts, made=profile("late"))
    assert await parts.database.read(store.profile_ids) == {ONE: "first"}
    counted = Counted({}).seen(profile("first"), COLUMNS, 200)
    await put(parts, Window(ONE, NOON, "first", counted))
    await parts.database.write(store.put_profile, ONE, profile("new"), anew=True)
    assert await parts.database.read(store.profiles_of, [ONE, GONE]) == {ONE: profile("new")}
    assert await parts.database.read(store.windows_of, NOON) == {}
    with pytest.raises(NotFound):
        await parts.database.write(store.put_profile, GONE, profile("new"), anew=True)


async def test_hours_are_written_whole_by_each_gateway(parts: Parts):
    kept = profile("p")
    once, twice = Counted({}).seen(kept, COLUMNS, 200), Counted({}).seen(kept, COLUMNS, 200).seen(kept, COLUMNS, 200)
    for counted in (once, twice, twice):
        await put(parts, Window(ONE, NOON, "p", counted), Window(GONE, NOON, "p", once), made=kept)
    await put(parts, Window(ONE, NOON - timedelta(hours=1), "p", once), source="b")
    found = await parts.database.read(store.windows_of, NOON - timedelta(hours=2), model=IRIS)
    assert found == {(ONE, "p"): [(NOON, twice.to_json()), (NOON - timedelta(hours=1), once.to_json())]}
    assert list(await parts.database.read(store.windows_of, NOON)) == [(ONE, "p")]
    await parts.database.write(store.forget_old, NOON + timedelta(days=36))
    assert await parts.database.read(store.windows_of, NOON - timedelta(days=2)) == {}


async def test_feedback_counts_once_and_is_added_up(parts: Parts):
    await put(parts, answers=[Answer(ONE, "r1", NOON, ["a", "b"]), Answer(GONE, "r2", NOON, [1.0])])
    told = [
        Judged("r1", ["a", "a"], "north"),
        Judged("r1", ["a", "a"], "north"),
        Judged("r2", [1]),
        Judged("r3", [1.0, 4.0], "", 1, [2.0, 2.0]),
        Judged("r4", [1.0], "", 9, [2.0]),
    ]
    counted = await parts.database.write(store.judge, IRIS, told, NOON)
    assert counted == {"taken": 2, "again": 1, "unknown": 2}
    assert await parts.database.write(store.judge, IRIS, [Judged("r5", [3], "north", 1, [3])], NOON) == {
        "taken": 1, "again": 0, "unknown": 0,
    }  # fmt: skip
    assert await parts.database.read(store.quality_of, IRIS, NOON) == {
        (1, "2026-11-03", "north"): Sums(3, 2, 1, 3, 3, 0),
        (1, "2026-11-03", ""): Sums(2, 0, 2, 4, 5, 3),
    }
    assert await parts.database.read(store.quality_by_version, NOON) == {ONE: Sums(5, 2, 3, 7, 8, 3)}


async def test_only_so_many_groups_of_a_day_are_told_apart(parts: Parts):
    told = [Judged(f"r{place}", [1], f"g{place}", 1, [1]) for place in range(store.MOST_GROUPS + 3)]
    await parts.database.write(store.judge, IRIS, told, NOON)
    found = await parts.database.read(store.quality_of, IRIS, NOON)
    assert len(found) == store.MOST_GROUPS + 1
    assert found[1, "2026-11-03", ""].answers == 3


async def test_settings_are_of_models_that_there_are_and_go_with_them(parts: Parts):
    await parts.database.write(store.put_settings, IRIS, {"rate": 1})
    await parts.database.write(store.put_settings, IRIS, {"rate": 2})
    assert await parts.database.read(store.settings_of) == {IRIS: {"rate": 2}}
    with pytest.raises(NotFound):
        await parts.database.write(store.put_settings, ServiceKey("acme", "none"), {})
    await parts.deploy(1)
    await parts.deployments.delete(IRIS)
    assert await parts.database.read(store.settings_of) == {}
