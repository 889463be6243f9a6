"""The ingress client against servers that behave as they are told: what travels, and what each failure means."""

import asyncio

import pytest

from knative_path_parts import PATH, a_request, always, ask, failure_of, ingress_to, soon
from roost_platform.domain.errors import (
    DeadlineExceeded,
    ReplicaLost,
    TooLarge,
    Unavailable,
)
from roost_platform.engines.port import UpstreamRequest
from streaming_parts import FIGURES, HOST, SECRET, Call, FarSide, answer

# What travels


async def test_k25_a_request_arrives_as_it_was_sent():
    own = [
        (b"content-type", b"application/octet-stream"),
        (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        (b"x-user", b'tab\tand "quotes", \xc3\xa9'),
        (b"x-user", b"twice"),
        (b"x-user", b"\xe9\xff\x80 is no UTF-8"),
        (b"accept-encoding", b"gzip;q=0.5"),
    ]
    left_behind = [(b"host", b"roost.example"), (b"x-envoy-retry-on", b"5xx"), (b"x-envoy-max-retries", b"9")]

    async def handle(call: Call) -> None:
        assert call.line == b"POST /v2/models/iris/infer HTTP/1.1"
        assert call.header(b"host") == HOST.encode()
        assert call.header(b"roost-service-secret") == SECRET.encode()
        assert call.header(b"x-request-id") == b"call-1"
        assert 0 < int(call.header(b"roost-timeout-ms")) <= 30_000
        assert call.header(b"Content-Length") == b"6"
        names = {b"host", b"roost-service-secret", b"x-request-id", b"roost-timeout-ms", b"Content-Length"}
        assert sorted(pair for pair in call.pairs if pair[0] not in names) == sorted(own)
        assert await call.body() == b"\x00\r\n\xff12"
        await call.say(answer(b'{"y":1}', headers=FIGURES + b"Content-Type: application/json\r\nX-Other:  a \r\n"))

    async with FarSide(handle).serving() as far:
        response, upstream = await ask(far, a_request(b"\x00\r\n", b"", b"\xff12", headers=[*own, *left_behind]))
    assert (response.status, response.body) == (200, b'{"y":1}')
    assert (response.compute_us, response.queue_us, response.rows) == (1500, 5, 3)
    assert (b"content-type", b"application/json") in response.headers
    assert (b"x-other", b"a") in response.headers
    assert (upstream.queue_us, upstream.cold_start_us) == (0, 0)


async def test_a_request_without_headers_gets_none_that_it_did_not_have():
    async def handle(call: Call) -> None:
        names = {name for name, _ in call.pairs}
        expected = {b"host", b"roost-service-secret", b"roost-timeout-ms", b"x-request-id", b"Content-Length"}
        assert names == expected
        assert await call.body() == b""
        await call.say(answer())

    async with FarSide(handle).serving() as far:
        await ask(far, a_request())


@pytest.mark.parametrize("length", [None, 9])
async def test_a_body_goes_out_piece_by_piece_and_the_answer_comes_in_so(length):
    """Each side waits for the other's piece: nothing is gathered on the way."""
    go_on = asyncio.Event()

    async def pieces():
        yield b"one"
        await go_on.wait()
        yield b"two"
        yield b"six"

    async def handle(call: Call) -> None:
        if length is None:
            assert await call.chunk() == b"one"
        else:
            assert await call.reader.readexactly(3) == b"one"
        go_on.set()
        rest = b"".join([await call.chunk() for _ in range(3)]) if length is None else await call.reader.readexactly(6)
        assert rest == b"twosix"
        await call.say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n" + FIGURES + b"\r\n4\r\nfour\r\n")
        await heard_four.wait()
        await call.say(b"4\r\nfive\r\n0\r\n\r\n")

    heard_four = asyncio.Event()
    async with (
        FarSide(handle).serving() as far,
        ingress_to(far) as ingress,
        ingress.lease(host=HOST, secret=SECRET, deadline=soon()) as upstream,
    ):
        response = await upstream.send(UpstreamRequest("POST", PATH, [], pieces(), "call-1", length))
        heard = []
        async for piece in response.body:
            heard.append(piece)
            heard_four.set()
        assert b"".join(heard) == b"fourfive"
        assert heard[0] == b"four"


async def test_a_compressed_answer_and_a_redirect_are_not_touched():
    zipped = answer(b"\x1f\x8b not really", headers=FIGURES + b"content-encoding: gzip\r\n")
    async with FarSide(always(zipped)).serving() as far:
        response, _ = await ask(far, a_request(b"x"))
        assert response.body == b"\x1f\x8b not really"
        far.handler = always(
            answer(status="307 Temporary Redirect", headers=FIGURES + b"location: http://127.0.0.1:1/\r\n")
        )
        response, _ = await ask(far, a_request(b"x"))
        assert response.status == 307


async def test_connections_are_kept_and_as_many_as_are_needed():
    together = asyncio.Barrier(20)

    async def handle(call: Call) -> None:
        await call.body()
        await together.wait()
        await call.say(answer())

    async with FarSide(handle).serving() as far, ingress_to(far) as ingress:

        async def one() -> None:
            async with ingress.lease(host=HOST, secret=SECRET, deadline=soon()) as upstream:
                assert (await upstream.send(a_request(b"x"))).status == 200

        for _ in range(3):
            await asyncio.gather(*(one() for _ in range(20)))
        assert (len(far.calls), far.connections) == (60, 20)


async def test_a_wake_is_told_from_a_wait_for_the_client():
    async def slowly():
        yield b"a"
        await asyncio.sleep(0.3)
        yield b"b"

    async with FarSide(always(answer())).serving() as far:
        _, upstream = await ask(far, UpstreamRequest("POST", PATH, [], slowly(), "call-1", 2), asleep=True)
        assert 1 <= upstream.cold_start_us < 300_000, "the client's own 0.3 s are none of it"
        assert upstream.queue_us == upstream.cold_start_us

        async def waking(call: Call) -> None:
            await call.body()
            await asyncio.sleep(0.2)
            await call.say(answer())

        far.handler = waking
        _, upstream = await ask(far, a_request(b"x"), asleep=True)
        assert upstream.cold_start_us >= 200_000 - 1505 - 10_000


# What the replica says passes, whatever it is


@pytest.mark.parametrize("status", ["400 Bad Request", "404 Not Found", "422 No", "500 Oh", "503 Full", "504 Late"])
async def test_answers_with_figures_are_the_replicas(status):
    said = answer(b'{"error":"x","code":"y"}', status=status, headers=FIGURES + b"retry-after: 7\r\n")
    async with FarSide(always(said)).serving() as far:
        response, _ = await ask(far, a_request(b"x"))
    assert (response.status, response.body) == (int(status[:3]), b'{"error":"x","code":"y"}')
    assert (b"retry-after", b"7") in response.headers


async def test_a_replica_that_does_not_know_the_secret_is_not_the_clients_fault():
    async with FarSide(always(answer(status="401 Unauthorized"))).serving() as far:
        error = await failure_of(far)
    assert (type(error), error.code) == (Unavailable, "replica_refused")


# What the infrastructure says

ENVOY = b"upstream connect error or disconnect/reset before headers. "
SAID = [
    ("404 Not Found", b"", Unavailable, "not_routed", 3),
    ("404 Not Found", b'Error getting active endpoint: revision "x" not found\n', Unavailable, "not_routed", 3),
    ("503 Service Unavailable", b"no healthy upstream", Unavailable, "unavailable", 3),
    ("503 Service Unavailable", ENVOY + b"reset reason: remote connection failure", Unavailable, "unavailable", 3),
    ("503 Service Unavailable", ENVOY + b"reset reason: overflow", Unavailable, "queue_full", 1),
    ("503 Service Unavailable", b"pending request queue full\n", Unavailable, "queue_full", 1),
    ("503 Service Unavailable", b"context deadline exceeded\n", Unavailable, "unavailable", 1),
    ("503 Service Unavailable", ENVOY + b"reset reason: connection termination", ReplicaLost, "replica_lost", 1),
    ("502 Bad Gateway", b"dial tcp 10.0.0.1:8012: connect: connection refused\n", ReplicaLost, "replica_lost", 3),
    ("502 Bad Gateway", b"EOF\n", ReplicaLost, "replica_lost", 1),
    ("504 Gateway Timeout", b"activator request timeout", DeadlineExceeded, "deadline_exceeded", 1),
    ("504 Gateway Timeout", b"request timeout", DeadlineExceeded, "deadline_exceeded", 1),
    ("504 Gateway Timeout", b"upstream request timeout", DeadlineExceeded, "deadline_exceeded", 1),
    ("431 Request Header Fields Too Large", b"", TooLarge, "head_too_large", 1),
    ("500 Internal Server Error", b"", Unavailable, "ingress_refused", 1),
    ("403 Forbidden", b"RBAC: access denied", Unavailable, "ingress_refused", 1),
    ("200 OK", b"a page of somebody else", Unavailable, "ingress_refused", 1),
    ("302 Found", b"", Unavailable, "ingress_refused", 1),
]


@pytest.mark.parametrize(("status", "text", "kind", "code", "times"), SAID)
async def test_503_and_504_are_told_apart_and_only_what_nobody_has_seen_is_sent_again(status, text, kind, code, times):
    async with FarSide(always(answer(text, status=status, headers=b"server: envoy\r\n"))).serving() as far:
        error = await failure_of(far)
    assert (type(error), error.code, len(far.calls)) == (kind, code, times)
    assert text.decode() not in error.message or not text


async def test_retry_after_of_the_infrastructure_is_kept():
    said = answer(b"pending request queue full", status="503 Service Unavailable", headers=b"Retry-After: 17\r\n")
    async with FarSide(always(said)).serving() as far:
        assert (await failure_of(far)).retry_after_s == 17


async def test_a_route_that_comes_a_moment_later_is_waited_for():
    async def handle(call: Call) -> None:
        assert await call.body() == b"body"
        await call.say(answer() if len(far.calls) == 3 else answer(status="404 Not Found", headers=b""))

    async with FarSide(handle).serving() as far:
        response, _ = await ask(far, a_request(b"body"))
    assert (response.status, len(far.calls)) == (200, 3)


async def test_a_small_streamed_body_is_sent_again_and_a_large_one_is_not():
    async def pieces(count: int):
        for _ in range(count):
            yield b"x" * 1000

    async def handle(call: Call) -> None:
        sizes.append(len(await call.body()))
        await call.say(answer() if len(sizes) == 2 else answer(b"no healthy upstream", status="503 No", headers=b""))

    sizes: list[int] = []
    async with FarSide(handle).serving() as far:
        response, _ = await ask(far, UpstreamRequest("POST", PATH, [], pieces(5), "call-1"))
        assert (response.status, sizes) == (200, [5000, 5000])
        sizes.clear()
        error = await failure_of(far, UpstreamRequest("POST", PATH, [], pieces(100), "call-1"))
    assert (error.code, sizes) == ("unavailable", [100_000])
