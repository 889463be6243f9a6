"""Which headers pass (K25), and the request id."""

import pytest

from predict_parts import JSON, PredictPath, json_response, predict_path
from roost_gateway.predict.headers import sort_headers

TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
async def path(tmp_path):
    async with predict_path(tmp_path) as made:
        yield made


async def test_k25_headers_of_users_pass_byte_for_byte(path: PredictPath):
    own = [
        (b"host", b"roost.example:8000"),
        (b"traceparent", TRACE),
        (b"tracestate", b"a=1,b=2"),
        (b"baggage", b"user=1"),
        (b"content-type", b"application/octet-stream"),
        (b"content-encoding", b"gzip"),
        (b"inference-header-content-length", b"12"),
        (b"accept-encoding", b"gzip, deflate;q=0.5"),
        (b"user-agent", b"kube-prober/1"),
        (b"x-user", b' \xe9\xff\x80 tab\tand "quotes" '),
        (b"x-user", b"twice"),
        (b"forwarded", b"for=192.0.2.60;proto=http"),
    ]
    assert (await path.call(headers=own)).status == 200
    _, request = path.engine.seen[0]
    assert list(request.headers) == own


async def test_k25_headers_that_speak_to_the_engine_or_the_gateway_stay_behind(path: PredictPath):
    dropped = [
        (b"k-network-probe", b"activator"),
        (b"knative-serving-revision", b"anothers-00001"),
        (b"knative-serving-namespace", b"other"),
        (b"roost-service-secret", b"guess"),
        (b"x-roost-anything", b"1"),
        (b"user-agent", b"kube-probe/1.30"),
        (b"cookie", b"session=1"),
        (b"connection", b"keep-alive, x-user"),
        (b"keep-alive", b"timeout=5"),
        (b"proxy-authorization", b"Basic x"),
        (b"proxy-connection", b"close"),
        (b"te", b"trailers"),
        (b"trailer", b"x"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"h2c"),
        (b"expect", b"100-continue"),
    ]
    assert (await path.call(headers=dropped, declared=None)).status == 200
    _, request = path.engine.seen[0]
    assert not request.headers
    assert path.secret.encode() not in b"".join(value for _, value in request.headers)


def test_sorting_keeps_what_the_gateway_needs_itself():
    incoming = sort_headers(
        [(b"authorization", b"a"), (b"authorization", b"b"), (b"content-length", b"3"), (b"x-request-id", b"r")]
    )
    assert (incoming.authorization, incoming.content_length, incoming.request_id) == ([b"a", b"b"], b"3", b"r")
    assert incoming.forwarded == []


@pytest.mark.parametrize("own", ["a", "call-1", "0af7651916cd43dd8448eb211c80319c", "A.b_c:d-e", "x" * 128])
async def test_a_well_formed_request_id_is_kept_everywhere(path: PredictPath, own: str):
    heard = await path.call(headers=[(b"x-request-id", own.encode())])
    assert heard.header("x-request-id") == own
    assert path.engine.seen[0][1].request_id == own
    assert path.events()[0].request_id == own


@pytest.mark.parametrize("own", [b"", b"a b", b"\xe9", b"x" * 129, b"a\nb", b"<script>"])
async def test_a_request_id_that_could_do_harm_is_replaced(path: PredictPath, own: bytes):
    heard = await path.call(headers=[(b"x-request-id", own)])
    made = heard.header("x-request-id")
    assert made
    assert made.encode() != own
    assert path.events()[0].request_id == made


async def test_calls_without_an_id_get_one_each(path: PredictPath):
    made = {(await path.call()).header("x-request-id") for _ in range(10)}
    assert len(made) == 10


async def test_of_the_replicas_headers_only_what_a_client_can_use_comes_back(path: PredictPath):
    async def chatty(request):
        more = [
            (b"content-encoding", b"gzip"),
            (b"vary", b"accept-encoding"),
            (b"inference-header-content-length", b"4"),
            (b"server", b"replica"),
            (b"roost-compute-us", b"5"),
            (b"set-cookie", b"a=1"),
            (b"content-length", b"999"),
        ]
        return json_response({"model_name": "iris"}, headers=more)

    path.engine.answer = chatty
    heard = await path.call()
    assert sorted(name for name, _ in heard.headers) == [
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"inference-header-content-length",
        b"vary",
        b"x-request-id",
    ]


async def test_an_error_that_the_replica_answered_carries_the_request_id(path: PredictPath):
    async def refuses(request):
        document = {"error": "input 'x' is missing", "code": "invalid_input", "field": "inputs"}
        return json_response(document, 400, [(b"retry-after", b"1")])

    path.engine.answer = refuses
    heard = await path.call(headers=[*JSON, (b"x-request-id", b"mine")])
    assert heard.refusal == (400, "invalid_input")
    assert heard.json()["request_id"] == "mine"
    assert heard.header("retry-after") == "1"
