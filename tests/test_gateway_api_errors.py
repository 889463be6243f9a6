"""The table of errors, and the request id."""

import json

import pytest

from roost_gateway.errors import STATUS_OF, answer_of
from roost_gateway.request_ids import RequestIds, request_id_from
from roost_platform.domain import errors


def every_error() -> list[type[errors.RoostError]]:
    return [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.RoostError) and kind is not errors.RoostError
    ]


@pytest.mark.parametrize("kind", every_error())
def test_every_error_has_a_status_and_one_shape(kind):
    at_a_quota = {"limit": 5, "used": 5} if kind is errors.Throttled else {}
    status, headers, body = answer_of(kind("a sentence", field="x", **at_a_quota), "id-1")
    assert status == STATUS_OF[kind]
    document = json.loads(body)
    assert document.pop("retryable", True) is True
    told = {"error": "a sentence", "code": kind.default_code, "field": "x", "request_id": "id-1"}
    assert document == (told | at_a_quota | {"reset": None} if at_a_quota else told)
    assert dict(headers)[b"content-length"] == str(len(body)).encode()
    assert (b"retry-after" in dict(headers)) is (status in (429, 503))


def test_unknown_error_is_ours():
    assert answer_of(errors.RoostError("x"), "id")[0] == 500


def test_subclass_of_an_error_has_its_status():
    class QueueFull(errors.Unavailable):
        pass

    assert answer_of(QueueFull("x"), "id")[0] == 503


@pytest.mark.parametrize(("seconds", "header"), [(None, b"1"), (0.01, b"1"), (1.2, b"2"), (30, b"30")])
def test_retry_after_is_whole_seconds_and_never_nothing(seconds, header):
    _, headers, _ = answer_of(errors.Throttled("x", limit=1, used=1, retry_after_s=seconds), "id")
    assert dict(headers)[b"retry-after"] == header


def test_lost_replica_says_that_another_try_is_safe():
    assert json.loads(answer_of(errors.ReplicaLost("x"), "id")[2])["retryable"] is True


def test_text_that_no_utf8_can_carry_is_replaced():
    assert json.loads(answer_of(errors.InvalidRequest("a\ud800b"), "id")[2])["error"] == "a?b"


@pytest.mark.parametrize(
    ("given", "kept"), [([b"abc"], True), ([b"a", b"b"], False), ([], False), ([b""], False), ([b"a\nb"], False)]
)
def test_request_id_is_taken_over_only_when_there_is_one_good_one(given, kept):
    made = request_id_from([(b"x-request-id", value) for value in given])
    assert (made.encode() in given) is kept
    assert len(made) in (3, 32)


async def test_inner_ids_give_way_to_the_outer_one():
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-request-id", b"forged")]})

    async def send(message):
        sent.append(message)

    await RequestIds(RequestIds(app))({"type": "http", "headers": [(b"x-request-id", b"mine")]}, None, send)
    assert sent[0]["headers"] == [(b"x-request-id", b"mine")]
