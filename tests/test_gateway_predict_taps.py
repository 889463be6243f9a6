"""Taps see what was answered and metered, after it, and can harm nobody."""

import asyncio

import pytest

from gateway_parts import IRIS
from gateway_streams_parts import BODY as STREAMED
from gateway_streams_parts import LARGE, heard, large_head, well
from predict_parts import BODY, PredictPath, predict_path
from roost_gateway.predict.taps import KEPT_BYTES, Seen
from roost_platform.domain.errors import ReplicaLost, Unavailable
from roost_platform.domain.services import ServiceKey
from streaming_parts import Call, FarSide, client_of, post, streamed_path


class Notes:
    """Writes down what it sees; raises when told to."""

    def __init__(self, wants: bool = True) -> None:
        self.calls: list[Seen] = []
        self.error: Exception | None = None
        self._wants = wants

    def wants(self, key: ServiceKey) -> bool:
        assert key == IRIS
        return self._wants

    def seen(self, call: Seen) -> None:
        self.calls.append(call)
        if self.error is not None:
            raise self.error


@pytest.fixture
async def path(tmp_path):
    async with predict_path(tmp_path) as made:
        yield made


@pytest.fixture
def notes(path):
    notes = Notes()
    path.app.taps.set(IRIS, "notes", notes)
    return notes


async def test_a_call_is_seen_whole_once_it_is_metered(path: PredictPath, notes: Notes):
    answered = await path.call(headers=[(b"x-request-id", b"mine"), (b"x-user", b"u")], pieces=[b"123", b"45"])
    assert path.outcomes() == [("ok", 200)]
    assert notes.calls == [], "not before the answer has left"
    await asyncio.sleep(0)
    (call,) = notes.calls
    assert (call.route.key, call.path, list(call.request)) == (IRIS, "/v2/models/iris/infer", [b"123", b"45"])
    assert (b"x-user", b"u") in call.headers
    assert b"authorization" not in dict(call.headers)
    assert (call.answer, call.answer_headers) == (answered.body, [(b"content-type", b"application/json")])
    assert (call.measured.version, call.measured.status, call.measured.compute_us) == (1, 200, 1500)
    assert call.measured.request_id == "mine"
    assert 0 < call.seconds < 60


async def test_a_tap_that_fails_harms_neither_the_caller_nor_the_next_tap(path: PredictPath, notes: Notes, caplog):
    other = Notes()
    path.app.taps.set(IRIS, "other", other)
    notes.error = RuntimeError("no")
    assert (await path.call()).status == 200
    await asyncio.sleep(0)
    assert (len(notes.calls), len(other.calls)) == (1, 1)
    assert [record.message for record in caplog.records] == ["tap_failed"]


async def test_a_version_without_a_replica_is_seen_to_fail(path: PredictPath, notes: Notes):
    path.engine.refuse_lease = Unavailable("no replica", code="not_ready", retry_after_s=1)
    assert (await path.call()).status == 503
    await asyncio.sleep(0)
    (call,) = notes.calls
    assert (call.measured.status, call.measured.version, call.request, call.path) == (503, 1, None, "")


async def test_what_was_refused_before_a_replica_was_asked_is_not_seen(path: PredictPath, notes: Notes):
    assert (await path.call(declared=b"x")).status == 400
    await asyncio.sleep(0)
    assert notes.calls == []


async def test_what_a_replica_failed_is_seen(path: PredictPath, notes: Notes):
    async def lost(request):
        raise ReplicaLost("gone")

    path.engine.answer = lost
    assert (await path.call()).status == 502
    await asyncio.sleep(0)
    (call,) = notes.calls
    assert (call.measured.status, list(call.request)) == (502, [BODY])


async def test_who_left_is_not_seen(path: PredictPath, notes: Notes):
    leave, asked = asyncio.Event(), asyncio.Event()

    async def never(request):
        asked.set()
        await asyncio.Event().wait()

    path.engine.answer = never
    calling = asyncio.create_task(path.call(leave=leave))
    await asked.wait()
    leave.set()
    assert (await calling).status == 0
    await asyncio.sleep(0)
    assert path.outcomes() == [("cancelled", 499)]
    assert notes.calls == []


async def test_a_tap_is_replaced_by_name_and_taken_away(path: PredictPath, notes: Notes):
    second = Notes()
    path.app.taps.set(IRIS, "notes", second)
    await path.call()
    path.app.taps.set(IRIS, "notes", None)
    await path.call()
    await asyncio.sleep(0)
    assert (len(notes.calls), len(second.calls)) == (0, 1)
    assert path.app.taps.of(IRIS) == ()


async def test_another_models_calls_are_not_seen(path: PredictPath):
    notes = Notes()
    path.app.taps.set(ServiceKey("acme", "other"), "notes", notes)
    assert (await path.call()).status == 200
    await asyncio.sleep(0)
    assert notes.calls == []


# Where bodies stream past


@pytest.fixture
async def far():
    async with FarSide(well).serving() as far:
        yield far


@pytest.fixture
async def streamed(tmp_path, far):
    async with streamed_path(tmp_path, far.url, limits={"request_bytes": 60_000_000}, pauses_s=()) as made:
        yield made


async def ask(path, body: bytes) -> bytes:
    async with client_of(path) as client:
        await client.send(post(path, length=len(body), body=body))
        return (await heard(client)).body


async def test_a_streamed_body_is_kept_for_who_wants_it(streamed):
    keen, other = Notes(), Notes(wants=False)
    streamed.app.taps.set(IRIS, "other", other)
    await ask(streamed, STREAMED)
    streamed.app.taps.set(IRIS, "keen", keen)
    await ask(streamed, STREAMED)
    assert [call.request for call in other.calls] == [None, [STREAMED]]
    assert [(call.request, call.answer) for call in keen.calls] == [([STREAMED], b'{"outputs":[]}')]


@pytest.mark.parametrize("more", [0, 1])
async def test_a_body_is_kept_up_to_its_bound(streamed, more):
    notes = Notes()
    streamed.app.taps.set(IRIS, "notes", notes)
    body = bytes(KEPT_BYTES + more)
    await ask(streamed, body)
    (call,) = notes.calls
    assert call.measured.bytes_in == len(body)
    assert (b"".join(call.request) == body) if not more else (call.request is None)


async def test_an_answer_that_streams_past_is_seen_without_its_body(streamed, far):
    async def large(call: Call) -> None:
        await call.body()
        await call.say(large_head() + bytes(LARGE))

    far.handler = large
    notes = Notes()
    streamed.app.taps.set(IRIS, "notes", notes)
    assert len(await ask(streamed, STREAMED)) == LARGE
    await asyncio.sleep(0)
    (call,) = notes.calls
    assert (call.request, call.answer, call.measured.bytes_out) == ([STREAMED], None, LARGE)
    assert (b"content-length", b"%d" % LARGE) in [(name.lower(), value) for name, value in call.answer_headers]
