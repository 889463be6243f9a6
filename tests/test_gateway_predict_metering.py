"""One usage event per answered call, with the right figures; and what happens when it cannot be stored (M12, L12)."""

import asyncio
import time

import pytest

from gateway_parts import IRIS
from predict_parts import PredictPath, json_response, predict_path
from roost_gateway.predict.meter import CLIENT_GONE, outcome_of
from roost_platform.domain import errors
from roost_platform.domain.usage import BILLED_OUTCOMES, Outcome
from test_gateway_predict_access import GETS


@pytest.fixture
async def path(tmp_path):
    async with predict_path(tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Outcome.OK),
        (204, Outcome.OK),
        (400, Outcome.CLIENT_ERROR),
        (404, Outcome.CLIENT_ERROR),
        (413, Outcome.CLIENT_ERROR),
        (415, Outcome.CLIENT_ERROR),
        (422, Outcome.MODEL_ERROR),
        (429, Outcome.THROTTLED),
        (CLIENT_GONE, Outcome.CANCELLED),
        (500, Outcome.PLATFORM_ERROR),
        (502, Outcome.PLATFORM_ERROR),
        (503, Outcome.PLATFORM_ERROR),
        (504, Outcome.PLATFORM_ERROR),
        (507, Outcome.PLATFORM_ERROR),
    ],
)
def test_the_outcome_of_a_status(status: int, outcome: Outcome):
    assert outcome_of(status) is outcome


def test_only_computed_answers_are_billed():
    assert {outcome_of(status) for status in (200, 422)} == BILLED_OUTCOMES


async def test_an_answered_call_is_one_event_with_all_its_figures(path: PredictPath):
    before = time.time()
    heard = await path.call(headers=[(b"x-request-id", b"mine")], pieces=[b"12345", b"678"])
    (event,) = path.events()
    assert (event.tenant, event.model, event.version) == ("acme", "iris", 1)
    assert (event.outcome, event.status, event.request_id) == ("ok", 200, "mine")
    assert (event.compute_us, event.queue_us, event.cold_start_us, event.rows) == (1500, 70 + 5, 30, 3)
    assert (event.bytes_in, event.bytes_out) == (8, len(heard.body))
    assert before - 0.001 <= event.time.timestamp() <= time.time()


async def test_the_event_is_durable_before_the_answer_leaves(path: PredictPath):
    seen = []
    scope = {
        "type": "http", "method": "POST", "path": "/t/acme/v2/models/iris/infer", "query_string": b"",
        "headers": [(b"authorization", f"Bearer {path.secret}".encode())],
    }  # fmt: skip

    async def receive():
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message):
        seen.append((message["type"], len(path.events())))

    await path.app(scope, receive, send)
    assert seen == [("http.response.start", 1), ("http.response.body", 1)]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.Unavailable("full", code="queue_full", retry_after_s=1), 503, "queue_full"),
        (errors.DeadlineExceeded("too slow"), 504, "deadline_exceeded"),
        (errors.ReplicaLost("it died"), 502, "replica_lost"),
        (errors.NotFound("gone since"), 404, "not_found"),
        (RuntimeError("nobody foresaw /this/path"), 500, "internal"),
    ],
)
async def test_what_an_engine_cannot_do_is_said_and_recorded_once(
    path: PredictPath, error: Exception, status: int, code: str
):
    path.engine.refuse_lease = error
    heard = await path.call()
    assert heard.refusal == (status, code)
    assert b"/this/path" not in heard.body
    (event,) = path.events()
    assert (event.outcome, event.status) == (outcome_of(status), status)
    assert (event.compute_us, event.rows) == (0, 0)
    assert event.bytes_out == len(heard.body)
    assert heard.header("retry-after") == ("1" if status == 503 else None)


async def test_a_lost_replica_is_safe_to_try_again_and_the_body_says_so(path: PredictPath):
    path.engine.refuse_lease = errors.ReplicaLost("it died")
    assert (await path.call()).json()["retryable"] is True


@pytest.mark.parametrize(("status", "outcome"), [(400, "client_error"), (422, "model_error"), (502, "platform_error")])
async def test_what_the_replica_answers_is_recorded_as_that(path: PredictPath, status: int, outcome: str):
    async def answers(request):
        return json_response({"error": "no", "code": "word"}, status, compute_us=7, rows=1)

    path.engine.answer = answers
    assert (await path.call()).status == status
    (event,) = path.events()
    assert (event.outcome, event.status, event.compute_us) == (outcome, status, 7)


async def test_m12_looking_costs_nothing(path: PredictPath):
    for route in GETS:
        assert (await path.call(route, method="GET")).status == 200
        assert (await path.call(route, method="HEAD")).status == 200
        assert (await path.call(route, method="PUT")).refusal == (405, "method_not_allowed")
    for route in ("/t/acme/v2/models/absent", "/t/acme/v2/models/absent/ready", "/t/acme/nothing"):
        assert (await path.call(route, method="GET")).refusal[0] == 404
    assert not path.events()
    assert not path.engine.seen, "no model is woken by looking at it"


async def test_k6_a_call_ends_at_the_models_timeout_and_is_recorded_as_failed(path: PredictPath):
    await path.parts.deployments.scale(IRIS, {"timeout": 1})

    async def sleeps(request):
        await asyncio.sleep(30)
        raise AssertionError

    path.engine.answer = sleeps
    begin = time.monotonic()
    heard = await path.call()
    assert heard.refusal == (504, "deadline_exceeded")
    assert 1.0 <= time.monotonic() - begin < 1.5
    assert path.outcomes() == [("platform_error", 504)]
    assert path.figures.inflight == 0


async def test_a_thousand_calls_at_once_are_a_thousand_events(path: PredictPath):
    async def call(number: int) -> None:
        heard = await path.call(headers=[(b"x-request-id", f"call-{number}".encode())])
        assert (heard.status, heard.header("x-request-id")) == (200, f"call-{number}")

    await asyncio.gather(*(call(number) for number in range(1000)))
    events = path.events()
    assert sorted(event.request_id for event in events) == sorted(f"call-{number}" for number in range(1000))
    assert [event.sequence for event in events] == list(range(1000))


async def test_a_call_whose_usage_cannot_be_stored_is_not_answered_and_not_charged(tmp_path):
    async with predict_path(tmp_path, journal_limit=0) as path:
        heard = await path.call()
        assert heard.refusal == (507, "storage_full")
        assert b"iris" not in heard.body
        assert not path.events()
        assert path.figures.inflight == 0
        assert path.journal.failures == 1


async def test_a_client_that_leaves_while_usage_cannot_be_stored_harms_nobody(tmp_path):
    gone = asyncio.Event()
    gone.set()
    async with predict_path(tmp_path, journal_limit=0) as path:
        await path.call(pieces=[b"x"], declared=b"500", stall=gone)
        assert not path.events()
        assert path.figures.inflight == 0
