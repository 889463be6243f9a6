"""Quotas of a tenant on the prediction path (Q1, Q2, S33)."""

import asyncio
from collections import Counter

import pytest

from gateway_parts import until
from predict_parts import PredictPath, json_response, predict_path
from roost_platform.domain.services import ServiceKey


@pytest.fixture
async def path(tmp_path):
    async with predict_path(tmp_path) as made:
        yield made


async def test_q2_of_a_hundred_at_once_exactly_the_one_that_is_left_passes(path: PredictPath):
    await path.parts.tenants.change("acme", {"requests_per_second": 0.001, "burst": 3})
    assert [(await path.call()).status for _ in range(2)] == [200, 200]

    answers = await asyncio.gather(*(path.call() for _ in range(100)))

    assert Counter(heard.status for heard in answers) == {200: 1, 429: 99}
    refused = [heard for heard in answers if heard.status == 429]
    assert {heard.refusal for heard in refused} == {(429, "rate_limited")}
    assert all(990 <= int(heard.header("retry-after") or 0) <= 1000 for heard in refused)
    assert Counter(path.outcomes()) == {("ok", 200): 3, ("throttled", 429): 99}


async def test_q2_calls_in_flight_are_bounded_exactly(path: PredictPath):
    await path.parts.tenants.change("acme", {"concurrent_requests": 10})
    release = asyncio.Event()

    async def waits(request):
        await release.wait()
        return json_response({})

    path.engine.answer = waits
    calls = [asyncio.create_task(path.call()) for _ in range(100)]
    await until(lambda: sum(call.done() for call in calls) == 90)
    refused = [call.result() for call in calls if call.done()]
    assert {heard.refusal for heard in refused} == {(429, "too_many_in_flight")}
    assert {heard.header("retry-after") for heard in refused} == {"1"}
    assert "10" in refused[0].json()["error"], "the answer names the limit"
    release.set()
    assert Counter(heard.status for heard in await asyncio.gather(*calls)) == {200: 10, 429: 90}
    assert path.engine.most_active == 10


async def test_a_quota_holds_from_the_moment_it_is_changed(path: PredictPath):
    await path.parts.tenants.change("acme", {"requests_per_second": 0.001, "burst": 1})
    assert [(await path.call()).status for _ in range(2)] == [200, 429]
    await path.parts.tenants.change("acme", {"requests_per_second": 0})
    assert [(await path.call()).status for _ in range(5)] == [200] * 5


async def test_s33_one_tenants_refusals_are_not_anothers(path: PredictPath):
    await path.parts.tenants.change("acme", {"requests_per_second": 0.001, "burst": 1})
    other = await path.parts.add_tenant("other")
    await path.parts.serve(ServiceKey("other", "iris"))
    statuses = [
        ((await path.call()).status, (await path.call("/t/other/v2/models/iris/infer", secret=other)).status)
        for _ in range(5)
    ]
    assert statuses == [(200, 200)] + [(429, 200)] * 4


async def test_a_refused_call_is_refused_before_its_body_is_read(path: PredictPath):
    await path.parts.tenants.change("acme", {"requests_per_second": 0.001, "burst": 1})
    assert (await path.call()).status == 200
    heard = await path.call(pieces=[b"a part"], declared=b"500", stall=asyncio.Event())
    assert heard.status == 429
    assert path.events()[-1].bytes_in == 0
