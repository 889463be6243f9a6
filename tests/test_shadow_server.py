"""Shadows on a real server: calls are copied, compared, metered apart, and never felt by the caller."""

import json
import struct

import httpx
import pytest

import models_for_tests as models
from recording_server import Command
from roost_process import RoostProcess, until

PATH = "/t/acme/v2/models/{}/infer"


def request(*values: float) -> dict:
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": list(values or (0, 0, 0, 0))}]}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shadows")
    with RoostProcess(folder) as server:
        server.key = server.make_tenant()
        server.command = Command(server.url, folder)
        server.http = httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {server.key}"}, timeout=60)
        yield server
        server.http.close()
        assert server.stop() == 0
        assert not server.events("tap_failed")
        assert not server.events("shadow_not_compared")


def roost(server, *arguments: str, status: int = 0):
    result = server.command(*arguments, environment={"ROOST_API_KEY": server.key})
    assert result.exit_code == status, result.output
    return result


@pytest.fixture
def two(server, tmp_path):
    """Make a model with a version that serves and one that waits, awake unless told otherwise."""

    def make(model: str, first, second, **options) -> None:
        server.deploy(server.key, model, first(tmp_path / "1.onnx"), **({"min_scale": 1} | options))
        second(tmp_path / "2.onnx")
        roost(server, "deploy", model, str(tmp_path / "2.onnx"), "--no-traffic")

    return make


def put(server, model: str, **wish) -> dict:
    response = server.http.put(f"/api/v1/models/{model}/shadow", json={"to": 2} | wish)
    assert response.status_code == 200, response.text
    return response.json()


def shown(server, model: str) -> dict:
    return server.http.get(f"/api/v1/models/{model}/shadow").json()


def call(server, model: str, *values: float, path: str = PATH, **how) -> httpx.Response:
    response = server.http.post(path.format(model), json=request(*values), **how)
    assert response.status_code == 200, response.text
    return response


def finished(server, model: str, copies: int) -> dict:
    """What came of so many calls that were to be copied, once all of it is known."""

    def known() -> bool:
        told = shown(server, model)
        of_copies = told["alike"] + told["differed"] + sum(told["uncompared"].values())
        return of_copies + sum(told["failed"].values()) + sum(told["dropped"].values()) == copies

    until(known, within=30, what=f"{copies} copies of {model}")
    return shown(server, model)


def nearly_one(path):
    return models.adds(path, 1.0000001)


def test_copies_are_compared_and_metered_apart(server, two):
    two("alike", models.add_one, nearly_one)
    assert put(server, "alike")["answered"] == 0
    for _ in range(20):
        assert call(server, "alike").json()["outputs"][0]["data"] == [1, 1, 1, 1]
    told = finished(server, "alike", 20)
    assert (told["answered"], told["alike"], told["differed"], told["dropped"]) == (20, 20, 0, {})
    assert 0 < told["largest_difference"] < 1e-6
    assert told["examples"] == []
    with server.client(server.key) as client:
        usage = client.usage(group_by="model,version")["rows"]
    rows = {row["version"]: row for row in usage if row["model"] == "alike"}
    assert [(rows[n]["requests"], rows[n]["shadow_requests"], rows[n]["billed_requests"]) for n in (1, 2)] == [
        (20, 0, 20), (20, 20, 0),
    ]  # fmt: skip
    assert (rows[2]["rows"], rows[2]["errors"]) == (20, 0)
    assert rows[2]["bytes_in"] == rows[1]["bytes_in"]
    figures = server.figures()
    labels = {("tenant", "acme"), ("model", "alike")}
    assert figures["roost_shadow_calls_total", frozenset(labels | {("result", "answered")})] == 20
    assert figures["roost_shadow_calls_total", frozenset(labels | {("result", "alike")})] == 20
    assert figures["roost_requests_total", frozenset(labels | {("outcome", "ok")})] == 20
    found = server.command("reconcile", environment={"ROOST_API_KEY": server.operator_key})
    assert found.exit_code == 0, found.output


def test_differences_come_with_examples(server, two):
    two("unlike", models.add_one, lambda path: models.adds(path, 2))
    put(server, "unlike", keep_bodies=True)
    call(server, "unlike", 1, 2, 3, 4, headers={"x-request-id": "look-here"})
    told = finished(server, "unlike", 1)
    assert (told["differed"], told["differences"], told["largest_difference"]) == (1, {"values": 1}, 1.0)
    (example,) = told["examples"]
    assert [example[name] for name in ("request_id", "version", "difference", "where")] == [
        "look-here",
        1,
        "values",
        "y[0]",
    ]
    assert json.loads(example["request"]) == request(1, 2, 3, 4)
    assert json.loads(example["served"])["outputs"][0]["data"] == [2, 3, 4, 5]
    assert json.loads(example["copied"])["outputs"][0]["data"] == [3, 4, 5, 6]
    table = roost(server, "shadow", "unlike").stdout
    assert "1 answered, 0 alike, 1 different (100.00%); largest difference 1." in table
    assert "look-here" in table
    anew = roost(server, "shadow", "unlike", "--to", "2", "--absolute", "1.5").stdout
    assert "0 answered" in anew
    call(server, "unlike")
    assert finished(server, "unlike", 1)["alike"] == 1
    by_path = roost(server, "--json", "shadow", "unlike", "--to", "2", "--compare", "$.outputs[0].shape").stdout
    assert json.loads(by_path)["compare"] == {
        "by": "path", "path": "$.outputs[0].shape", "top": 1, "relative": None, "absolute": None,
    }  # fmt: skip
    call(server, "unlike")
    told = finished(server, "unlike", 1)
    assert (told["alike"], told["examples"]) == (1, [])
    assert "has no shadow any more" in roost(server, "shadow", "unlike", "--off").stdout
    assert "no_shadow" in roost(server, "shadow", "unlike", status=1).stderr
    changes = [row["what"] for row in server.http.get("/api/v1/models/unlike/history").json()["entries"]]
    assert changes[:4] == ["shadow"] * 4


