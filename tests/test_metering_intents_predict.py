"""The prediction path takes a call on before anything is done for it, and ends it once, whatever becomes of it.

That nothing stays under way is asked at the end of every test of the path: `predict_parts.assert_every_call_ended`.
"""

import asyncio
import errno

import pytest

import models_for_tests as models
from gateway_streams_parts import BODY as STREAM_BODY
from gateway_streams_parts import LARGE, large_head
from http_raw import ADD_ONE, Connection, request
from metering_faulty import FaultyFiles
from predict_parts import predict_path
from roost_platform.metering.intents import OpenCall, read_intents
from roost_process import RoostProcess
from streaming_parts import Call, FarSide, client_of, post, streamed_path, until


def under_way(folder) -> list[OpenCall]:
    left = read_intents(folder / "test.open")
    assert left is not None
    return list(left.calls)


async def test_a_call_is_noted_before_it_is_forwarded_and_no_longer_when_it_is_answered(tmp_path):
    async with predict_path(tmp_path) as path:
        seen: list[OpenCall] = []
        well = path.engine.answer

        async def look_and_answer(request):
            seen.extend(under_way(path.folder))
            return await well(request)

        path.engine.answer = look_and_answer
        heard = await path.call(headers=[(b"x-request-id", b"mine")])
        assert heard.status == 200
        (call,) = seen
        assert (call.number, call.tenant, call.model, call.version) == (1, "acme", "iris", 1)
        assert (call.request_id, call.sequence, call.requests) == ("mine", None, 1)
        assert under_way(path.folder) == []
        assert path.journal.intents.opened == 1


async def test_a_call_that_cannot_be_noted_is_refused_and_nothing_is_done_for_it(tmp_path):
    held, full = asyncio.Event(), asyncio.Event()

    def fail(_call: int, name: str) -> None:
        if name == "allocate" and full.is_set():
            raise OSError(errno.ENOSPC, "no room")

    async with predict_path(tmp_path, files=FaultyFiles(fail)) as path:
        well = path.engine.answer

        async def wait_and_answer(request):
            await held.wait()
            return await well(request)

        full.set()
        path.engine.answer = wait_and_answer
        taken = [asyncio.create_task(path.call()) for _ in range(256)]
        await until(lambda: len(path.engine.seen) == len(taken))
        refused = await path.call()
        assert refused.refusal == (507, "storage_full")
        assert len(path.engine.seen) == len(taken)
        held.set()
        assert {heard.status for heard in await asyncio.gather(*taken)} == {200}
        assert (await path.call()).status == 200
        assert path.journal.intents.opened == len(path.events()) == len(taken) + 1


async def test_a_streamed_answer_is_under_way_to_its_end_and_metered_once(tmp_path):
    go_on = asyncio.Event()

    async def slowly(call: Call) -> None:
        await call.body()
        await call.say(large_head())
        await call.say(b"x" * (LARGE - 1))
        await go_on.wait()
        await call.say(b"x")

    async with FarSide(slowly).serving() as far, streamed_path(tmp_path, far.url, pauses_s=()) as path:
        async with client_of(path) as client:
            await client.send(post(path, length=len(STREAM_BODY), body=STREAM_BODY))
            status, _ = await client.head()
            assert status == 200
            (call,) = under_way(path.folder)
            assert (call.version, call.sequence) == (1, None)
            go_on.set()
            assert await client.reader.readexactly(LARGE) == b"x" * LARGE
            await until(lambda: under_way(path.folder) == [])
        assert [(str(event.outcome), event.bytes_out) for event in path.events()] == [("ok", LARGE)]


@pytest.mark.parametrize("calls", [40])
def test_the_books_of_a_server_that_stops_are_closed_and_those_of_the_next_begin(tmp_path, calls):
    query = (
        "SELECT source, closed_at IS NOT NULL, opened, completed, unstored, unknown FROM sources ORDER BY started_at"
    )
    with RoostProcess(tmp_path) as server:
        key = server.make_tenant()
        server.deploy(key, "one", models.add_one(tmp_path / "one.onnx"), min_scale=1)
        headers = (b"content-type: application/json", b"content-length: %d" % len(ADD_ONE))
        with Connection(server.port, timeout=60) as connection:
            for _ in range(calls):
                connection.send(request(*headers, key=key, body=ADD_ONE))
                assert connection.answer().status == 200
            connection.send(request(headers[0], b"content-length: 2", key=key, body=b"{}"))
            assert connection.answer().status == 400
        assert server.stop() == 0
        ((_, *book),) = server.query(query)
        assert [int(value) for value in book] == [1, calls + 1, calls + 1, 0, 0]
        assert list((server.data / "journal").iterdir()) == []
        server.start()
        (_, (_, *book)) = server.query(query)
        assert [int(value) for value in book] == [0, 0, 0, 0, 0]
