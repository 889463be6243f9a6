"""Q2 with several gateways: each admits its share, and together they admit no more than what is stated."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_parts import until
from gateways_parts import gateway, predicting
from postgres_server import execute
from predict_parts import LeasingEngine
from roost_gateway.access.directory import Directory
from roost_gateway.access.shares import share_of
from roost_gateway.predict.admission import Gate
from roost_platform.database.connection import Database, sqlite_url
from roost_platform.database.gateways import Gateways
from roost_platform.domain.errors import Throttled
from roost_platform.domain.tenants import Quota

quotas = st.builds(
    Quota,
    concurrent_requests=st.integers(0, 50),
    requests_per_second=st.floats(0.1, 1000),
    burst=st.integers(0, 50),
)


@given(quota=quotas, gateways=st.integers(1, 9))
def test_shares_together_exceed_the_quota_by_no_more_than_is_stated(quota: Quota, gateways: int):
    share = share_of(quota, gateways)
    burst = quota.burst or max(1.0, quota.requests_per_second)
    assert share.requests_per_second * gateways == pytest.approx(quota.requests_per_second)
    assert share.burst * gateways <= burst + 1 + gateways - 1 if gateways > 1 else share == quota
    if quota.concurrent_requests:
        assert quota.concurrent_requests <= share.concurrent_requests * gateways < quota.concurrent_requests + gateways
    else:
        assert share.concurrent_requests == 0, "no limit stays none"
    assert replace(share, requests_per_second=0, burst=0, concurrent_requests=0) == replace(
        quota, requests_per_second=0, burst=0, concurrent_requests=0
    )


@given(quota=quotas, gateways=st.integers(2, 9), seconds=st.integers(0, 30))
def test_of_a_flood_at_every_gateway_no_more_passes_than_is_stated(quota: Quota, gateways: int, seconds: int):
    share = replace(share_of(quota, gateways), concurrent_requests=0)
    burst = quota.burst or max(1.0, quota.requests_per_second)
    passed = sum(_flood(Gate(), share, seconds) for _ in range(gateways))
    assert passed <= burst + quota.requests_per_second * seconds + gateways


def _flood(gate: Gate, share: Quota, seconds: int) -> int:
    passed = 0
    for second in range(seconds + 1):
        while passed < 100_000:
            try:
                gate.enter(share, float(second))
            except Throttled:
                break
            passed += 1
    return passed


async def test_q2_of_a_hundred_parallel_calls_at_two_gateways_with_one_left_two_pass_at_most(
    tmp_path: Path, on_postgres: str
):
    async with AsyncExitStack() as stack:
        clients, engines, counters = [], [LeasingEngine(), LeasingEngine()], []
        for number, engine in enumerate(engines):
            made = await stack.enter_async_context(gateway(tmp_path / str(number), on_postgres, engine=engine))
            counters.append(Gateways(made.parts.database, url="", on_count=made.parts.directory.count_gateways))
            if number == 0:
                secret = await made.parts.add_tenant("acme", requests_per_second=0.001, burst=3)
                await made.parts.serve()
            parts = made.parts
            await until(lambda parts=parts: parts.directory.routes() != [] and parts.directory.tenants() != [])
            clients.append((await stack.enter_async_context(predicting(parts, secret))).client)
        for counter in [*counters, *counters]:  # the first one learns of the second one
            await counter.join()
        await until(lambda: all(e.services for e in engines))
        before = [(await client()).status for client in clients]
        assert before == [200, 200], "of a burst of three one is left"
        heard = await asyncio.gather(*(clients[n % 2]() for n in range(100)))
        passed = [each.status for each in heard].count(200)
        assert passed <= 1 + 1, "what is left, and one for each further gateway"
        assert {each.status for each in heard} == {200, 429} if passed else {429}


async def test_gateways_are_counted_as_they_come_go_and_die(on_postgres: str):
    databases = [Database(on_postgres) for _ in range(3)]
    counts: dict[int, int] = {}
    made = [
        Gateways(db, url=f"http://g{n}", on_count=lambda c, n=n: counts.update({n: c}))
        for n, db in enumerate(databases)
    ]
    for each in made:
        await each.join()
    assert counts == {0: 1, 1: 2, 2: 3}
    beating = [asyncio.create_task(each.run()) for each in made[:2]]
    await until(lambda: counts[0] == counts[1] == 3)
    await made[2].leave()
    await until(lambda: counts[0] == counts[1] == 2)
    beating[1].cancel()  # it dies without a word
    await until(lambda: counts[0] == 1)
    beating[0].cancel()
    execute(on_postgres, "UPDATE gateways SET seen_at = now() - interval '2 minutes'")
    await made[0].join()
    assert execute(on_postgres, "SELECT url FROM gateways") == [("http://g0",)], "the dead are forgotten in the end"
    for database in databases:
        database.close()


async def test_the_only_gateway_of_a_sqlite_database_has_everything(tmp_path: Path):
    database = Database(sqlite_url(tmp_path / "roost.db"))
    directory = Directory()
    alone = Gateways(database, url="http://one", on_count=directory.count_gateways)
    await alone.join()
    await alone.run()
    await alone.leave()
    database.close()