def test_a_copy_that_fails_differs_and_fails_nobody(server, two):
    two("failing", models.add_one, models.fails_on_small)
    put(server, "failing")
    call(server, "failing", -5, 0, 0, 0)
    told = finished(server, "failing", 1)
    assert (told["differences"], told["examples"][0]["where"]) == ({"status": 1}, "200 and 422")
    assert told["examples"][0]["request"] is None, "bodies are kept only where that was asked for"


def test_a_share_is_copied_in_even_turns_and_named_calls_are_not(server, two):
    two("some", models.add_one, nearly_one)
    put(server, "some", percent=25)
    for _ in range(40):
        call(server, "some")
    assert finished(server, "some", 10)["answered"] == 10
    for version in (1, 2):
        for _ in range(4):
            call(server, "some", path=f"/t/acme/v2/models/{{}}/versions/{version}/infer")
    assert server.http.post(PATH.format("some"), content=b"{").status_code == 400
    for _ in range(4):
        call(server, "some")
    assert finished(server, "some", 11)["answered"] == 11


def test_binary_and_compressed_answers_are_compared(server, two):
    two("binary", models.add_one, nearly_one)
    put(server, "binary")
    wish = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}]}
    head = json.dumps(wish | {"parameters": {"binary_data_output": True}}).encode()
    for coding in ("identity", "gzip"):
        answer = server.http.post(
            PATH.format("binary"),
            content=head + struct.pack("<4f", 1, 2, 3, 4),
            headers={
                "inference-header-content-length": str(len(head)),
                "content-type": "application/octet-stream",
                "accept-encoding": coding,
            },
        )
        assert answer.status_code == 200, answer.text
    told = finished(server, "binary", 2)
    assert (told["alike"], told["uncompared"]) == (2, {})


def test_what_is_large_is_not_copied(server, two):
    two("large", models.add_one, nearly_one)
    put(server, "large")
    rows = 40_000
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [rows, 4], "data": [0.5] * (4 * rows)}]}
    assert server.http.post(PATH.format("large"), json=body).status_code == 200
    told = finished(server, "large", 1)
    assert (told["answered"], sum(told["dropped"].values())) == (0, 1)
    assert set(told["dropped"]) <= {"large", "streamed"}


def test_a_copy_that_takes_long_holds_no_caller_up(server, two):
    two("slow", models.add_one, models.slow_add_one)
    put(server, "slow")
    for _ in range(5):
        call(server, "slow", 10_000_000, 0, 0, 0)
    told = shown(server, "slow")
    assert (told["answered"], told["failed"]) == (0, {})


@pytest.mark.parametrize(
    ("wish", "status", "code"),
    [
        ({"to": 1}, 409, "already_serving"),
        ({"to": 3}, 409, "signature_differs"),
        ({"to": 9}, 404, "not_found"),
        ({"to": 2, "percent": 0}, 400, "invalid_request"),
        ({"to": 2, "compare": {"by": "path", "path": "$..data"}}, 400, "invalid_request"),
        ({"to": 2, "compare": {"by": "path"}}, 400, "invalid_request"),
        ({"to": 2, "compare": {"by": "luck"}}, 400, "invalid_request"),
        ({"to": 2, "tolerance": 1}, 400, "invalid_request"),
    ],
)
def test_what_cannot_be_is_refused(server, refusing, wish: dict, status: int, code: str):
    response = server.http.put("/api/v1/models/refusing/shadow", json=wish)
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    assert server.http.get("/api/v1/models/refusing/shadow").json()["code"] == "no_shadow"


@pytest.fixture(scope="module")
def refusing(server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("refusing")
    server.deploy(server.key, "refusing", models.add_one(folder / "1.onnx"))
    for made in (nearly_one(folder / "2.onnx"), models.fails_on_negative(folder / "3.onnx")):
        roost(server, "deploy", "refusing", str(made), "--no-traffic")


def awake(server, model: str) -> dict[int, int]:
    """Ready replicas by version."""
    revisions = server.http.get(f"/api/v1/models/{model}/status").json()["revisions"]
    return {revision["version"]: revision["replicas_ready"] for revision in revisions}


def test_a_kill_is_outlived_and_a_version_that_sleeps_is_woken_only_if_that_was_asked_for(server, two):
    two("kept", models.add_one, nearly_one)
    put(server, "kept")
    for _ in range(3):
        call(server, "kept")
    assert finished(server, "kept", 3)["alike"] == 3
    server.kill()
    server.start()
    until(lambda: awake(server, "kept") == {1: 1, 2: 0}, what="the serving version ready again")
    for _ in range(5):
        call(server, "kept")
    told = finished(server, "kept", 8)
    assert (told["alike"], told["dropped"]) == (3, {"asleep": 5})
    assert awake(server, "kept") == {1: 1, 2: 0}
    put(server, "kept", wake=True)
    call(server, "kept")
    assert finished(server, "kept", 1)["alike"] == 1
    assert awake(server, "kept") == {1: 1, 2: 1}
    assert server.http.delete("/api/v1/models/kept").status_code == 204
    assert server.http.get("/api/v1/models/kept/shadow").json()["code"] == "not_found"
