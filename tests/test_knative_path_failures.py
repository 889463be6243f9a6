"""The ingress client when connections fail, answers break the rules (S21), time runs out (K6, K8) or nobody waits (P13)."""

import asyncio
import contextlib
import select
import socket

import pytest

from knative_path_parts import PATH, a_request, always, ask, failure_of, ingress_to, soon
from roost_platform.domain.errors import (
    DeadlineExceeded,
    ModelFailed,
    ReplicaLost,
    TooLarge,
    Unavailable,
)
from roost_platform.engines.port import UpstreamRequest
from streaming_parts import FIGURES, HOST, SECRET, Call, FarSide, answer, until

# Connections that fail


def refused_url() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


async def test_an_ingress_that_is_not_there_is_tried_again_and_then_told():
    far = FarSide(always(answer()))
    far.url = refused_url()
    taken = 0

    async def pieces():
        nonlocal taken
        taken += 1
        yield b"x"

    error = await failure_of(far, UpstreamRequest("POST", PATH, [], pieces(), "call-1"))
    assert (type(error), error.code, taken) == (Unavailable, "ingress_unreachable", 0)


async def test_an_ingress_that_comes_back_within_the_tries_is_used():
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    listener.close()
    far = FarSide(always(answer(b"back")))
    far.url = f"http://127.0.0.1:{port}"
    asking = asyncio.create_task(ask(far, a_request(b"x"), pauses_s=(0.05,) * 200))
    await asyncio.sleep(0)
    server = await asyncio.start_server(far._serve, "127.0.0.1", port)
    response, _ = await asking
    assert response.body == b"back"
    server.close()
    await server.wait_closed()


async def test_a_deadline_ends_the_tries():
    far = FarSide(always(answer()))
    far.url = refused_url()
    error = await failure_of(far, within=0.2, pauses_s=(60.0,))
    assert isinstance(error, DeadlineExceeded)


@pytest.mark.parametrize(
    "after",
    [b"", b"HTTP/1.1 200 OK\r\ncontent-le", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n" + FIGURES + b"\r\nhalf"],
)
@pytest.mark.parametrize("how", ["reset", "close"])
async def test_a_connection_that_breaks_loses_the_replica_and_nothing_is_sent_twice(after, how):
    async def handle(call: Call) -> None:
        await call.body()
        await call.say(after)
        call.reset() if how == "reset" else call.writer.close()

    async with FarSide(handle).serving() as far:
        error = await failure_of(far)
    assert (type(error), len(far.calls)) == (ReplicaLost, 1)


@pytest.mark.parametrize(
    "said",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n" + FIGURES + b"\r\n{}",
        b"HTTP/1.1 200 OK\r\n" + FIGURES + b"\r\n{}",  # ends where the connection ends: nobody could tell a half
        answer(headers=b"roost-compute-us: -1\r\nroost-queue-us: 0\r\nroost-rows: 0\r\n"),
        answer(headers=b"roost-compute-us: 1\r\n"),
        answer(headers=b"roost-compute-us: %b\r\nroost-queue-us: 0\r\nroost-rows: 0\r\n" % (b"9" * 16)),
        b"HTTP/1.1 200 OK\r\nx: " + b"x" * 20_000 + b"\r\n" + FIGURES + b"\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 5_000,
        answer(b"x" * 70_000, status="500 No"),
    ],
)
async def test_s21_answers_that_break_the_rules_are_no_answers(said):
    async def handle(call: Call) -> None:
        await call.body()
        await call.say(said)
        call.writer.close()

    async with FarSide(handle).serving() as far:
        error = await failure_of(far)
    assert isinstance(error, ReplicaLost)


