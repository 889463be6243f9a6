"""Bills against answers: over which time, by model, and how long the ledger is waited for."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime

import pytest

from recording_server import RecordingServer, serving
from roost_loadtest.asking import Asker, NoAnswer
from roost_loadtest.billing import SHIPPED_EACH_S, SHIPPED_WITHIN_S, Bills
from roost_loadtest.record import Billing, Target

IRIS, IRIS_2, OTHER = Target("acme", "iris"), Target("acme", "iris", 2), Target("beta", "iris")
NEW_YEAR = datetime(2026, 12, 31, 23, 59, 50, tzinfo=UTC)


@pytest.fixture
def platform() -> Iterator[RecordingServer]:
    with serving() as server:
        yield server


def usage(*billed: int) -> dict[str, object]:
    return {"rows": [{"model": "iris", "billed_requests": count} for count in billed]}


@contextmanager
def bills(platform: RecordingServer, slept: list[float], *targets: Target) -> Iterator[Bills]:
    with closing(Asker(platform.url)) as asker:
        yield Bills(asker, targets=targets, key_of=lambda t: f"key-of-{t}", now=NEW_YEAR, sleep=slept.append)


def test_calls_of_a_version_are_on_the_bill_of_its_model(platform):
    for count in (7, 7, 17):
        platform.on("GET /api/v1/usage", usage(count))
    with bills(platform, [], IRIS, IRIS_2) as found:
        found.before()
        assert found.after({"acme/iris": 6, "acme/iris@2": 4}) == (Billing("acme/iris", 7, 17, 10),)
    asked = platform.asked[-1]
    assert asked.query == {
        "model": "iris",
        "group_by": "model",
        "from": "2026-12-31T22:59:50+00:00",
        "to": "2027-01-30T23:59:50+00:00",
    }, "all of the run, whatever month it is in"
    assert asked.headers["authorization"] == "Bearer key-of-acme"


def test_each_tenant_has_a_bill_of_its_own_and_no_calls_are_none(platform):
    platform.on("GET /api/v1/usage", {"rows": []})
    with bills(platform, [], IRIS, OTHER) as found:
        found.before()
        assert found.after({}) == (Billing("acme/iris", 0, 0, 0), Billing("beta/iris", 0, 0, 0))


def test_what_was_called_before_is_waited_for(platform):
    for count in (5, 9, 9, 12):
        platform.on("GET /api/v1/usage", usage(count))
    slept: list[float] = []
    with bills(platform, slept, IRIS) as found:
        found.before()
        assert found.after({"acme/iris": 3}) == (Billing("acme/iris", 9, 12, 3),)
    assert slept == [SHIPPED_EACH_S] * 2


def test_the_ledger_is_waited_for_and_not_for_ever(platform):
    for count in (0, 0, 1, 2, 3):
        platform.on("GET /api/v1/usage", usage(count))
    slept: list[float] = []
    with bills(platform, slept, IRIS) as found:
        found.before()
        assert found.after({"acme/iris": 3}) == (Billing("acme/iris", 0, 3, 3),)
        assert found.after({"acme/iris": 4}) == (Billing("acme/iris", 0, 3, 4),)
    assert sum(slept[3:]) == SHIPPED_WITHIN_S


def test_a_bill_that_is_too_high_is_not_waited_for(platform):
    for count in (0, 0, 5):
        platform.on("GET /api/v1/usage", usage(count))
    slept: list[float] = []
    with bills(platform, slept, IRIS) as found:
        found.before()
        assert found.after({"acme/iris": 3}) == (Billing("acme/iris", 0, 5, 3),)
    assert slept == [SHIPPED_EACH_S]


def test_usage_that_is_not_told_is_no_bill(platform):
    platform.refuse("GET /api/v1/usage", status=403, code="missing_scope", message="the key may not read")
    with bills(platform, [], IRIS) as found, pytest.raises(NoAnswer, match="status 403: the key may not read"):
        found.before()
