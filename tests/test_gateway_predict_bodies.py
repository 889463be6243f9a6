"""Bodies on the prediction path: whole, in pieces, too large, and clients that leave (P9, P13, S23)."""

import asyncio

import pytest

from predict_parts import BODY, INFER, PredictPath, json_response, predict_path


@pytest.fixture
async def path(tmp_path):
    async with predict_path(tmp_path, request_bytes=1000) as made:
        yield made


async def test_a_body_reaches_the_replica_as_it_came(path: PredictPath):
    pieces = [bytes(range(256)), b"", b"\r\n\r\n", b"0\r\n"]
    assert (await path.call(pieces=pieces, declared=None)).status == 200
    assert b"".join(path.engine.seen[0][1].body) == b"".join(pieces)
    assert path.events()[0].bytes_in == 263


async def test_an_empty_body_is_the_replicas_to_judge(path: PredictPath):
    assert (await path.call(pieces=[b""])).status == 200
    assert b"".join(path.engine.seen[0][1].body) == b""


async def test_a_body_of_the_limit_is_taken(path: PredictPath):
    assert (await path.call(pieces=[b"x" * 1000])).status == 200
    assert (await path.call(pieces=[b"x"] * 1000, declared=None)).status == 200


async def test_a_declared_length_over_the_limit_is_refused_before_the_body(path: PredictPath):
    read = asyncio.Event()
    heard = await path.call(pieces=[], declared=b"1001", stall=read)  # would wait for ever if it read
    assert heard.refusal == (413, "body_too_large")
    assert path.outcomes() == [("client_error", 413)]
    assert not path.engine.seen


async def test_a_chunked_body_is_refused_when_it_passes_the_limit(path: PredictPath):
    heard = await path.call(pieces=[b"x" * 400] * 100, declared=None)
    assert heard.refusal == (413, "body_too_large")
    assert not path.engine.seen
    assert path.figures.inflight == 0


@pytest.mark.parametrize("declared", [b"+5", b"-1", b"5 5", b"0x5", b"\xb2", b"abc"])
async def test_a_length_that_is_no_number_is_the_clients_mistake(path: PredictPath, declared: bytes):
    assert (await path.call(declared=declared)).refusal == (400, "invalid_request")


async def test_s23_a_body_in_tiny_pieces_is_taken(path: PredictPath):
    assert (await path.call(pieces=[b"x"] * 999 + [b"y"], declared=None)).status == 200
    assert b"".join(path.engine.seen[0][1].body) == b"x" * 999 + b"y"


async def test_p13_a_client_that_leaves_before_its_body_is_whole_is_recorded_once_and_not_billed(path: PredictPath):
    gone = asyncio.Event()
    gone.set()
    heard = await path.call(pieces=[b"the beginning"], declared=b"500", stall=gone)
    assert heard.status == 0, "there is nobody to answer"
    assert path.outcomes() == [("cancelled", 499)]
    assert not path.engine.seen
    assert path.figures.inflight == 0


async def test_p13_a_client_that_leaves_while_the_model_runs_frees_its_slot(path: PredictPath):
    await path.parts.tenants.change("acme", {"concurrent_requests": 1})
    started, leave = asyncio.Event(), asyncio.Event()

    async def slow(request):
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    path.engine.answer = slow
    call = asyncio.create_task(path.call(leave=leave))
    await started.wait()
    assert (await path.call()).refusal == (429, "too_many_in_flight")
    leave.set()
    assert (await call).status == 0
    assert path.engine.ended == ["CancelledError"]
    assert path.engine.active == 0
    assert path.figures.inflight == 0

    async def quick(request):
        return json_response({})

    path.engine.answer = quick
    assert (await path.call()).status == 200, "the one slot that the tenant may hold is free again"
    assert path.outcomes() == [("throttled", 429), ("cancelled", 499), ("ok", 200)]


async def test_p13_a_client_that_leaves_while_it_waits_for_a_replica_is_recorded_once(path: PredictPath):
    waiting, leave = asyncio.Event(), asyncio.Event()

    class Waiting:
        async def __aenter__(self):
            waiting.set()
            await asyncio.Event().wait()

        async def __aexit__(self, *_):
            raise AssertionError("never entered")

    path.engine.lease = lambda *_: Waiting()
    call = asyncio.create_task(path.call(leave=leave))
    await waiting.wait()
    leave.set()
    assert (await call).status == 0
    assert path.outcomes() == [("cancelled", 499)]


async def test_p13_a_client_that_leaves_after_the_answer_was_made_is_billed_once(path: PredictPath):
    leave = asyncio.Event()

    async def answers_and_client_leaves(request):
        leave.set()
        return json_response({})

    path.engine.answer = answers_and_client_leaves
    await path.call(leave=leave)
    assert path.outcomes() == [("ok", 200)]


async def test_no_slot_is_lost_however_calls_end(path: PredictPath):
    await path.parts.tenants.change("acme", {"concurrent_requests": 5})
    gone = asyncio.Event()
    gone.set()
    for _ in range(20):
        await path.call(pieces=[b"x"], declared=b"500", stall=gone)
        await path.call(pieces=[b"x" * 2000], declared=None)
        await path.call(INFER.replace("iris", "absent"))
        await path.call("/t/acme/v2/models/iris/versions/9/infer")

    async def breaks(request):
        raise RuntimeError("nobody foresaw this")

    path.engine.answer = breaks
    for _ in range(20):
        assert (await path.call(pieces=[BODY])).refusal == (500, "internal")
    path.engine.answer = type(path.engine)().answer
    assert [heard.status for heard in await asyncio.gather(*(path.call() for _ in range(5)))] == [200] * 5
    assert path.figures.inflight == 0