async def test_s21_a_head_without_end_is_not_read_to_its_end():
    written = 0

    async def handle(call: Call) -> None:
        nonlocal written
        await call.body()
        await call.say(b"HTTP/1.1 200 OK\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                await call.say(b"x: " + b"y" * 1000 + b"\r\n")
                written += 1005

    async with FarSide(handle).serving() as far:
        error = await failure_of(far)
        assert isinstance(error, ReplicaLost)
        await asyncio.sleep(0)
    assert written < 16 << 20


async def test_s21_an_endless_answer_is_cut_at_the_limit():
    written = 0

    async def handle(call: Call) -> None:
        nonlocal written
        await call.body()
        await call.say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n" + FIGURES + b"\r\n")
        while True:
            await call.say(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            written += 0x10000

    async with FarSide(handle).serving() as far:
        error = await failure_of(far, answer_bytes=1 << 20)
        assert (type(error), error.code) == (ModelFailed, "answer_too_large")
        far.handler = always(b"HTTP/1.1 200 OK\r\ncontent-length: 2000000\r\n" + FIGURES + b"\r\n")
        error = await failure_of(far, answer_bytes=1 << 20)
        assert (type(error), error.code) == (ModelFailed, "answer_too_large")
    assert written < 64 << 20


# Deadlines, and who gives up


async def test_k6_a_deadline_ends_the_call_and_the_connection():
    ended = asyncio.Event()

    async def handle(call: Call) -> None:
        await call.body()
        await call.gone()
        ended.set()

    async with FarSide(handle).serving() as far:
        error = await failure_of(far, within=0.2)
        await asyncio.wait_for(ended.wait(), 10)
    assert (type(error), len(far.calls)) == (DeadlineExceeded, 1)


async def test_k6_a_deadline_ends_an_upload_that_nobody_takes():
    """What is in buffers on the way does not keep the news back: the connection is reset while nobody reads it."""
    reset = asyncio.Event()

    async def endless():
        while True:
            yield b"x" * 100_000

    async def handle(call: Call) -> None:
        poller = select.poll()
        poller.register(call.writer.get_extra_info("socket").fileno(), 0)  # errors and hang-ups only
        await until(lambda: bool(poller.poll(0)))
        reset.set()
        call.writer.close()

    async with FarSide(handle).serving() as far, ingress_to(far) as ingress:
        async with ingress.lease(host=HOST, secret=SECRET, deadline=soon(0.3)) as upstream:
            with pytest.raises(DeadlineExceeded):
                await upstream.send(UpstreamRequest("POST", PATH, [], endless(), "call-1"))
        await asyncio.wait_for(reset.wait(), 10)


async def test_k8_an_answer_that_stops_half_way_is_ended_at_the_deadline():
    async def handle(call: Call) -> None:
        await call.body()
        await call.say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n" + FIGURES + b"\r\n4\r\nfour\r\n")
        await call.gone()

    async with FarSide(handle).serving() as far:
        assert isinstance(await failure_of(far, within=0.3), DeadlineExceeded)


async def test_the_deadline_stands_still_while_the_client_is_waited_for():
    async def slow_client():
        for _ in range(4):
            await asyncio.sleep(0.2)
            yield b"x"

    async def handle(call: Call) -> None:
        assert await call.body() == b"xxxx"
        body = b"y" * 200_000
        await call.say(answer(body))

    async with (
        FarSide(handle).serving() as far,
        ingress_to(far) as ingress,
        ingress.lease(host=HOST, secret=SECRET, deadline=soon(0.5)) as upstream,
    ):
        response = await upstream.send(UpstreamRequest("POST", PATH, [], slow_client(), "call-1"))
        size = 0
        async for piece in response.body:
            size += len(piece)
            if size < 200_000:
                await asyncio.sleep(0.3)
        assert size == 200_000


async def test_leaving_the_lease_cuts_off_what_is_not_finished():
    ended = asyncio.Event()

    async def handle(call: Call) -> None:
        await call.body()
        await call.say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n" + FIGURES + b"\r\n4\r\nfour\r\n")
        await call.gone()
        ended.set()

    async with FarSide(handle).serving() as far, ingress_to(far) as ingress:
        async with ingress.lease(host=HOST, secret=SECRET, deadline=soon()) as upstream:
            response = await upstream.send(a_request(b"x"))
            assert await anext(response.body) == b"four"
        await asyncio.wait_for(ended.wait(), 10)


async def test_cancelling_the_caller_cuts_the_connection():
    reached, ended = asyncio.Event(), asyncio.Event()

    async def handle(call: Call) -> None:
        await call.body()
        reached.set()
        await call.gone()
        ended.set()

    async with FarSide(handle).serving() as far:
        asking = asyncio.create_task(ask(far, a_request(b"x")))
        await asyncio.wait_for(reached.wait(), 10)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(ended.wait(), 10)


async def test_what_the_body_raises_ends_the_request_unfinished():
    async def too_much():
        yield b"some"
        raise TooLarge("the body is larger than 4 bytes")

    seen: list[bytes] = []

    async def handle(call: Call) -> None:
        seen.append(await call.reader.read(-1))
        call.writer.close()

    async with FarSide(handle).serving() as far:
        error = await failure_of(far, UpstreamRequest("POST", PATH, [], too_much(), "call-1"))
        assert isinstance(error, TooLarge)
    assert not seen or not seen[0].endswith(b"0\r\n\r\n"), "nobody may take it for whole"


async def test_an_answer_before_the_body_is_whole_is_heard():
    never = asyncio.Event()

    async def slow():
        yield b"some"
        await never.wait()

    async def handle(call: Call) -> None:
        await call.chunk()
        await call.say(answer(b'{"code":"too_large"}', status="413 Too Large"))
        await call.gone()

    async with FarSide(handle).serving() as far:
        response, _ = await ask(far, UpstreamRequest("POST", PATH, [], slow(), "call-1"))
    assert response.status == 413
