"""What one gateway changes, the others do: tenants, keys, routes, traffic, scaling, deletions; missed nudges and outages too."""

import asyncio
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import select

from gateway_parts import IRIS, Parts, ScriptedEngine, route_of, serving, states_of, until
from gateways_parts import gateway, gateways
from postgres_faults import PostgresProxy
from postgres_server import execute, shared_server
from roost_gateway.deployments.traffic import Split
from roost_gateway.predict.headers import sort_headers
from roost_gateway.predict.taps import Taps
from roost_platform.database.changes import Change, ChangeFeed, note_change
from roost_platform.database.connection import Database
from roost_platform.database.tables import changes
from roost_platform.domain.errors import Conflict, NotFound, Unauthenticated
from roost_platform.domain.routing import Routing, Rule, Sticky, StickyBy
from roost_platform.domain.services import ServiceKey
from roost_platform.domain.shadows import ShadowPlan
from roost_platform.domain.tenants import Scope


def bearer(secret: str) -> list[bytes]:
    return [f"Bearer {secret}".encode()]


def works(parts: Parts, secret: str) -> bool:
    try:
        return parts.authenticator.identify(bearer(secret)).tenant == "acme"
    except Unauthenticated:
        return False


def known(parts: Parts) -> bool:
    return parts.directory.route(*IRIS) is not None


def traffic(parts: Parts) -> dict[str, int]:
    route = parts.directory.route(*IRIS)
    return {t.revision: t.percent for t in route.service.traffic} if route else {}


def caller_s(parts: Parts, headers: list[tuple[bytes, bytes]]) -> str:
    """The revision that a caller with these headers gets."""
    return route_of(parts).revision_for(None, sort_headers(headers)).name


async def test_tenants_and_keys_are_the_same_everywhere(tmp_path: Path, on_postgres: str):
    async with gateways(tmp_path, on_postgres) as (one, other):
        secret = await one.add_tenant("acme", models=5)
        await until(lambda: works(other, secret))
        assert other.directory.tenant("acme") == one.directory.tenant("acme")
        new = await other.keys.create("acme", name="second", scopes=frozenset({Scope.READ}), expires_at=None)
        await until(lambda: works(one, new.secret))
        await one.keys.revoke("acme", new.key.id)
        assert not works(one, new.secret)
        await until(lambda: not works(other, new.secret))
        await asyncio.gather(one.tenants.change("acme", {"models": 7}), other.tenants.change("acme", {"burst": 9}))
        await until(lambda: one.directory.tenant("acme") == other.directory.tenant("acme"))
        quota = one.tenants.get("acme").quota
        assert (quota.models, quota.burst) == (7, 9), "neither change undid the other"
        await other.tenants.delete("acme")
        await until(lambda: not works(one, secret))
        assert one.directory.tenants() == one.directory.keys_of("acme") == []


async def test_models_are_deployed_moved_scaled_and_deleted_everywhere(tmp_path: Path, on_postgres: str):
    async with gateways(tmp_path, on_postgres) as (one, other):
        await one.add_tenant()
        number, first = await one.serve()
        await until(lambda: traffic(other) == {first: 100})
        assert other.engine.services[IRIS] == one.engine.services[IRIS]
        other.engine.ready(first)
        version = await other.add_version()
        second = await other.deploy(version)
        one.engine.ready(second)  # whoever sees it first says so
        await until(lambda: traffic(one) == traffic(other) == {second: 100})
        await one.deployments.rollback(IRIS, number)
        await until(lambda: traffic(other) == {first: 100})
        await other.deployments.scale(IRIS, {"min-scale": 3})
        await until(lambda: one.engine.services[IRIS].scaling.min_scale == 3)
        await one.deployments.settled(IRIS)
        await other.deployments.settled(IRIS)
        assert serving(one) == serving(other) == {first: 100}
        await one.deployments.delete(IRIS)
        await until(lambda: not known(other))
        await until(lambda: other.engine.deleted == [IRIS])
        assert one.engine.deleted == [IRIS]
        _, again = await other.serve()
        await until(lambda: traffic(one) == {again: 100})


