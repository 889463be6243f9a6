"""`roost drift`: what is sent, and how drift and quality are shown."""

import json
from typing import Any

import pytest

from recording_server import Command, serving

SETTINGS = {"rate": 5.0, "skip": ["name"], "keep_answers": True, "reference_rows": 1000}
SHIFT = {
    "feature": "input.x[2]", "reference": 1000, "values": 1024, "psi": 0.4, "psi_chance": 0.0, "ks": 0.25,
    "ks_chance": 0.0, "missing": 0.01, "outside": 0.2, "alarm": True,
}  # fmt: skip
DRIFT: dict[str, Any] = {
    "settings": SETTINGS,
    "false_alarms": 0.001,
    "versions": [
        {
            "version": 2,
            "reference": {"version": 2, "origin": "calls", "made_at": "2026-11-01T10:00:00Z", "rows": 1000, "features": []},
            "since": "2026-11-03T10:00:00Z",
            "rows": 1024,
            "outliers": 0.02,
            "missing": 0.0,
            "alarms": ["input.x[2]"],
            "features": [SHIFT],
            "classes": {},
            "against": [],
        }
    ],
    "quality": [
        {
            "version": 2, "day": None, "group": "north", "answers": 50, "accuracy": 0.9, "bias": -0.125,
            "error": None, "mean": 1.0,
        }
    ],
}  # fmt: skip


@pytest.fixture
def server():
    with serving() as recording:
        yield recording


@pytest.fixture
def roost(server, tmp_path):
    return Command(server.url, tmp_path)


def test_drift_and_quality_are_shown_or_given_as_they_came(server, roost):
    server.on("GET /api/v1/models/iris/drift", DRIFT)
    for command in (("drift", "iris"), ("drift", "show", "iris")):
        shown = roost(*command).stdout
        assert "Up to 5 calls a second are looked at by each gateway, but not name; answers are kept" in shown
        assert "Version 2: 1,024 rows since 2026-11-03 10:00:00Z, beside 1,000 rows of its first calls" in shown
        lines = [line.split() for line in shown.splitlines()]
        assert ["input.x[2]", "1,024", "0.400", "0.250", "20.0%", "1.0%", "shifted"] in lines
        assert ["2", "all", "north", "50", "90.0%", "-0.125", "-"] in lines
    assert json.loads(roost("drift", "iris", "--json").stdout) == DRIFT


def test_settings_reference_and_feedback_are_sent(server, roost, tmp_path):
    server.on("PUT /api/v1/models/iris/drift", SETTINGS)
    server.on("PUT /api/v1/models/iris/versions/2/profile", {"version": 2, "rows": 3, "features": ["input.x"]})
    server.on("POST /api/v1/models/iris/feedback", {"taken": 1, "again": 0, "unknown": 0})
    roost("drift", "set", "iris", "--rate", "5", "--skip", "name", "--keep-answers")
    file = tmp_path / "given.json"
    file.write_text('{"inputs": []}')
    assert "3 rows, 1 features" in roost("drift", "reference", "iris", "2", str(file)).stdout
    file.write_text('[{"request_id": "a", "labels": [1]}]')
    assert "1 taken, 0 told before, 0 unknown." in roost("drift", "feedback", "iris", str(file)).stdout
    items = {"items": [{"request_id": "a", "labels": [1]}]}
    assert [asked.json for asked in server.asked] == [SETTINGS, {"inputs": []}, items]
