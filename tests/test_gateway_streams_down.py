"""Streamed answers through the whole gateway: as they are made, metered before their end, and never ended when they broke."""

import asyncio
import json

import pytest

from gateway_streams_parts import CHUNKED, LARGE, chunk, heard, large_head, next_chunk, well
from streaming_parts import (
    Call,
    FarSide,
    answer,
    client_of,
    post,
    standstill,
    streamed_path,
    until,
)


@pytest.fixture
async def far():
    async with FarSide(well).serving() as far:
        yield far


@pytest.fixture
async def path(tmp_path, far):
    async with streamed_path(tmp_path, far.url, limits={"request_bytes": 60_000_000}, pauses_s=()) as made:
        yield made


# Answers on their way down


@pytest.mark.parametrize("size", [None, LARGE])
async def test_an_answer_arrives_as_it_is_made(path, far, size):
    go_on = asyncio.Event()

    async def handle(call: Call) -> None:
        await call.body()
        await call.say((CHUNKED + chunk(b"x" * 10)) if size is None else large_head() + b"x" * 10)
        await go_on.wait()
        rest = b"y" * (LARGE - 10)
        await call.say(chunk(rest) + b"0\r\n\r\n" if size is None else rest)

    far.handler = handle
    async with client_of(path) as client:
        for count in (1, 2):
            go_on.clear()
            await client.send(post(path, length=2, body=b"{}"))
            status, headers = await client.head()
            assert (status, headers.get("content-length")) == (200, size and str(size))
            assert not [name for name in headers if name.startswith("roost-")]
            body = b""
            if size is None:
                body += await next_chunk(client)
                assert len(path.events()) == count - 1
                go_on.set()
                while piece := await next_chunk(client):
                    body += piece
            else:
                body += await client.reader.readexactly(10)
                assert len(path.events()) == count - 1
                go_on.set()
                body += await client.reader.readexactly(size - 10)
            assert body == b"x" * 10 + b"y" * (LARGE - 10)
            assert len(path.events()) == count, "written before its end could arrive"
    event = path.events()[0]
    assert (str(event.outcome), event.bytes_out, event.compute_us, event.rows) == ("ok", LARGE, 1500, 3)
    assert path.figures.inflight == 0
    assert far.connections == 1


@pytest.mark.parametrize("size", [None, LARGE])
@pytest.mark.parametrize("how", ["reset", "close"])
async def test_an_answer_that_breaks_breaks_the_clients_connection(path, far, size, how):
    async def handle(call: Call) -> None:
        await call.body()
        await call.say((CHUNKED + chunk(b"x" * 1000)) if size is None else large_head() + b"x" * 1000)
        await first.wait()
        call.reset() if how == "reset" else call.writer.close()

    first = asyncio.Event()
    far.handler = handle
    async with client_of(path) as client:
        await client.send(post(path, length=2, body=b"{}"))
        assert (await client.head())[0] == 200
        begin = await client.reader.readexactly(1000)
        first.set()
        rest = await asyncio.wait_for(client.rest(), 10)
        assert len(begin + rest) < 1100
        assert not rest.endswith(b"0\r\n\r\n"), "nobody may take it for whole"
    assert path.outcomes() == [("platform_error", 502)]
    assert 900 < path.events()[0].bytes_out < 1100
    assert path.figures.inflight == 0


@pytest.mark.parametrize("size", [None, LARGE])
async def test_an_answer_that_cannot_be_metered_is_never_whole(tmp_path, far, size):
    async def handle(call: Call) -> None:
        await call.body()
        rest = b"x" * LARGE
        await call.say(CHUNKED + chunk(rest) + b"0\r\n\r\n" if size is None else large_head() + rest)

    far.handler = handle
    async with streamed_path(tmp_path, far.url, journal_limit=0) as path, client_of(path) as client:
        await client.send(post(path, length=2, body=b"{}"))
        assert (await client.head())[0] == 200
        rest = await asyncio.wait_for(client.rest(), 10)
        assert not rest.endswith(b"0\r\n\r\n")
        assert size is None or len(rest) < size
        assert path.events() == []


async def test_p13_a_client_that_leaves_during_its_answer_ends_the_work_and_is_recorded_once(path, far):
    ended = asyncio.Event()

    async def handle(call: Call) -> None:
        await call.body()
        await call.say(CHUNKED)
        try:
            while True:
                await call.say(chunk(b"x" * 10_000))
        finally:
            ended.set()

    far.handler = handle
    async with client_of(path) as client:
        await client.send(post(path, length=2, body=b"{}"))
        assert (await client.head())[0] == 200
        await client.reader.readexactly(50_000)
        client.leave()
        await asyncio.wait_for(ended.wait(), 10)
    await until(path.outcomes)
    assert path.outcomes() == [("cancelled", 499)]
    assert path.events()[0].bytes_out >= 40_000
    assert path.figures.inflight == 0


