"""A real model behind a real server: sampled, compared, alarmed and judged, from calls to report, metrics and command."""

import httpx
import numpy as np
import pytest

import drift_model
from roost_process import RoostProcess, until

PATH = "/t/acme/v2/models/iris/infer"


@pytest.fixture
def caller(server):
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {server.key}"}, timeout=60) as http:
        yield Caller(server, http)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drift")
    with RoostProcess(folder, ROOST_DRIFT_INTERVAL_S="0.1", ROOST_DRIFT_CALLS_PER_S="1000") as server:
        server.key = server.make_tenant()
        found = server.deploy(server.key, "iris", drift_model.make(folder / "iris.onnx"), min_scale=1)
        server.input = found["signature"]["inputs"][0]["name"]
        yield server


class Caller:
    """Calls the model slowly enough for every call to be looked at."""

    def __init__(self, server: RoostProcess, http: httpx.Client) -> None:
        self.server = server
        self.http = http
        self.looked_at = self._looked_at()

    def _looked_at(self) -> float:
        figures = self.server.figures()
        return sum(value for (name, _), value in figures.items() if name == "roost_drift_samples_total")

    def call(self, rows: np.ndarray, **headers: str) -> httpx.Response:
        """Again until it was looked at: the model's turn may not have come yet."""
        for _ in range(200):
            response = self.http.post(PATH, json=drift_model.request(self.server.input, rows), headers=headers)
            assert response.status_code == 200, response.text
            if self.heard():
                return response
        raise AssertionError("no call was looked at")

    def heard(self) -> bool:
        now = self._looked_at()
        heard, self.looked_at = now > self.looked_at, now
        return heard


def alarms(server: RoostProcess) -> list[str]:
    with server.client(server.key) as roost:
        return roost.drift("iris")["versions"][0]["alarms"]


def test_from_calls_to_an_alarm(server, caller):
    random = np.random.default_rng(drift_model.SEED)
    with server.client(server.key) as roost:
        assert roost.set_drift("iris", {"rate": 100, "reference_rows": 500, "keep_answers": True})["rate"] == 100
        for _ in range(8):  # the reference
            caller.call(drift_model.resampled(random, 64)[0])
        told = roost.drift("iris")["versions"][0]
        assert (told["reference"]["origin"], told["reference"]["rows"]) == ("calls", 512)
        for _ in range(8):
            caller.call(drift_model.resampled(random, 64)[0])
        told = roost.drift("iris")["versions"][0]
        assert told["rows"] >= 512
        assert told["alarms"] == []
        assert told["missing"] == 0
        assert sum(share["now"] for share in told["classes"]["output.label"]) == pytest.approx(1)
        for _ in range(16):
            rows = drift_model.resampled(random, 64)[0]
            rows[:, 2] += 2
            caller.call(rows)
        assert f"input.{server.input}[2]" in alarms(server)
        assert roost.drift("iris")["versions"][0]["outliers"] >= 0
        figures = server.figures
        place = {"tenant": "acme", "model": "iris", "version": "1", "feature": f"input.{server.input}[2]"}
        name = ("roost_drift_alarm", frozenset(place.items()))
        until(lambda: figures().get(name) == 1, what="the alarm on the metrics page")


def test_feedback_is_counted_once_by_day_and_group(server, caller):
    random = np.random.default_rng(3)
    with server.client(server.key) as roost:
        roost.set_drift("iris", {"rate": 100, "keep_answers": True})
        rows, kinds = drift_model.resampled(random, 50)
        answer = caller.call(rows, **{"x-request-id": "judged-1"}).json()
        predicted = next(each["data"] for each in answer["outputs"] if each["name"] == "label")
        right = int(np.sum(np.array(predicted) == kinds))
        labels = [int(kind) for kind in kinds]
        item = {"request_id": "judged-1", "labels": labels, "group": "north"}
        assert roost.give_feedback("iris", [item]) == {"taken": 1, "again": 0, "unknown": 0}
        assert roost.give_feedback("iris", [item]) == {"taken": 0, "again": 1, "unknown": 0}
        other = {"request_id": "never", "labels": [1]}
        assert roost.give_feedback("iris", [other]) == {"taken": 0, "again": 0, "unknown": 1}
        own = {"request_id": "own", "labels": [1, 0], "version": 1, "predicted": [1, 1], "group": "south"}
        assert roost.give_feedback("iris", [own])["taken"] == 1
        quality = {(row["day"] is None, row["group"]): row for row in roost.drift("iris")["quality"]}
        assert quality[True, "north"]["answers"] == 50
        assert quality[True, "north"]["accuracy"] == pytest.approx(right / 50)
        assert quality[True, "south"] == quality[True, "south"] | {
            "accuracy": 0.5,
            "bias": 0.5,
            "error": 0.5,
            "mean": 1,
        }
        assert quality[True, None]["answers"] == 52
        assert quality[False, None]["answers"] == 52


def test_a_reference_from_a_file_begins_anew(server, caller):
    random = np.random.default_rng(4)
    with server.client(server.key) as roost:
        made = roost.set_reference("iris", 1, drift_model.request(server.input, drift_model.resampled(random, 1000)[0]))
        assert (made["rows"], made["origin"]) == (1000, "file")
        assert made["features"] == [f"input.{server.input}[{place}]" for place in range(4)]
        caller.call(drift_model.resampled(random, 64)[0])
        told = roost.drift("iris")["versions"][0]
        assert (told["reference"]["origin"], told["rows"] % 64, told["alarms"]) == ("file", 0, [])
        assert {shift["feature"] for shift in told["features"]} == set(made["features"])


def test_what_is_skipped_is_not_looked_at_and_nothing_is_when_the_rate_is_0(server, caller):
    with server.client(server.key) as roost:
        roost.set_drift("iris", {"rate": 0})
        caller.heard()
        for _ in range(5):
            rows = drift_model.resampled(np.random.default_rng(1), 2)[0]
            assert caller.http.post(PATH, json=drift_model.request(server.input, rows)).status_code == 200
        assert not caller.heard()
        assert roost.drift("iris")["settings"]["rate"] == 0
