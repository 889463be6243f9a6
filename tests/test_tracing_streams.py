"""Traces where requests travel on as HTTP, as they do to Knative: the context goes along, and the replica's figures come back."""

import os

import httpx
import pytest

import models_for_tests as models
from gateway_streams_parts import BODY, LARGE, heard, large_head
from otlp_sink import otlp_sink
from roost_gateway.tracing.wish import tracing
from streaming_parts import FIGURES, Call, FarSide, answer, client_of, post, streamed_path
from test_runtimes_server import serving

TIMES = b"roost-decode-us: 7\r\nroost-encode-us: 9\r\ncontent-type: application/json\r\n"
PARENT = b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def _well(call: Call) -> None:
    await call.body()
    await call.say(answer(b'{"outputs":[]}', headers=FIGURES + TIMES))


async def _large(call: Call) -> None:
    await call.body()
    await call.say(large_head() + bytes(LARGE))


@pytest.fixture
def sink(monkeypatch):
    with otlp_sink() as made:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", made.url)
        yield made


@pytest.mark.parametrize("asleep", [False, True])
async def test_one_trace_through_the_ingress(tmp_path, sink, asleep: bool):
    async with FarSide(_well).serving() as far:
        with tracing(os.environ) as opened:
            async with streamed_path(tmp_path, far.url, traces=opened.traces) as path, client_of(path) as client:
                path.engine.asleep = asleep
                await client.send(post(path, PARENT, b"x-request-id: mine", length=len(BODY), body=BODY))
                answered = await heard(client)
                assert answered.status == 200
                assert not [name for name, _ in answered.headers if name.startswith(b"roost-")]
        (call,) = far.calls
    spans = sink.trace_of("mine")
    expected = {"authenticate", "admit", "queue", "transport", "decode", "run", "encode", "record"}
    assert set(spans) - {"activate"} == expected | {"POST /t/{tenant}/v2/models/{model}/infer"}
    assert ("activate" in spans) is asleep
    trace = "0af7651916cd43dd8448eb211c80319c"
    assert call.header(b"traceparent") == f"00-{trace}-{spans['transport'].id}-01".encode()
    assert call.header(b"roost-trace") == b"1"
    assert {span.trace_id for span in spans.values()} == {trace}
    lengths = {name: spans[name].end_ns - spans[name].start_ns for name in ("decode", "encode", "run")}
    assert lengths == pytest.approx({"decode": 7_000, "encode": 9_000, "run": 1_500_000}, abs=1_000)


async def test_an_answer_that_streams(tmp_path, sink):
    async with FarSide(_large).serving() as far:
        with tracing(os.environ) as opened:
            async with streamed_path(tmp_path, far.url, traces=opened.traces) as path, client_of(path) as client:
                await client.send(post(path, b"x-request-id: long", length=len(BODY), body=BODY))
                _, headers = await client.head()
                await client.reader.readexactly(int(headers["content-length"]))
    spans = sink.trace_of("long")
    assert {"transport", "run", "record"} <= set(spans)
    assert "decode" not in spans, "this replica tells no such thing"


async def test_a_caller_who_is_not_sampled_is_passed_on_and_not_traced(tmp_path, sink):
    async with FarSide(_well).serving() as far:
        with tracing(os.environ) as opened:
            async with streamed_path(tmp_path, far.url, traces=opened.traces) as path, client_of(path) as client:
                await client.send(post(path, PARENT[:-1] + b"0", length=len(BODY), body=BODY))
                assert (await heard(client)).status == 200
        (call,) = far.calls
    assert b"traceparent: " + (call.header(b"traceparent") or b"") == PARENT[:-1] + b"0"
    assert call.header(b"roost-trace") is None
    assert sink.spans == []


def test_a_runtime_tells_what_reading_and_writing_took_only_if_asked(tmp_path):
    with serving("--model", str(models.add_one(tmp_path / "m.onnx"))) as (_, address):
        url = f"http://{address}/v2/models/m/infer"
        body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0, 0, 0, 0]}]}
        plain, asked = httpx.post(url, json=body), httpx.post(url, json=body, headers={"roost-trace": "1"})
    assert (plain.status_code, asked.status_code) == (200, 200), asked.text
    times = ("roost-decode-us", "roost-encode-us")
    assert not [name for name in times if name in plain.headers]
    assert all(0 <= int(asked.headers[name]) < 10_000_000 for name in times)
