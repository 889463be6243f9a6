"""Two real servers on one PostgreSQL and one S3 store: one platform for clients, also while one of them is killed."""

import asyncio
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from campaign_clients import TENANT, Caller, History
from campaign_registered import adding
from postgres_server import execute
from roost_process import RoostProcess, refusal_of, until, wait_until_gone
from s3_parts import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server

KILLS = 4


@pytest.fixture
def servers(tmp_path: Path, on_postgres: str, s3_server: S3Server):
    environment = {
        "ROOST_DATABASE_URL": on_postgres,
        "ROOST_ARTIFACTS_URL": f"s3://{BUCKET}/{tmp_path.name}",
        "ROOST_ARTIFACTS_ENDPOINT_URL": s3_server.url,
        "ROOST_ARTIFACTS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "ROOST_OPERATOR_KEY": "operator-key-of-two-gateways",
    }
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        server = RoostProcess(tmp_path / name, **environment)
        server.operator_key = environment["ROOST_OPERATOR_KEY"]
        made.append(server)
    with made[0], made[1]:
        yield made


def _file(folder: Path, number: int) -> Path:
    file = folder / f"add-{number}.onnx"
    file.write_bytes(adding(number))
    return file


def _status(server: RoostProcess, key: str, model: str) -> int:
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
    url = f"{server.url}/t/{TENANT}/v2/models/{model}/infer"
    return httpx.post(url, json=body, headers={"Authorization": f"Bearer {key}"}, timeout=60).status_code


def test_what_is_done_at_one_holds_at_the_other(tmp_path: Path, servers: list[RoostProcess]):
    one, other = servers
    key = one.make_tenant(TENANT)
    one.deploy(key, "one", _file(tmp_path, 1))
    until(lambda: _status(other, key, "one") == 200, what="served by the other one, too")
    assert _status(one, key, "one") == 200
    with ThreadPoolExecutor(2) as pool, one.client(key) as here, other.client(key) as there:
        file = _file(tmp_path, 2)
        uploads = [pool.submit(each.upload, "twin", file) for each in (here, there)]
        assert [upload.result()["version"] for upload in uploads] == [1, 1]
        until(lambda: _status(one, key, "twin") == _status(other, key, "twin") == 200, what="served by both")
        second = there.create_key("second", ["predict"])
        servers[0].secrets.add(second["secret"])
        servers[1].secrets.add(second["secret"])
        until(lambda: _status(one, second["secret"], "one") == 200, what="the key works at the first one")
        here.revoke_key(second["id"])
        until(lambda: _status(other, second["secret"], "one") == 401, what="and no longer at the second one")
        there.delete_model("twin")
        until(lambda: _status(one, key, "twin") == 404, what="the model is gone")
        assert refusal_of(lambda: here.model("twin")).status == 404
        here.rollback("one", 1)
        answered = sum(_status(server, key, "one") == 200 for server in servers for _ in range(5))
        assert answered == 10
        for server in servers:
            server.shipped_ledger(key)
        assert here.usage()["total"]["requests"] == there.usage()["total"]["requests"]


@pytest.mark.timeout(300)
async def test_two_gateways_killed_in_turn_lose_no_answered_call_and_serve_on(
    tmp_path: Path, servers: list[RoostProcess]
):
    chance = random.Random(7)
    key = await asyncio.to_thread(servers[0].make_tenant, TENANT)
    await asyncio.to_thread(servers[0].deploy, key, "one", _file(tmp_path, 1), min_scale=1)
    await asyncio.to_thread(until, lambda: _status(servers[1], key, "one") == 200, what="served by both")
    history, stopping = History(), asyncio.Event()

    async def keep_calling(server: RoostProcess) -> None:
        while not stopping.is_set():
            with suppress(OSError, asyncio.IncompleteReadError):
                async with Caller(server.port, key, history) as caller:
                    while not stopping.is_set():
                        await caller.call()
                        await asyncio.sleep(0.002)
            await asyncio.sleep(0.02)

    calling = [asyncio.create_task(keep_calling(server)) for server in servers for _ in range(2)]
    for kill in range(KILLS):
        await asyncio.sleep(chance.uniform(0.2, 1.0))
        victim = servers[kill % 2]
        children = victim.kill()
        served = history.served
        await asyncio.to_thread(until, lambda: history.served > served + 20, what="the other one serves on")  # noqa: B023
        await asyncio.to_thread(wait_until_gone, children, 20)
        await asyncio.to_thread(victim.start)
    stopping.set()
    await asyncio.gather(*calling)
    assert not history.refusals, history.refusals
    for server in servers:  # what the killed ones left behind is shipped by their next lives
        await asyncio.to_thread(server.shipped_ledger, key)
    rows = execute(servers[0].database_url, "SELECT request_id, status, source, sequence FROM usage_events")
    counted = Counter(request_id for request_id, *_ in rows)
    assert history.answered.keys() <= counted.keys(), "lost"
    assert all(counted[request_id] == 1 for request_id in history.sent if request_id in counted), "doubled"
    for source in {source for *_, source, _ in rows}:
        sequences = sorted(sequence for *_, each, sequence in rows if each == source)
        assert sequences == list(range(len(sequences)))
