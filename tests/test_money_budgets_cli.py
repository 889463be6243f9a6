"""`roost budget`: what is sent, and how a budget is shown; and the client's calls about corrections."""

import json
from typing import Any

import pytest

from recording_server import Command, serving
from roost_gateway.client import RoostClient

BUDGET: dict[str, Any] = {
    "tenant": "acme",
    "month": "2026-11",
    "currency": "USD",
    "amount": "250.00",
    "thresholds": [50, 80, 100],
    "hard_cap": True,
    "changed_at": "2026-11-01T10:00:00Z",
    "spent": "251.07",
    "ratio": "1.0042",
    "forecast": "502.14",
    "capped_until": "2026-12-01T00:00:00Z",
    "alerts": [
        {
            "threshold": 50,
            "amount": "250.00",
            "spent": "125.01",
            "at": "2026-11-09T08:00:00Z",
            "delivered_at": "2026-11-09T08:00:01Z",
        },
        {"threshold": 80, "amount": "250.00", "spent": "200.00", "at": "2026-11-12T08:00:00Z", "delivered_at": None},
    ],
}
OPERATOR = {"ROOST_OPERATOR_KEY": "roost_operator", "ROOST_API_KEY": "roost_tenant"}


@pytest.fixture
def server():
    with serving() as recording:
        yield recording


@pytest.fixture
def roost(server, tmp_path):
    return Command(server.url, tmp_path)


def test_a_budget_is_shown_as_a_table_or_as_it_came(server, roost):
    server.on("GET /api/v1/budget", BUDGET)
    for command in (("budget",), ("budget", "show")):
        shown = roost(*command, environment=OPERATOR).stdout
        assert "acme: 250.00 USD a month, hard cap; alerts at: 50 %, 80 %, 100 %" in shown
        assert "It is used up: predictions are refused until 2026-12-01 00:00:00Z." in shown
        lines = [line.split() for line in shown.splitlines() if "2026-11" in line]
        assert lines[0] == ["2026-11", "251.07", "100.42", "%", "502.14"]
        assert lines[1] == ["50", "%", "250.00", "125.01", "2026-11-09", "08:00:00Z", "2026-11-09", "08:00:01Z"]
        assert lines[2] == ["80", "%", "250.00", "200.00", "2026-11-12", "08:00:00Z", "-"]
    assert json.loads(roost("budget", "--json").stdout) == BUDGET
    assert {asked.headers["authorization"] for asked in server.asked[:2]} == {"Bearer roost_tenant"}


@pytest.mark.parametrize(("ratio", "shown"), [("0.0000", "0.00"), ("0.0042", "0.42"), ("0.4210", "42.10")])
def test_what_is_spent_is_shown_as_a_percentage(server, roost, ratio, shown):
    quiet = {"ratio": ratio, "forecast": None, "capped_until": None, "alerts": [], "hard_cap": False, "thresholds": []}
    server.on("GET /api/v1/budget", BUDGET | quiet)
    output = roost("budget").stdout
    assert "no hard cap; alerts at: none" in output
    assert ["2026-11", "251.07", shown, "%", "-"] in [line.split() for line in output.splitlines()]


def test_the_operator_sets_and_clears_a_budget(server, roost):
    server.on("PUT /api/v1/budget", BUDGET)
    server.on("DELETE /api/v1/budget", status=204)
    roost("budget", "set", "250", "--alert", "80,50", "--hard-cap", "--tenant", "acme", environment=OPERATOR)
    roost("budget", "set", "12.5", "--alert", "", "--tenant", "acme", environment=OPERATOR)
    roost("budget", "set", "12.5", "--tenant", "acme", environment=OPERATOR)
    assert [asked.json for asked in server.asked] == [
        {"amount": "250", "thresholds": [50, 80], "hard_cap": True},
        {"amount": "12.5", "thresholds": [], "hard_cap": False},
        {"amount": "12.5", "thresholds": [50, 80, 100], "hard_cap": False},
    ]
    cleared = roost("budget", "clear", "--yes", "--tenant", "acme", environment=OPERATOR)
    assert (cleared.exit_code, cleared.stdout) == (0, "The budget is removed.\n")
    assert [asked.query for asked in server.asked] == [{"tenant": "acme"}] * 4
    assert {asked.headers["authorization"] for asked in server.asked} == {"Bearer roost_operator"}


@pytest.mark.parametrize(
    "arguments", [("set", "lots"), ("set", "-5"), ("set", "5", "--alert", "50;80"), ("set",), ("clear",)]
)
def test_a_wrong_command_line_exits_2_before_anything_is_sent(server, roost, arguments):
    assert roost("budget", *arguments).exit_code == 2
    assert server.asked == []


def test_every_command_has_help_with_an_example(roost):
    for name in ("show", "set", "clear"):
        result = roost("budget", name, "--help")
        assert result.exit_code == 0
        assert f"Example: roost budget {name}" in result.stdout


def test_the_client_sends_corrections_as_cloudevents(server):
    server.on("POST /api/v1/usage/corrections", {"duplicate": False}, status=201)
    server.on("GET /api/v1/usage/corrections", {"corrections": []})
    with RoostClient(server.url, "roost_operator", tenant="acme") as client:
        client.correct_usage({"id": "a"})
        client.correct_usage([{"id": "a"}, {"id": "b"}])
        client.corrections(start="2026-11-01T00:00:00Z", offset=100)
    one, many, listed = server.asked
    assert (one.headers["content-type"], one.json) == ("application/cloudevents+json", {"id": "a"})
    assert (many.headers["content-type"], many.json) == (
        "application/cloudevents-batch+json",
        [{"id": "a"}, {"id": "b"}],
    )
    assert listed.query == {"tenant": "acme", "from": "2026-11-01T00:00:00Z", "offset": "100"}
