"""Readiness: parts, reasons, and what takes a gateway out of rotation."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost_gateway.health import (
    DATABASE_SILENT_S,
    DatabasePulse,
    Part,
    Readiness,
    State,
    judge_database,
    judge_serving,
    judge_usage,
)
from roost_platform.domain.errors import Unavailable


@given(st.lists(st.sampled_from(State), min_size=1))
def test_only_a_failed_part_takes_the_gateway_out(states):
    readiness = Readiness.of(*(Part(str(i), state) for i, state in enumerate(states)))
    assert readiness.ready == (State.FAILED not in states)
    document = readiness.to_json()
    assert document["status"] == ("ok" if readiness.ready else "not ready")
    assert [part["state"] for part in document["parts"].values()] == [state.value for state in states]


def test_a_gateway_whose_usage_cannot_be_written_says_so():
    document = Readiness.of(judge_serving(True), judge_usage(True)).to_json()
    assert document == {
        "status": "not ready",
        "parts": {
            "serving": {"state": "ok"},
            "usage": {
                "state": "failed",
                "reason": "too much usage waits for the database; predictions are refused until it is taken",
            },
        },
    }


def test_before_and_after_serving_it_is_not_ready():
    assert judge_serving(False) == Part("serving", State.FAILED, "the gateway is starting or stopping")


@pytest.mark.parametrize(
    ("silent_s", "state"),
    [(0, State.OK), (DATABASE_SILENT_S - 0.1, State.OK), (DATABASE_SILENT_S, State.DEGRADED), (3600, State.DEGRADED)],
)
def test_a_silent_database_degrades_but_does_not_fail_for_calls_go_on(silent_s, state):
    part = judge_database(answered_at=100, now=100 + silent_s)
    assert part.state is state
    assert bool(part.reason) == (state is not State.OK)


def test_the_pulse_notes_answers_and_outlives_refusals():
    now, away = 0.0, True

    async def ask() -> None:
        if away:
            raise Unavailable("postgresql://secret@db is away", code="database")

    async def story() -> None:
        nonlocal now, away
        pulse = DatabasePulse(ask, clock=lambda: now)
        assert pulse.part().state is State.OK
        now = 20
        await pulse.look()
        assert pulse.part().state is State.DEGRADED
        assert "20 s" in pulse.part().reason
        assert "secret" not in pulse.part().reason
        away = False
        await pulse.look()
        assert pulse.part() == Part("database")

    asyncio.run(story())