async def test_shares_rules_and_names_hold_everywhere_within_a_second(tmp_path: Path, on_postgres: str):
    async with gateways(tmp_path, on_postgres) as (one, other):
        await one.add_tenant()
        _, first = await one.serve()
        await until(lambda: traffic(other) == {first: 100})
        _, second = await one.serve()
        sticky, rule = Sticky(StickyBy.HEADER, "x-user"), Rule("x-tester", "yes", 2)
        wish = Split({"1": 70, "2": 30}, rules=[rule], sticky=sticky, keep_sticky=False)
        await one.deployments.split(IRIS, wish)
        await one.deployments.set_alias(IRIS, "stable", 1)
        async with asyncio.timeout(1):
            await until(lambda: route_of(other).routing == route_of(one).routing)
        assert traffic(other) == {first: 70, second: 30}
        assert route_of(other).routing == Routing(sticky=sticky, rules=(rule,), aliases=(("stable", 1),))
        callers = [[(b"x-user", b"%d" % n)] for n in range(200)]
        chosen = [[caller_s(parts, headers) for headers in callers] for parts in (one, other)]
        assert chosen[0] == chosen[1], "who sticks sticks wherever it calls"
        assert 20 < chosen[0].count(second) < 100
        assert caller_s(other, [(b"x-tester", b"yes")]) == second


async def test_a_shadow_is_followed_everywhere_and_what_all_have_counted_adds_up(tmp_path: Path, on_postgres: str):
    async with gateways(tmp_path, on_postgres) as (one, other):
        await one.add_tenant()
        await one.serve()
        waiting = await one.add_version()
        one.engine.ready(await one.deploy(waiting, takes_traffic=False))
        await one.deployments.settled(IRIS)
        await until(lambda: known(other) and len(route_of(other).records) == 2)
        taps = {id(parts): Taps() for parts in (one, other)}
        shadows = {id(parts): parts.shadows(taps[id(parts)]) for parts in (one, other)}
        await shadows[id(one)].put(IRIS, ShadowPlan(2))
        await shadows[id(other)].look()
        for parts in (one, other):
            made = SimpleNamespace(request_id="r", version=1, status=200, named=False, compute_us=1)
            call = SimpleNamespace(
                route=route_of(parts), measured=made, path="/", headers=(), request=[b"{}"], answer=b"{}",
                answer_headers=(),
            )  # fmt: skip
            (tap,) = taps[id(parts)].of(IRIS)
            tap.seen(call)
            await shadows[id(parts)].look()
        _, sums = await shadows[id(other)].report(IRIS)
        assert dict(sums.dropped) == {"asleep": 2}
        await shadows[id(other)].remove(IRIS)
        await shadows[id(one)].look()
        assert [taps[id(parts)].of(IRIS) for parts in (one, other)] == [(), ()]
        for made in shadows.values():
            made.stop()


async def test_a_deleted_model_drains_everywhere_and_is_unknown_at_once(tmp_path: Path, on_postgres: str):
    async with gateways(tmp_path, on_postgres) as (one, other):
        await one.add_tenant()
        await one.serve()
        await until(lambda: known(other))
        one.engine.drained.clear()
        other.engine.drained.clear()
        deletion = asyncio.create_task(one.deployments.delete(IRIS))
        await until(lambda: not known(other))
        await other.engine.draining.wait()
        assert not deletion.done()
        assert not other.engine.deleted, "its calls in flight have not ended"
        one.engine.drained.set()
        await deletion
        other.engine.drained.set()
        await until(lambda: other.engine.deleted == [IRIS])
        assert execute(on_postgres, "SELECT count(*) FROM models") == [(0,)]


async def test_a_rollout_under_way_is_carried_on_by_another_gateway(tmp_path: Path, on_postgres: str):
    async with gateway(tmp_path / "stays", on_postgres) as stays:
        async with gateway(tmp_path / "goes", on_postgres) as goes:
            await goes.parts.add_tenant()
            name = await goes.parts.deploy(await goes.parts.add_version())
        stays.parts.engine.ready(name)
        await until(lambda: traffic(stays.parts) == {name: 100})


