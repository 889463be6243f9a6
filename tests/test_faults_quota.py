"""Quotas (Q1, Q2, S33) against a real server: exactly what is left passes, refusals say limit, used and reset."""

import asyncio
from collections import Counter
from typing import Any

import httpx
import pytest

import models_for_tests as models
from http_raw import ADD_ONE
from roost_process import RoostProcess, until

INFER = "/t/{}/v2/models/one/infer"
SLOW = b'{"inputs":[{"name":"trips","datatype":"INT64","shape":[1],"data":[1000000000000]}]}'


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quota")
    with RoostProcess(folder) as server:
        server.files = [models.add_one(folder / "one.onnx"), models.add_one(folder / "two.onnx", columns=5)]
        server.loop = models.slow_loop(folder / "loop.onnx")
        server.folder = folder
        yield server
        assert server.stop() == 0
        assert not server.events("prediction_failed")
        assert not server.events("request_failed")


def caller(server: RoostProcess, key: str) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=100)
    return httpx.AsyncClient(base_url=server.url, headers={"authorization": f"Bearer {key}"}, timeout=60, limits=limits)


def quota_body(response: httpx.Response, code: str) -> dict[str, Any]:
    document: dict[str, Any] = response.json()
    assert set(document) - {"field"} == {"error", "code", "limit", "used", "reset", "request_id"}
    assert (response.status_code, document["code"]) == (429, code)
    assert int(response.headers["retry-after"]) >= 1
    return document


async def test_q2_of_a_hundred_parallel_calls_exactly_the_one_that_is_left_passes(server: RoostProcess):
    key = server.make_tenant("rated", requests_per_second=0.001, burst=3)
    server.deploy(key, "one", server.files[0], min_scale=1)
    async with caller(server, key) as client:
        for _ in range(2):
            assert (await client.post(INFER.format("rated"), content=ADD_ONE)).status_code == 200
        answers = await asyncio.gather(*(client.post(INFER.format("rated"), content=ADD_ONE) for _ in range(100)))
    assert Counter(answer.status_code for answer in answers) == {200: 1, 429: 99}
    for answer in answers:
        if answer.status_code == 429:
            document = quota_body(answer, "rate_limited")
            assert document["limit"] == 3
            assert 2 < document["used"] <= 3
            assert 0 < document["reset"] <= 1000
            assert document["reset"] <= int(answer.headers["retry-after"]) <= document["reset"] + 1
    with server.client(key) as client:
        rows = client.usage(group_by="outcome")["rows"]
    assert {row["outcome"]: row["requests"] for row in rows} == {"ok": 3, "throttled": 99}


async def test_q1_calls_in_flight(server: RoostProcess):
    key = server.make_tenant("flight", concurrent_requests=4)
    server.deploy(key, "loop", server.loop, min_scale=1)
    path = "/t/flight/v2/models/loop/infer"
    async with caller(server, key) as client:
        for _ in range(5):  # so that it is known for slow, and runs where it can be ended
            assert (await client.post(path, content=SLOW.replace(b"1000000000000", b"3000"))).status_code == 200
        running = [asyncio.create_task(client.post(path, content=SLOW)) for _ in range(4)]
        await asyncio.to_thread(until, lambda: in_flight(server) == 4)
        answers = await asyncio.gather(*(client.post(path, content=SLOW) for _ in range(20)))
        for answer in answers:
            document = quota_body(answer, "too_many_in_flight")
            assert (document["limit"], document["used"], document["reset"]) == (4, 4, None)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await asyncio.to_thread(until, lambda: in_flight(server) == 0)
        good = await asyncio.gather(
            *(client.post(path, content=SLOW.replace(b"1000000000000", b"1")) for _ in range(4))
        )
        assert [answer.status_code for answer in good] == [200] * 4


def in_flight(server: RoostProcess) -> float:
    return sum(value for (name, _), value in server.figures().items() if name == "roost_requests_in_flight")


