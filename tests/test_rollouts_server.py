"""Rollouts on a real server: real calls are the evidence, the command steers, a webhook is told, a kill in the middle is outlived."""

import json
import threading
from collections import Counter
from contextlib import contextmanager

import httpx
import pytest

import models_for_tests as models
from recording_server import Command, serving
from roost_process import RoostProcess, until

INPUT = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0, 0, 0, 0]}]}
FAILS = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [-5, 0, 0, 0]}]}


@pytest.fixture(scope="module")
def receiver():
    with serving() as made:
        made.on("POST /hook", status=204)
        yield made


@pytest.fixture(scope="module")
def server(tmp_path_factory, receiver):
    folder = tmp_path_factory.mktemp("rollouts")
    settings = {"ROOST_ROLLOUT_INTERVAL_S": "0.1", "ROOST_ROLLOUT_WEBHOOK": f"{receiver.url}/hook"}
    with RoostProcess(folder, **settings) as server:
        server.key = server.make_tenant()
        server.command = Command(server.url, folder)
        server.http = httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {server.key}"}, timeout=60)
        yield server
        server.http.close()
        assert server.stop() == 0
        assert not server.events("prediction_failed")


def roost(server, *arguments: str, status: int = 0):
    result = server.command(*arguments, environment={"ROOST_API_KEY": server.key})
    assert result.exit_code == status, result.output
    return result


def shown(server, model: str) -> dict:
    return json.loads(roost(server, "--json", "rollout", model).stdout)["rollouts"][0]


@contextmanager
def calls(server, model: str, body: dict, *, callers: int = 2):
    """Calls without end; yields the statuses so far."""
    statuses: Counter[int] = Counter()
    over = threading.Event()

    def call() -> None:
        with httpx.Client(base_url=server.url, headers=server.http.headers, timeout=60) as http:
            while not over.is_set():
                with_status = http.post(f"/t/acme/v2/models/{model}/infer", json=body)
                statuses[with_status.status_code] += 1

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield statuses
    finally:
        over.set()
        for thread in threads:
            thread.join()


def two_versions(server, tmp_path, model: str, first, second) -> None:
    server.deploy(server.key, model, first(tmp_path / "1.onnx"), min_scale=1)
    second(tmp_path / "2.onnx")
    roost(server, "deploy", model, str(tmp_path / "2.onnx"), "--no-traffic")


def test_an_equal_version_is_promoted_and_no_call_is_lost(server, tmp_path, receiver):
    two_versions(server, tmp_path, "good", models.add_one, lambda path: models.adds(path, 2))
    with calls(server, "good", INPUT) as statuses:
        begun = roost(
            server, "rollout", "good", "--to", "2", "--steps", "20,50", "--every", "0s", "--guard", "errors<10%",
            "--minimum", "30",
        )  # fmt: skip
        assert "version 1 to 2: running at 20 %" in begun.stdout
        until(lambda: shown(server, "good")["state"] == "promoted", within=60, what="the promotion")
    assert set(statuses) == {200}
    told = shown(server, "good")
    assert [event["what"] for event in told["events"] if event["what"] != "held"] == ["started", "step", "promoted"]
    answer = server.http.post("/t/acme/v2/models/good/infer", json=INPUT).json()
    assert answer["outputs"][0]["data"] == [2, 2, 2, 2]
    types = [f"io.roost.rollout.{what}.v1" for what in ("started", "step", "promoted")]

    def told_of() -> list[dict]:
        return [asked.json for asked in receiver.asked if asked.json["subject"] == "tenant/acme/model/good"]

    until(lambda: {event["type"] for event in told_of()} >= set(types), what="the webhook told")
    assert [event["type"] for event in told_of() if event["type"] in types] == types
    assert len({event["id"] for event in told_of()}) == len(told_of())