async def test_a_gateway_does_not_tell_its_engine_again_what_it_did_itself(tmp_path: Path, on_postgres: str):
    async with gateways(tmp_path, on_postgres) as (one, other):
        await one.add_tenant()
        _, name = await one.serve()
        await until(lambda: traffic(other) == {name: 100})
        await one.deployments.scale(IRIS, {"min-scale": 1})
        await until(lambda: route_of(other).service.scaling.min_scale == 1)
        for parts in (one, other):
            await parts.deployments.settled(IRIS)
        told = len(one.engine.applied)
        await one.deployments.scale(IRIS, {"min-scale": 2})
        await until(lambda: route_of(other).service.scaling.min_scale == 2)
        await one.deployments.settled(IRIS)
        assert len(one.engine.applied) == told + 1


async def test_changes_are_seen_by_looking_when_every_nudge_is_lost(tmp_path: Path, on_postgres: str):
    """As through a pooler that knows no LISTEN: the function that nudges does nothing here."""
    execute(on_postgres, "CREATE SCHEMA quiet")
    execute(on_postgres, "CREATE FUNCTION quiet.pg_notify(text, text) RETURNS void LANGUAGE sql AS ''")
    quiet = f"{on_postgres}?options=-csearch_path%3Dquiet,pg_catalog,public"
    async with gateways(tmp_path, quiet, poll_s=0.05) as (one, other):
        secret = await one.add_tenant()
        await until(lambda: works(other, secret))


async def test_what_was_missed_while_cut_off_is_caught_up(tmp_path: Path, on_postgres: str):
    with PostgresProxy(shared_server().port) as proxy:
        cut_off = on_postgres.replace(str(shared_server().port), str(proxy.port))
        async with gateway(tmp_path / "one", on_postgres) as one, gateway(tmp_path / "other", cut_off) as other:
            here, there = one.parts, other.parts
            secret = await here.add_tenant()
            await here.serve()
            await here.serve(ServiceKey("acme", "second"))
            await until(lambda: works(there, secret) and len(there.directory.routes()) == 2)
            proxy.refusing = True
            proxy.reset()
            new = await here.keys.create("acme", name="new", scopes=frozenset({Scope.READ}), expires_at=None)
            await here.deployments.delete(ServiceKey("acme", "second"))
            _, name = await here.serve()
            execute(on_postgres, "DELETE FROM changes")  # as after a long time
            assert works(there, secret), "what it knows it goes on with"
            assert not works(there, new.secret)
            assert len(there.directory.routes()) == 2
            proxy.refusing = False
            await until(lambda: works(there, new.secret) and traffic(there) == {name: 100})
            await until(lambda: len(there.directory.routes()) == 1)
            assert not other.following.done()


async def test_numbers_are_in_the_order_of_commits(tmp_path: Path, on_postgres: str):
    """A follower that has read up to a number has missed nothing before it, however many write at once."""
    writers, each = 8, 15
    seen: list[Change] = []
    caught_up = asyncio.Event()

    async def everything_read() -> None:
        caught_up.set()

    databases = [Database(on_postgres) for _ in range(writers + 1)]
    feed = ChangeFeed(databases[-1], on_change=seen.append, on_gap=everything_read, poll_s=0.01)
    following = asyncio.create_task(feed.run())
    await caught_up.wait()

    async def write(writer: int) -> None:
        chance = random.Random(writer)
        for number in range(each):
            await databases[writer].write(note_change, f"t{writer}", f"m{number}")
            await asyncio.sleep(chance.random() / 100)

    await asyncio.gather(*map(write, range(writers)))
    await until(lambda: len(seen) >= writers * each)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    for database in databases:
        database.close()
    assert len(seen) == len(set(seen)) == writers * each
    for writer in range(writers):
        assert [c.model for c in seen if c.tenant == f"t{writer}"] == [f"m{n}" for n in range(each)]


