"""Splits, rollbacks, aliases and versions that wait, on a real database; and the log that says who did it."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import delete, select, text, update
from sqlalchemy.exc import DBAPIError

from gateway_parts import IRIS, Parts, gateway_parts, route_of, serving, states_of
from roost_gateway.deployments.store import REVISIONS_KEPT
from roost_gateway.deployments.traffic import Split
from roost_gateway.predict.headers import sort_headers
from roost_platform.database.history import history, read_history
from roost_platform.domain.errors import Conflict, InvalidRequest, NotFound, Unavailable
from roost_platform.domain.routing import Rule, Sticky, StickyBy

pytestmark = pytest.mark.usefixtures("each_database")
NOBODY = sort_headers([])


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    async with gateway_parts(tmp_path) as made:
        await made.add_tenant()
        yield made


async def entries(parts: Parts) -> list[tuple[str, str, dict, dict]]:
    """The oldest first."""
    found = await parts.database.read(read_history, IRIS, limit=100)
    return [(entry.by, entry.what, dict(entry.before), dict(entry.after)) for entry in reversed(found)]


async def test_a_split_holds_for_the_next_call_and_is_written_down(parts: Parts):
    _, first = await parts.serve()
    _, second = await parts.serve()
    await parts.deployments.split(IRIS, Split({"1": 90, "2": 10}), by="k1")
    assert serving(parts) == {first: 90, second: 10}
    chosen = Counter(route_of(parts).revision_for(None, NOBODY).name for _ in range(200))
    assert chosen == {first: 180, second: 20}
    assert parts.engine.applied[-1].traffic == route_of(parts).service.traffic
    assert (await entries(parts))[-1] == (
        "k1",
        "traffic",
        {"traffic": {"2": 100}},
        {"traffic": {"1": 90, "2": 10}},
    )
    await parts.deployments.rollback(IRIS, 1, by="k2")
    assert serving(parts) == {first: 100}
    assert (await entries(parts))[-1] == (
        "k2",
        "rollback",
        {"traffic": {"1": 90, "2": 10}},
        {"traffic": {"1": 100}},
    )


async def test_what_changes_nothing_is_not_written_down(parts: Parts):
    await parts.serve()
    await parts.deployments.split(IRIS, Split({"1": 100}))
    await parts.deployments.split(IRIS, Split(rules=()))
    await parts.deployments.scale(IRIS, {"min-scale": 0})
    assert {what for _, what, _, _ in await entries(parts)} == {"deploy", "ready"}


async def test_a_share_of_nothing_is_no_share(parts: Parts):
    _, first = await parts.serve()
    await parts.serve()
    await parts.deployments.split(IRIS, Split({"1": 100, "2": 0}))
    assert serving(parts) == {first: 100}


@pytest.mark.parametrize(
    ("percents", "error"),
    [
        ({"1": 50, "2": 40}, InvalidRequest),
        ({"1": 110, "2": -10}, InvalidRequest),
        ({}, InvalidRequest),
        ({"1": 50, "9": 50}, NotFound),
        ({"1": 50, "nobody": 50}, NotFound),
        ({"1": 50, "stable": 50}, InvalidRequest),  # the same version twice
        ({"1": 50, "2": 50}, Conflict),  # which failed
        ({"1": 50, "3": 50}, Conflict),  # which is being deployed
    ],
)
async def test_a_split_that_cannot_be_changes_nothing(parts: Parts, percents: dict[str, int], error: type[Exception]):
    _, first = await parts.serve()
    parts.engine.broken(await parts.deploy(await parts.add_version()))
    await parts.deployments.settled(IRIS)
    await parts.deploy(await parts.add_version())
    await parts.deployments.set_alias(IRIS, "stable", 1)
    before = await entries(parts)
    with pytest.raises(error):
        await parts.deployments.split(IRIS, Split(percents, rules=[Rule("x-tester", "1", 1)]))
    assert (serving(parts), route_of(parts).routing.rules) == ({first: 100}, ())
    assert await entries(parts) == before


async def test_a_split_of_no_model_is_not_found(parts: Parts):
    for change in (
        parts.deployments.split(IRIS, Split({"1": 100})),
        parts.deployments.set_alias(IRIS, "stable", 1),
        parts.deployments.rollback(IRIS, 1),
    ):
        with pytest.raises(NotFound):
            await change


async def test_what_is_being_deployed_does_not_take_a_split_away(parts: Parts):
    _, first = await parts.serve()
    _, second = await parts.serve()
    third = await parts.deploy(await parts.add_version())
    await parts.deployments.split(IRIS, Split({"1": 50, "2": 50}))
    parts.engine.ready(third)
    await parts.deployments.settled(IRIS)
    assert states_of(parts)[third] == "ready"
    assert serving(parts) == {first: 50, second: 50}
    assert route_of(parts).revision_for(3, NOBODY).name == third


async def test_a_version_that_waits_takes_no_traffic_until_it_is_asked_for(parts: Parts):
    _, first = await parts.serve()
    number = await parts.add_version()
    second = await parts.deploy(number, takes_traffic=False)
    parts.engine.ready(second)
    await parts.deployments.settled(IRIS)
    assert (serving(parts), states_of(parts)[second]) == ({first: 100}, "ready")
    assert await parts.deploy(number, by="k1") == second
    assert serving(parts) == {second: 100}
    assert (await entries(parts))[-1] == ("k1", "traffic", {"traffic": {"1": 100}}, {"traffic": {"2": 100}})


async def test_a_version_under_way_that_was_to_wait_may_be_asked_for_again(parts: Parts):
    await parts.serve()
    number = await parts.add_version()
    second = await parts.deploy(number, takes_traffic=False)
    assert await parts.deploy(number) == second
    parts.engine.ready(second)
    await parts.deployments.settled(IRIS)
    assert serving(parts) == {second: 100}


async def test_a_rollback_lets_a_deployment_go_on_that_only_waits(parts: Parts):
    _, first = await parts.serve()
    await parts.serve()
    third = await parts.deploy(await parts.add_version(), takes_traffic=False)
    await parts.deployments.rollback(IRIS, 1)
    parts.engine.ready(third)
    await parts.deployments.settled(IRIS)
    assert (serving(parts), states_of(parts)[third]) == ({first: 100}, "ready")


async def test_the_first_version_takes_the_traffic_in_any_case(parts: Parts):
    name = await parts.deploy(await parts.add_version(), takes_traffic=False)
    parts.engine.ready(name)
    await parts.deployments.settled(IRIS)
    assert serving(parts) == {name: 100}


async def test_rules_and_what_sticks_outlive_the_splits_and_a_restart(parts: Parts, tmp_path: Path):
    _, first = await parts.serve()
    _, second = await parts.serve()
    rules, sticky = (Rule("x-tester", "yes", 1),), Sticky(StickyBy.HEADER, "x-user")
    await parts.deployments.split(IRIS, Split({"2": 100}, rules=rules, sticky=sticky, keep_sticky=False))
    await parts.deployments.split(IRIS, Split({"1": 50, "2": 50}))
    async with gateway_parts(tmp_path) as again:
        for each in (parts, again):
            route = route_of(each)
            assert (route.routing.rules, route.routing.sticky) == (rules, sticky)
            users = [sort_headers([(b"x-user", b"%d" % n)]) for n in range(50)]
            assert {route.revision_for(None, user).name for user in users} == {first, second}
            assert route.revision_for(None, sort_headers([(b"x-tester", b"yes")])).name == first
        theirs = [route_of(again).revision_for(None, user).name for user in users]
        assert theirs == [route_of(parts).revision_for(None, user).name for user in users]
    await parts.deployments.split(IRIS, Split(rules=(), sticky=None, keep_sticky=False))
    assert (route_of(parts).routing.rules, route_of(parts).routing.sticky) == ((), None)
    assert serving(parts) == {first: 50, second: 50}
    by, what, before, after = (await entries(parts))[-1]
    assert (by, what, set(before), after) == ("roost", "traffic", {"rules", "sticky"}, {})


async def test_an_alias_is_usable_moves_and_goes(parts: Parts):
    _, first = await parts.serve()
    _, second = await parts.serve()
    await parts.deployments.set_alias(IRIS, "stable", 1, by="k1")
    assert route_of(parts).revision_for("stable", NOBODY).name == first
    await parts.deployments.split(IRIS, Split({"stable": 60, "2": 40}))
    assert serving(parts) == {first: 60, second: 40}
    await parts.deployments.set_alias(IRIS, "stable", 2, by="k1")
    assert route_of(parts).revision_for("stable", NOBODY).name == second
    await parts.deployments.set_alias(IRIS, "stable", None, by="k1")
    with pytest.raises(NotFound):
        route_of(parts).revision_for("stable", NOBODY)
    told = [entry[2:] for entry in await entries(parts) if entry[1] == "alias"]
    assert told == [({}, {"stable": 1}), ({"stable": 1}, {"stable": 2}), ({"stable": 2}, {})]
    for name, version, error in (("stable", None, NotFound), ("other", 9, NotFound), ("1x", 1, InvalidRequest)):
        with pytest.raises(error):
            await parts.deployments.set_alias(IRIS, name, version)


async def test_what_an_alias_or_a_rule_names_is_kept(parts: Parts):
    for _ in range(3):
        await parts.serve()
    await parts.deployments.set_alias(IRIS, "best", 1)
    await parts.deployments.split(IRIS, Split(rules=[Rule("x-tester", "1", 2)]))
    for _ in range(REVISIONS_KEPT):
        await parts.serve()
    kept = {record.revision.version for record in route_of(parts).records}
    assert {1, 2} <= kept
    assert 3 not in kept


async def test_every_change_is_in_the_log_also_when_the_model_is_gone(parts: Parts):
    number, name = await parts.serve()
    broken = await parts.deploy(await parts.add_version(), by="k2")
    parts.engine.broken(broken, "LoadFailed", "no")
    await parts.deployments.settled(IRIS)
    await parts.deployments.scale(IRIS, {"min-scale": 2}, by="operator")
    await parts.deployments.delete(IRIS, by="k1")
    assert await entries(parts) == [
        ("roost", "deploy", {}, {"version": number, "revision": name, "traffic": True}),
        ("roost", "ready", {"traffic": {}}, {"traffic": {"1": 100}}),
        ("k2", "deploy", {}, {"version": 2, "revision": broken, "traffic": True}),
        ("roost", "failed", {}, {"version": 2, "revision": broken, "reason": "LoadFailed: no"}),
        ("operator", "scale", {"min-scale": 0}, {"min-scale": 2}),
        ("k1", "delete", {"versions": [1, 2]}, {}),
    ]


async def test_the_log_cannot_be_edited(parts: Parts):
    await parts.serve()
    before = await entries(parts)
    changes = [update(history).values(by="nobody"), delete(history)]
    if not parts.database.shared:
        changes.append(
            text(
                "INSERT OR REPLACE INTO history SELECT id, tenant, model, at, 'nobody', what, before, after FROM history"
            )
        )
    for change in changes:
        with pytest.raises((DBAPIError, Unavailable)):
            await parts.database.write(lambda connection, change=change: connection.execute(change))
    assert await entries(parts) == before


async def test_the_log_is_read_from_the_newest_and_in_pages(parts: Parts):
    for _ in range(3):
        await parts.serve()
    whole = await parts.database.read(read_history, IRIS, limit=100)
    assert [entry.id for entry in whole] == sorted((entry.id for entry in whole), reverse=True)
    paged: list[int] = []
    while page := await parts.database.read(read_history, IRIS, limit=2, before=paged[-1] if paged else None):
        paged += [entry.id for entry in page]
    assert paged == [entry.id for entry in whole]


async def test_a_split_that_is_refused_by_the_database_leaves_no_entry(parts: Parts):
    await parts.serve()
    await parts.serve()
    before = await entries(parts)
    # Nothing can be written to the log: then nothing is changed either.
    await parts.database.write(lambda connection: connection.execute(text("ALTER TABLE history RENAME TO elsewhere")))
    with pytest.raises((DBAPIError, Unavailable)):
        await parts.deployments.split(IRIS, Split({"1": 50, "2": 50}))
    await parts.database.write(lambda connection: connection.execute(text("ALTER TABLE elsewhere RENAME TO history")))
    assert await entries(parts) == before
    assert list(serving(parts).values()) == [100]


async def test_changes_at_once_are_one_after_the_other(parts: Parts):
    await parts.serve()
    await parts.serve()
    wishes = [Split({"1": n, "2": 100 - n}) for n in range(10, 20)]
    await asyncio.gather(*(parts.deployments.split(IRIS, wish, by=f"k{n}") for n, wish in enumerate(wishes)))
    told = [entry for entry in await entries(parts) if entry[1] == "traffic"]
    assert len(told) == 10
    assert all(one[3] == two[2] for one, two in itertools.pairwise(told))
    stored = await parts.database.read(lambda c: c.execute(select(history.c.by).order_by(history.c.id.desc())).scalar())
    assert stored == told[-1][0]
