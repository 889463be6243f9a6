"""L10: PostgreSQL stops, crashes, freezes and comes back under a gateway: models serve on, changes wait, nothing is lost."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway_parts import refusal, until
from gateways_parts import Gateway, gateway, predicting
from metering_parts import request_ids
from postgres_server import PostgresServer, execute
from predict_parts import LeasingEngine
from roost_platform.database.connection import Database
from roost_platform.database.gateways import Gateways
from roost_platform.database.leadership import Leadership
from roost_platform.database.migrations import migrate
from roost_platform.database.opening import open_for_serving
from roost_platform.domain.errors import Unavailable
from roost_platform.domain.tenants import Scope
from roost_platform.metering.ledger import gaps

DURABLE = ("shared_buffers=16MB",)
"""As it is in earnest: what was committed survives a crash."""


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with PostgresServer(*DURABLE) as made:
        yield made


@pytest.fixture
async def running(tmp_path: Path, server: PostgresServer) -> AsyncIterator[tuple[Gateway, str]]:
    """A gateway with tenant acme and the model iris in service, and the tenant's key."""
    async with gateway(tmp_path / "g", server.database("roost"), engine=LeasingEngine()) as made:
        secret = await made.parts.add_tenant("acme")
        await made.parts.serve()
        yield made, secret


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["stopped", "crashed"])
async def test_l10_models_serve_and_changes_wait_while_the_database_is_away(
    server: PostgresServer, running: tuple[Gateway, str], how: int
):
    made, secret = running
    parts = made.parts
    async with predicting(parts, secret) as path, parts.client() as operator, parts.client(secret) as acme:
        assert (await path.client()).status == 200
        server.stop(how)
        answered = 1
        for _ in range(50):
            assert (await path.client()).status == 200
            answered += 1
        key = {"name": "new", "scopes": ["read"]}
        for refused in (
            await operator.post("/api/v1/tenants", json={"name": "other"}),
            await acme.post("/api/v1/keys", json=key),
            await acme.patch("/api/v1/models/iris/scaling", json={"min-scale": 1}),
            await acme.delete("/api/v1/models/iris"),
        ):
            assert refusal(refused) == (503, "database", None)
            assert refused.headers["retry-after"] == "1"
        assert (await acme.get("/api/v1/models")).json()["models"][0]["model"] == "iris", (
            "what was refused was not done"
        )
        assert (await path.client()).status == 200
        answered += 1
        assert path.backlog.bytes > 0
        server.start()
        assert (await acme.post("/api/v1/keys", json=key)).status_code == 201
        assert (await acme.patch("/api/v1/models/iris/scaling", json={"min-scale": 1})).status_code == 200
        await path.shipper.drain()
        assert len(await parts.database.read(request_ids)) == answered
        assert await parts.database.read(gaps, "g") == ()
        # It follows others again.
        execute(server.url("roost"), "UPDATE api_keys SET revoked_at = now() WHERE name = 'new'")
        await parts.database.write(
            lambda c: c.exec_driver_sql("INSERT INTO changes (tenant, model) VALUES ('acme', '')")
        )
        await until(lambda: parts.directory.keys_of("acme")[1].revoked_at is not None)
        assert (await acme.delete("/api/v1/models/iris")).status_code == 204
        assert (await operator.get("/api/v1/tenants")).status_code == 200


async def test_l10_calls_are_refused_before_any_work_when_too_much_usage_waits(
    server: PostgresServer, running: tuple[Gateway, str]
):
    made, secret = running
    engine = made.parts.engine
    assert isinstance(engine, LeasingEngine)
    async with predicting(made.parts, secret, backlog_bytes=2000) as path:
        server.stop()
        answered = 0
        while (heard := await path.client()).status == 200:
            answered += 1
            await asyncio.sleep(0.01)
        assert heard.refusal == (503, "usage_backlog")
        assert heard.header("retry-after") == "5"
        assert len(engine.seen) == answered, "nothing was done for what was refused"
        size = path.shipper.unshipped_bytes
        assert (await path.client()).status == 503
        assert path.shipper.unshipped_bytes == size, "a refusal does not add to what waits"
        server.start()
        await until(lambda: not path.backlog.full)
        assert (await path.client()).status == 200
        await path.shipper.drain()
        assert len(await made.parts.database.read(request_ids)) == answered + 1


async def test_l10_a_frozen_database_delays_changes_and_stops_no_call(
    server: PostgresServer, running: tuple[Gateway, str]
):
    made, secret = running
    keys = made.parts.keys
    async with predicting(made.parts, secret) as path:
        server.freeze()
        change = asyncio.create_task(keys.create("acme", name="slow", scopes=frozenset({Scope.READ}), expires_at=None))
        for _ in range(20):
            assert (await path.client()).status == 200
        assert not change.done()
        server.thaw()
        await change
        await path.shipper.drain()
        assert len(await made.parts.database.read(request_ids)) == 20


async def test_a_gateway_leads_and_is_counted_again_after_an_outage(server: PostgresServer):
    database = Database(server.database("roost"))
    counts: list[int] = []
    leadership = Leadership(database)
    loops = [leadership.run(), Gateways(database, url="", on_count=counts.append).run()]
    tasks = [asyncio.create_task(loop) for loop in loops]
    await until(lambda: leadership.held and counts != [])
    server.stop()
    await until(lambda: not leadership.held)
    server.start()
    counts.clear()
    await until(lambda: leadership.held and counts != [])
    for task in tasks:
        assert not task.done()
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.to_thread(database.close)


def test_a_start_waits_for_the_database_and_for_its_tables(server: PostgresServer, tmp_path: Path, caplog):
    execute(server.url(), "CREATE DATABASE fresh")
    database = Database(server.url("fresh"))
    with pytest.raises(Unavailable, match=r"has no tables yet, this release needs \d+: run `roost migrate` first"):
        open_for_serving(database.engine, kept=tmp_path, wait_s=0)
    server.stop()
    with pytest.raises(Unavailable, match="does not answer"):
        open_for_serving(database.engine, kept=tmp_path, wait_s=0.1)
    server.start()
    assert migrate(database.engine) is None
    open_for_serving(database.engine, kept=tmp_path, wait_s=0)
    assert [record.message for record in caplog.records].count("database_awaited") >= 1
    database.close()


async def test_a_start_goes_on_as_soon_as_somebody_has_migrated(server: PostgresServer, tmp_path: Path):
    execute(server.url(), "CREATE DATABASE fresh")
    database = Database(server.url("fresh"))
    opening = asyncio.create_task(asyncio.to_thread(open_for_serving, database.engine, kept=tmp_path))
    await asyncio.to_thread(migrate, database.engine)
    await opening
    assert execute(server.url("fresh"), "SELECT count(*) FROM tenants") == [(0,)]
    database.close()
