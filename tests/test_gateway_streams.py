"""Streamed predictions through the whole gateway: real client, real HTTP server, real ingress client, real far side."""

import asyncio

import pytest

from gateway_parts import IRIS
from gateway_streams_parts import BODY, chunk, heard, well
from roost_gateway.predict.headers import sort_headers
from streaming_parts import (
    HOST,
    SECRET,
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


async def test_a_prediction_passes_and_is_metered(path, far):
    async with client_of(path) as client:
        for _ in range(3):
            await client.send(post(path, b"x-request-id: mine", length=len(BODY), body=BODY))
            answered = await heard(client)
            assert (answered.status, answered.body) == (200, b'{"outputs":[]}')
            assert sorted(name for name, _ in answered.headers) == [
                b"content-length", b"content-type", b"date", b"x-request-id",
            ]  # fmt: skip
    assert far.connections == 1
    events = path.events()
    assert len(events) == 3
    event = events[0]
    assert (str(event.outcome), event.status, event.version, event.request_id) == ("ok", 200, 1, "mine")
    assert (event.bytes_in, event.bytes_out, event.rows) == (len(BODY), 14, 3)
    assert (event.compute_us, event.queue_us, event.cold_start_us) == (1500, 5, 0)
    assert path.figures.inflight == 0


async def test_nothing_is_held_for_the_fast_lane(path):
    incoming = sort_headers([(b"authorization", f"Bearer {path.secret}".encode()), (b"content-length", b"2")])
    assert not path.app.lane.welcomes("/t/acme/v2/models/iris/infer", b"", incoming)


async def test_k25_headers_through_the_whole_gateway(path, far):
    own = [
        (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        (b"x-user", b'\xe9\xff\x80 tab\tand "quotes"'),
        (b"x-user", "é twice".encode()),
        (b"content-type", b"application/json"),
    ]
    dropped = [
        (b"K-Network-Probe", b"activator"),
        (b"K-Kubelet-Probe", b"1"),
        (b"Knative-Serving-Revision", b"anothers-00001"),
        (b"User-Agent", b"Knative-Activator-Probe"),
        (b"Roost-Service-Secret", b"guess"),
        (b"roost-timeout-ms", b"1"),
        (b"x-envoy-retry-on", b"5xx"),
        (b"X-Forwarded-Proto", b"gopher"),
        (b"X-Forwarded-For", b"not an address"),
        (b"Forwarded", b"for=;;nonsense"),
    ]
    lines = [b"%b: %b" % pair for pair in own + dropped]
    async with client_of(path) as client:
        await client.send(post(path, *lines, length=2, body=b"{}"))
        assert (await heard(client)).status == 200
    (call,) = far.calls
    assert call.line == b"POST /v2/models/iris/infer HTTP/1.1"
    kept = [pair for pair in call.pairs if pair in own]
    assert sorted(kept) == sorted(own)
    theirs = sorted(
        pair for pair in call.pairs if pair not in own and pair[0] not in (b"roost-timeout-ms", b"x-request-id")
    )
    assert theirs == sorted(
        [
            (b"host", HOST.encode()),
            (b"roost-service-secret", SECRET.encode()),
            (b"Content-Length", b"2"),
            (b"x-forwarded-for", b"127.0.0.1"),
            (b"x-forwarded-host", b"roost.example:8000"),
            (b"x-forwarded-proto", b"http"),
            (b"forwarded", b'for=127.0.0.1;host="roost.example:8000";proto=http'),
        ]
    )
    assert 0 < int(call.header(b"roost-timeout-ms")) <= 300_000


async def test_k25_what_proxies_before_the_gateway_said_is_continued(path, far):
    before = (
        b"X-Forwarded-For: 192.0.2.7, 2001:db8::1",
        b"X-Forwarded-Host: public.example",
        b"X-Forwarded-Proto: https",
        b'Forwarded: for=192.0.2.7;proto=https, for="[2001:db8::1]"',
    )
    async with client_of(path) as client:
        await client.send(post(path, *before, length=2, body=b"{}"))
        assert (await heard(client)).status == 200
    (call,) = far.calls
    assert call.header(b"x-forwarded-for") == b"192.0.2.7, 2001:db8::1, 127.0.0.1"
    assert call.header(b"x-forwarded-host") == b"public.example"
    assert call.header(b"x-forwarded-proto") == b"https"
    assert call.header(b"forwarded") == (
        b'for=192.0.2.7;proto=https, for="[2001:db8::1]", for=127.0.0.1;host="roost.example:8000";proto=http'
    )


# Bodies on their way up


async def test_pieces_travel_while_the_client_still_sends(path, far):
    first = asyncio.Event()

    async def handle(call: Call) -> None:
        assert await call.chunk() == b"one"
        first.set()
        assert await call.body() == b"two"
        await call.say(answer())

    far.handler = handle
    async with client_of(path) as client:
        await client.send(post(path, length=None, body=chunk(b"one")))
        await first.wait()
        await client.send(chunk(b"two") + b"0\r\n\r\n")
        assert (await heard(client)).status == 200
    assert path.events()[0].bytes_in == 6


async def test_a_declared_length_over_the_limit_never_reaches_the_ingress(path, far):
    async with client_of(path) as client:
        await client.send(post(path, length=60_000_001))
        assert (await heard(client)).refusal == (413, "body_too_large")
    assert not far.calls
    assert path.outcomes() == [("client_error", 413)]


async def test_a_body_that_grows_over_the_limit_is_refused_and_never_ended(path, far):
    ends: list[bytes] = []

    async def handle(call: Call) -> None:
        received = b""
        while piece := await call.reader.read(1 << 20):
            received = (received + piece)[-10:]
        ends.append(received)
        call.writer.close()

    far.handler = handle
    async with client_of(path) as client:
        piece = chunk(b"x" * 5_000_000)
        await client.send(post(path, length=None))
        for _ in range(13):
            await client.send(piece)
        assert (await heard(client)).refusal == (413, "body_too_large")
    assert path.outcomes() == [("client_error", 413)]
    assert all(not end.endswith(b"0\r\n\r\n") for end in ends)
    assert path.figures.inflight == 0


async def test_an_upload_that_nobody_takes_makes_the_client_wait(path, far):
    """Most of what is to be sent is still the client's: the gateway does not gather."""
    go_on = asyncio.Event()

    async def handle(call: Call) -> None:
        await go_on.wait()
        assert len(await call.body()) == size
        await call.say(answer())

    size = 50_000_000
    far.handler = handle
    async with client_of(path) as client:
        client.writer.write(post(path, length=size, body=b"x" * size))
        await until(lambda: len(far.calls) == 1)
        assert await standstill(client.writer.transport.get_write_buffer_size) > size // 2
        go_on.set()
        assert (await heard(client)).status == 200
    assert path.events()[0].bytes_in == size


async def test_p13_a_client_that_leaves_during_its_upload_ends_the_work(path, far):
    ended = asyncio.Event()

    async def handle(call: Call) -> None:
        assert await call.reader.readexactly(5) == b"start"
        client.leave()
        await call.gone()
        ended.set()

    far.handler = handle
    async with client_of(path) as client:
        await client.send(post(path, length=1000, body=b"start"))
        await asyncio.wait_for(ended.wait(), 10)
    await until(path.outcomes)
    assert path.outcomes() == [("cancelled", 499)]
    assert path.events()[0].bytes_in == 5
    assert path.figures.inflight == 0


# While the model works


async def test_p13_a_client_that_leaves_while_the_model_runs_ends_the_work(path, far):
    await path.parts.tenants.change("acme", {"concurrent_requests": 1})
    ended = asyncio.Event()

    async def handle(call: Call) -> None:
        await call.body()
        client.leave()
        await call.gone()
        ended.set()

    far.handler = handle
    async with client_of(path) as client:
        await client.send(post(path, length=2, body=b"{}"))
        await asyncio.wait_for(ended.wait(), 10)
    await until(path.outcomes)
    assert path.outcomes() == [("cancelled", 499)]
    far.handler = well
    async with client_of(path) as client:
        await client.send(post(path, length=2, body=b"{}"))
        assert (await heard(client)).status == 200, "the one call that the tenant may have is free again"


async def test_p13_a_client_that_leaves_while_no_replica_can_be_had_is_recorded_once(path, far):
    waiting = asyncio.Event()

    class Waiting:
        async def __aenter__(self):
            waiting.set()
            await asyncio.Event().wait()

        async def __aexit__(self, *_):
            raise AssertionError("never entered")

    path.engine.lease = lambda *_: Waiting()
    async with client_of(path) as client:
        await client.send(post(path, length=2, body=b"{}"))
        await asyncio.wait_for(waiting.wait(), 10)
        client.leave()
        await until(path.outcomes)
    assert path.outcomes() == [("cancelled", 499)]
    assert not far.calls
    assert path.figures.inflight == 0


async def test_k6_a_call_over_its_timeout_is_answered_504_and_cut_off_behind(path, far):
    version = await path.parts.add_version(IRIS, digest="ab")
    path.parts.engine.ready(await path.parts.deploy(version, scaling_options={"timeout": "1"}))
    await path.parts.deployments.settled(IRIS)
    ended = asyncio.Event()

    async def handle(call: Call) -> None:
        assert int(call.header(b"roost-timeout-ms")) <= 1000
        await call.body()
        await call.gone()
        ended.set()

    far.handler = handle
    async with client_of(path) as client:
        begin = asyncio.get_running_loop().time()
        await client.send(post(path, length=2, body=b"{}"))
        assert (await heard(client)).refusal == (504, "deadline_exceeded")
        assert asyncio.get_running_loop().time() - begin >= 0.99
        await asyncio.wait_for(ended.wait(), 10)
    assert path.outcomes() == [("platform_error", 504)]
    assert path.figures.inflight == 0


@pytest.mark.parametrize(
    ("status", "text", "expected"),
    [
        ("503 Service Unavailable", b"pending request queue full\n", (503, "queue_full")),
        ("504 Gateway Timeout", b"activator request timeout", (504, "deadline_exceeded")),
        ("404 Not Found", b"", (503, "not_routed")),
        ("502 Bad Gateway", b"EOF", (502, "replica_lost")),
    ],
)
async def test_what_the_infrastructure_says_is_told_in_the_gateways_words(path, far, status, text, expected):
    async def handle(call: Call) -> None:
        await call.body()
        await call.say(answer(text, status=status, headers=b"retry-after: 3\r\n"))

    far.handler = handle
    async with client_of(path) as client:
        await client.send(post(path, length=2, body=b"{}"))
        answered = await heard(client)
    assert answered.refusal == expected
    assert answered.header("retry-after") == ("3" if expected[0] == 503 else None)
    assert path.outcomes() == [("platform_error", expected[0])]


async def test_a_refusal_of_the_replica_carries_the_request_id(path, far):
    async def handle(call: Call) -> None:
        await call.body()
        await call.say(answer(b'{"error":"no x","code":"invalid_input"}', status="400 Bad Request"))

    far.handler = handle
    async with client_of(path) as client:
        await client.send(post(path, b"x-request-id: mine", length=2, body=b"{}"))
        answered = await heard(client)
    assert answered.refusal == (400, "invalid_input")
    assert answered.json()["request_id"] == "mine"