async def test_q1_q2_one_model_too_many_and_one_byte_too_many(server: RoostProcess):
    size = server.files[0].stat().st_size
    content = [file.read_bytes() for file in server.files]
    headers = {"content-type": "application/octet-stream"}
    key = server.make_tenant("counted", models=1)
    async with caller(server, key) as client:
        answers = await asyncio.gather(
            *(client.post(f"/api/v1/models/m{n}/versions", content=content[0], headers=headers) for n in range(6))
        )
        assert Counter(answer.status_code for answer in answers) == {201: 1, 429: 5}
        for answer in answers:
            if answer.status_code == 429:
                document = quota_body(answer, "quota_exceeded")
                assert (document["field"], document["limit"], document["used"]) == ("models", 1, 1)
                assert document["reset"] is None
        assert len((await client.get("/api/v1/models")).json()["models"]) == 1
    for room, status in ((size, 201), (size - 1, 429)):
        key = server.make_tenant(f"stored-{status}", storage_bytes=room)
        async with caller(server, key) as client:
            answer = await client.post("/api/v1/models/one/versions", content=content[0], headers=headers)
            assert answer.status_code == status
            if status == 201:
                answer = await client.post("/api/v1/models/one/versions", content=content[1], headers=headers)
            document = quota_body(answer, "quota_exceeded")
            used = size if status == 201 else 0
            assert (document["field"], document["limit"], document["used"]) == ("storage_bytes", room, used)
            models_left = (await client.get("/api/v1/models")).json()["models"]
            assert len(models_left) == (1 if status == 201 else 0), "nothing is left of what was refused"


async def test_s33_a_tenant_far_over_its_limit_costs_its_neighbour_no_call(server: RoostProcess):
    keys = {"greedy": server.make_tenant("greedy", requests_per_second=5), "modest": server.make_tenant("modest")}
    for key in keys.values():
        await asyncio.to_thread(server.deploy, key, "one", server.files[0], min_scale=1)
    over = asyncio.Event()

    async def call(tenant: str, client: httpx.AsyncClient) -> Counter[int]:
        statuses: Counter[int] = Counter()
        while not over.is_set():
            answer = await client.post(INFER.format(tenant), content=ADD_ONE)
            statuses[answer.status_code] += 1
            if answer.status_code == 200:
                assert answer.json()["outputs"][0]["data"] == [2, 3, 4, 5]
            else:
                quota_body(answer, "rate_limited")
        return statuses

    async with caller(server, keys["greedy"]) as greedy, caller(server, keys["modest"]) as modest:
        flood = [asyncio.create_task(call("greedy", greedy)) for _ in range(16)]
        quiet = [asyncio.create_task(call("modest", modest)) for _ in range(2)]
        await asyncio.to_thread(until, lambda: refused(server) > 300, within=90, what="a flood of refusals")
        over.set()
        flooded = sum(await asyncio.gather(*flood), Counter[int]())
        served = sum(await asyncio.gather(*quiet), Counter[int]())
    assert flooded[429] >= 300
    assert set(flooded) == {200, 429}
    assert set(served) == {200}
    for tenant, counted in (("greedy", flooded), ("modest", served)):
        with server.client(keys[tenant]) as client:
            rows = {row["outcome"]: row["requests"] for row in client.usage(group_by="outcome")["rows"]}
        assert (rows["ok"], rows.get("throttled", 0)) == (counted[200], counted[429])

    kept = [row[2] for row in server.ledger("tenant, outcome, requests") if row[:2] == ("greedy", "throttled")]
    assert sum(kept) == flooded[429]
    assert len(kept) <= 4, "a flood of refusals is a row a minute in the ledger"


def refused(server: RoostProcess) -> float:
    return sum(
        value
        for (name, labels), value in server.figures().items()
        if name == "roost_requests_total" and {("tenant", "greedy"), ("outcome", "throttled")} <= labels
    )