async def test_p13_a_client_that_leaves_after_all_was_made_is_billed_once(path, far):
    async def handle(call: Call) -> None:
        await call.body()
        await call.say(large_head() + b"x" * LARGE)

    far.handler = handle
    async with client_of(path) as client:
        await client.send(post(path, length=2, body=b"{}"))
        await until(path.outcomes)
        client.leave()
    assert path.outcomes() == [("ok", 200)]


async def test_a_reader_that_crawls_holds_the_far_side_back(path, far):
    """The far side cannot write on while nobody reads: the gateway does not gather."""
    written = 0
    total = 40_000_000

    async def handle(call: Call) -> None:
        nonlocal written
        await call.body()
        await call.say(large_head(total))
        piece = b"x" * 100_000
        while written < total:
            await call.say(piece)
            written += len(piece)

    far.handler = handle
    async with client_of(path, receive_buffer=4096) as client:
        await client.send(post(path, length=2, body=b"{}"))
        await client.head()
        assert await standstill(lambda: written) < total // 2
        size = 0
        while size < total:
            size += len(await client.reader.read(1 << 20))
        assert size == total
    assert path.outcomes() == [("ok", 200)]


async def test_a_reader_that_takes_nothing_is_given_up(tmp_path, far):
    ended = asyncio.Event()

    async def handle(call: Call) -> None:
        await call.body()
        await call.say(CHUNKED)
        try:
            while True:
                await call.say(chunk(b"x" * 100_000))
        finally:
            ended.set()

    far.handler = handle
    async with streamed_path(tmp_path, far.url, stalled_s=0.5) as path, client_of(path, receive_buffer=4096) as client:
        client.reader._limit = 1024  # so that it really stops reading
        await client.send(post(path, length=2, body=b"{}"))
        await asyncio.wait_for(ended.wait(), 20)
        await until(path.outcomes)
        assert path.outcomes() == [("cancelled", 499)]
        assert path.figures.inflight == 0


async def test_an_answer_before_the_body_is_whole_reaches_the_client(path, far):
    async def handle(call: Call) -> None:
        await call.reader.readexactly(5)
        await call.say(answer(b'{"error":"no","code":"refused"}', status="422 No"))
        await call.gone()

    far.handler = handle
    async with client_of(path) as client:
        await client.send(post(path, length=1000, body=b"start"))
        assert (await heard(client)).refusal == (422, "refused")
    assert path.outcomes() == [("model_error", 422)]


async def test_a_client_that_leaves_while_both_directions_stream_is_recorded_once(path, far):
    ended = asyncio.Event()

    async def handle(call: Call) -> None:
        assert await call.chunk() == b"one"
        await call.say(CHUNKED + chunk(b"two"))
        await call.gone()
        ended.set()

    far.handler = handle
    async with client_of(path) as client:
        await client.send(post(path, length=None, body=chunk(b"one")))
        await client.head()
        assert await next_chunk(client) == b"two"
        client.leave()
        await asyncio.wait_for(ended.wait(), 10)
    await until(path.outcomes)
    assert path.outcomes() == [("cancelled", 499)]
    assert path.figures.inflight == 0


async def test_a_conversation_in_both_directions_ends_well(path, far):
    async def handle(call: Call) -> None:
        await call.say(CHUNKED)
        while piece := await call.chunk():
            await call.say(chunk(piece.upper()))
        await call.say(b"0\r\n\r\n")

    far.handler = handle
    async with client_of(path) as client:
        await client.send(post(path, length=None, body=chunk(b"begin")))
        await client.head()
        assert await next_chunk(client) == b"BEGIN"
        for word in (b"one", b"two"):
            await client.send(chunk(word))
            assert await next_chunk(client) == word.upper()
        await client.send(b"0\r\n\r\n")
        assert await next_chunk(client) == b""
    assert path.outcomes() == [("ok", 200)]
    assert (path.events()[0].bytes_in, path.events()[0].bytes_out) == (11, 11)


async def test_refusals_before_the_ingress_are_as_ever(path, far):
    async with client_of(path) as client:
        await client.send(post(path, length=2, body=b"{}", model="absent"))
        assert (await heard(client)).refusal == (404, "not_found")
        await client.send(post(path, length=2, body=b"{}").replace(path.secret.encode(), b"wrong"))
        assert (await heard(client)).refusal == (401, "unauthenticated")
        await path.parts.tenants.change("acme", {"requests_per_second": 0.001, "burst": 1})
        await client.send(post(path, length=2, body=b"{}"))
        assert (await heard(client)).status == 200
        await client.send(post(path, length=2, body=b"{}"))
        throttled = await heard(client)
        assert throttled.refusal == (429, "rate_limited")
    assert len(far.calls) == 1
    assert path.outcomes() == [("ok", 200), ("throttled", 429)]
    assert json.loads(throttled.body)["limit"] == 1