def test_a_version_that_fails_is_rolled_back(server, tmp_path):
    two_versions(server, tmp_path, "bad", models.add_one, models.fails_on_small)
    with calls(server, "bad", FAILS) as statuses:
        roost(server, "rollout", "bad", "--to", "2", "--steps", "50", "--every", "1h", "--guard", "errors<5%")
        until(lambda: shown(server, "bad")["state"] == "rolled_back", within=60, what="the way back")
    told = shown(server, "bad")
    assert told["reason"] == "version 2 violates errors<5%, and version 1 does less"
    assert [share["version"] for share in server.http.get("/api/v1/models/bad/traffic").json()["split"]] == [1]
    assert set(statuses) == {200, 422}
    table = roost(server, "rollout", "bad").stdout
    assert "rolled_back" in table
    assert "against 0 of" in table


def test_a_version_that_cannot_be_called_alike_does_not_begin(server, tmp_path):
    two_versions(server, tmp_path, "other", models.add_one, models.fails_on_negative)
    refused = roost(server, "rollout", "other", "--to", "2", "--guard", "errors<5%", status=1)
    assert "would break its callers: its inputs are index instead of x" in refused.stderr
    assert roost(server, "rollout", "other").stdout.startswith("no rollout yet")


def test_a_kill_in_the_middle_is_outlived(server, tmp_path):
    two_versions(server, tmp_path, "kept", models.add_one, lambda path: models.adds(path, 3))
    wish = {"to": 2, "steps": [50], "every_s": 0, "guard": "errors<10%", "minimum": 40}
    assert server.http.post("/api/v1/models/kept/rollouts", json=wish).status_code == 201
    for _ in range(40):
        assert server.http.post("/t/acme/v2/models/kept/infer", json=INPUT).status_code == 200

    def counted() -> int:
        held = [event for event in shown(server, "kept")["events"] if event["what"] == "held"]
        return len(held)

    until(counted, what="a look")
    server.kill()
    server.start()
    assert shown(server, "kept")["state"] == "running"
    with calls(server, "kept", INPUT):
        until(lambda: shown(server, "kept")["state"] == "promoted", within=60, what="the promotion")


def test_it_is_paused_resumed_and_aborted_by_hand(server, tmp_path):
    two_versions(server, tmp_path, "hand", models.add_one, lambda path: models.adds(path, 4))
    roost(server, "rollout", "hand", "--to", "2", "--guard", "p99<1s,errors<1%")
    for option, state in (("--pause", "paused"), ("--resume", "running"), ("--abort", "aborted")):
        assert f"version 1 to 2: {state} at 5 %" in roost(server, "rollout", "hand", option).stdout
    again = roost(server, "rollout", "hand", "--abort", status=1)
    assert "no_rollout" in again.stderr
    assert "one thing at a time" in roost(server, "rollout", "hand", "--abort", "--pause", status=2).stderr
    assert "--guard" in roost(server, "rollout", "hand", "--to", "2", status=2).stderr
    refused = roost(server, "rollout", "hand", "--to", "2", "--guard", "p99>1", status=1)
    assert "is not like p99<120ms" in refused.stderr
    history = json.loads(roost(server, "--json", "history", "hand").stdout)["entries"]
    assert [entry["what"] for entry in history if entry["what"] in ("rollout", "alias")] == [
        "alias", "rollout", "alias", "rollout",
    ]  # fmt: skip


@pytest.mark.parametrize(("number", "state"), [(1.0000001, "promoted"), (2, "rolled_back")])
def test_a_version_that_answers_otherwise_is_rolled_back(server, tmp_path, number, state):
    model = f"says-{state.replace('_', '-')}"
    two_versions(server, tmp_path, model, models.add_one, lambda path: models.adds(path, number))
    guard = "disagreement<10%,errors<30%"
    with calls(server, model, INPUT) as statuses:
        roost(
            server, "rollout", model, "--to", "2", "--steps", "50", "--every", "0s", "--guard", guard, "--minimum", "20"
        )
        until(lambda: shown(server, model)["state"] == state, within=60, what=f"{state} reached")
    told = shown(server, model)
    numbers = told["events"][-1]["facts"]["numbers"]["disagreement<10%"]
    assert set(numbers) == {"verdict", "limit", "candidate"}
    assert set(statuses) == {200}
    if state == "rolled_back":
        assert told["reason"] == "version 2 violates disagreement<10%"
        assert numbers["candidate"]["bad"] == numbers["candidate"]["calls"] > 0
    else:
        assert numbers["candidate"]["bad"] == 0