async def test_old_changes_are_dropped_with_the_next_one(on_postgres: str):
    database = Database(on_postgres)
    await database.write(note_change, "acme", "old")
    execute(on_postgres, "UPDATE changes SET at = now() - interval '11 minutes'")
    await database.write(note_change, "acme", "new")
    assert await database.read(lambda c: list(c.scalars(select(changes.c.model)))) == ["new"]
    database.close()


# Two gateways at once


async def test_one_upload_at_both_is_one_version(tmp_path: Path, on_postgres: str):
    async with gateways(tmp_path, on_postgres) as (one, other):
        await one.add_tenant()
        await until(lambda: other.directory.tenant("acme") is not None)
        numbers = await asyncio.gather(one.add_version(digest="ab"), other.add_version(digest="ab"))
        assert numbers == [1, 1]
        names = await asyncio.gather(one.deploy(1), other.deploy(1))
        assert names == ["iris-00001", "iris-00001"]
        one.engine.ready(names[0])
        other.engine.ready(names[0])
        await until(lambda: traffic(one) == traffic(other) == {names[0]: 100})


async def test_a_tenant_or_model_made_twice_or_gone_meanwhile_is_a_conflict(tmp_path: Path, on_postgres: str):
    async with gateways(tmp_path, on_postgres) as (one, other):
        made = await asyncio.gather(
            one.tenants.create("acme", {}), other.tenants.create("acme", {}), return_exceptions=True
        )
        assert sorted(type(each) for each in made if isinstance(each, Exception)) == [Conflict]
        await until(lambda: one.directory.keys_of("acme") == other.directory.keys_of("acme") != [])
        number = await one.add_version()
        await other.add_version()
        await one.deploy(number)
        await until(lambda: known(other))
        deleted = await asyncio.gather(
            one.deployments.delete(IRIS), other.deployments.delete(IRIS), return_exceptions=True
        )
        assert [type(each) for each in deleted if each is not None] in ([], [NotFound])
        assert execute(on_postgres, "SELECT count(*) FROM models") == [(0,)]
        with pytest.raises((Conflict, NotFound)):
            await one.deploy(number)


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_two_gateways_do_at_once_both_end_where_the_database_is(
    tmp_path: Path, on_postgres: str, seed: int
):
    chance = random.Random(seed)
    engines = ScriptedEngine(), ScriptedEngine()
    async with (
        gateway(tmp_path / "one", on_postgres, engine=engines[0]) as one,
        gateway(tmp_path / "other", on_postgres, engine=engines[1]) as other,
    ):
        both = one.parts, other.parts
        await both[0].add_tenant()
        await until(lambda: both[1].directory.tenant("acme") is not None)
        for name in (f"iris-{n:05d}" for n in range(1, 60)):
            for engine in engines:
                engine.ready(name)

        async def operate(parts: Parts) -> None:
            for _ in range(8):
                what = chance.choice(["deploy", "deploy", "roll back", "scale", "delete"])
                try:
                    if what == "deploy":
                        await parts.deploy(await parts.add_version(digest=f"{chance.randrange(4):x}"))
                    elif what == "roll back":
                        await parts.deployments.rollback(IRIS, chance.randint(1, 3))
                    elif what == "scale":
                        await parts.deployments.scale(IRIS, {"min-scale": chance.randint(0, 5)})
                    else:
                        await parts.deployments.delete(IRIS)
                except (NotFound, Conflict):
                    continue
                await asyncio.sleep(chance.random() / 50)

        await asyncio.gather(*map(operate, both))
        await both[0].serve()
        await until(lambda: known(both[1]) and route_of(both[0]).says_the_same(route_of(both[1])))
        for parts in both:
            await parts.deployments.settled(IRIS)
        assert states_of(both[0]) == states_of(both[1])
        assert set(states_of(both[0]).values()) <= {"ready", "failed"}
        assert serving(both[0]) == serving(both[1])
        assert not await both[0].deployments.outdated()
        assert not await both[1].deployments.outdated()
