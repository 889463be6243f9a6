"""Splits on a real server: by its API and its command, for real calls, while they go on."""

import json
import threading
from collections import Counter

import httpx
import pytest

import models_for_tests as models
from recording_server import Command
from roost_process import RoostProcess, until

INPUT = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0, 0, 0, 0]}]}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("traffic")
    with RoostProcess(folder) as server:
        server.key = server.make_tenant()
        for number in (1, 2, 3):
            server.deploy(server.key, "adds", models.adds(folder / f"{number}.onnx", number), min_scale=1)
        server.http = httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {server.key}"}, timeout=60)
        server.command = Command(server.url, folder)
        yield server
        server.http.close()
        assert server.stop() == 0
        assert not server.events("prediction_failed")
        assert not server.events("request_failed")


def put(server, wish: dict) -> dict:
    answer = server.http.put("/api/v1/models/adds/traffic", json=wish)
    assert answer.status_code == 200, answer.text
    return answer.json()


def roost(server, *arguments: str, status: int = 0):
    """What the command says."""
    result = server.command(*arguments, environment={"ROOST_API_KEY": server.key})
    assert result.exit_code == status, result.output
    return result


def ask(server, path: str = "", **headers: str) -> int:
    """The version that answered: each adds its own number to zero."""
    answer = server.http.post(f"/t/acme/v2/models/adds{path}/infer", json=INPUT, headers=headers)
    assert answer.status_code == 200, answer.text
    return round(answer.json()["outputs"][0]["data"][0])


def test_calls_are_shared_exactly_and_named_versions_stay_in_reach(server):
    document = put(server, {"split": {"1": 60, "2": 30, "3": 10}})
    assert document == {
        "split": [{"version": n, "revision": f"adds-0000{n}", "percent": p} for n, p in ((1, 60), (2, 30), (3, 10))],
        "sticky": None,
        "rules": [],
        "aliases": {},
    }
    assert server.http.get("/api/v1/models/adds/traffic").json() == document
    assert Counter(ask(server) for _ in range(100)) == {1: 60, 2: 30, 3: 10}
    assert [ask(server, f"/versions/{n}") for n in (3, 1, 2)] == [3, 1, 2]


def test_testers_and_those_who_stick_get_theirs(server):
    put(server, {"split": {"1": 50, "2": 50}, "sticky": {"by": "header", "name": "x-user"}})
    put(server, {"rules": [{"header": "x-tester", "value": "yes", "version": 3}]})
    users = {f"u{n}": ask(server, **{"x-user": f"u{n}"}) for n in range(30)}
    assert set(users.values()) == {1, 2}
    assert all(ask(server, **{"x-user": user}) == version for user, version in users.items())
    assert {ask(server, **{"x-user": user, "x-tester": "yes"}) for user in users} == {3}
    cookies = {"cookie": "sid=7"}
    put(server, {"sticky": {"by": "cookie", "name": "sid"}, "rules": []})
    assert len({ask(server, **cookies) for _ in range(10)}) == 1
    put(server, {"sticky": {"by": "key"}})
    assert len({ask(server) for _ in range(10)}) == 1
    assert put(server, {"sticky": None})["sticky"] is None
    assert {ask(server) for _ in range(10)} == {1, 2}


def test_an_alias_is_a_path(server):
    for version in (2, 3):
        answer = server.http.put("/api/v1/models/adds/aliases/candidate", json={"version": version})
        assert (answer.status_code, answer.json()["aliases"]) == (200, {"candidate": version})
        assert ask(server, "/versions/candidate") == version
    told = server.http.get("/t/acme/v2/models/adds/versions/candidate").json()
    assert (told["name"], told["versions"]) == ("adds", ["1", "2", "3"])
    assert server.http.get("/t/acme/v2/models/adds/versions/candidate/ready").status_code == 200
    assert server.http.delete("/api/v1/models/adds/aliases/candidate").status_code == 200
    answer = server.http.post("/t/acme/v2/models/adds/versions/candidate/infer", json=INPUT)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("wish", "status", "field"),
    [
        ({}, 400, None),
        ({"split": {"1": 50}}, 400, "split"),
        ({"split": {}}, 400, "split"),
        ({"split": None}, 400, "split"),
        ({"split": {"1": 100.5}}, 400, "split"),
        ({"split": {"1": True}}, 400, "split"),
        ({"split": {"9": 100}}, 404, None),
        ({"split": {"9" * 5000: 100}}, 404, None),
        ({"split": {"none": 100}}, 404, None),
        ({"rules": None}, 400, "rules"),
        ({"rules": [{"header": "authorization", "value": "x", "version": 1}]}, 400, "rules"),
        ({"rules": [{"header": "x-t", "value": "x", "version": 9}]}, 404, None),
        ({"sticky": {"by": "moon"}}, 400, "sticky"),
        ({"sticky": {"by": "cookie"}}, 400, "sticky"),
        ({"splits": {"1": 100}}, 400, "splits"),
    ],
)
def test_a_wish_that_cannot_be_is_refused_and_changes_nothing(server, wish, status, field):
    before = server.http.get("/api/v1/models/adds/traffic").json()
    answer = server.http.put("/api/v1/models/adds/traffic", json=wish)
    assert answer.status_code == status, answer.text
    if field is not None:
        assert answer.json()["field"].startswith(field), answer.text
    assert server.http.get("/api/v1/models/adds/traffic").json() == before


def test_no_call_is_lost_while_the_split_changes(server):
    statuses: Counter[int] = Counter()
    over = threading.Event()

    def call() -> None:
        with httpx.Client(base_url=server.url, headers=server.http.headers, timeout=60) as http:
            while not over.is_set():
                statuses[http.post("/t/acme/v2/models/adds/infer", json=INPUT).status_code] += 1

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    try:
        for n in range(30):
            put(server, {"split": {"1": n, "2": 100 - n}})
            if n % 10 == 9:
                answer = server.http.post("/api/v1/models/adds/rollback", json={"version": 3})
                assert answer.status_code == 200
    finally:
        over.set()
        for caller in callers:
            caller.join()
    assert set(statuses) == {200}
    assert statuses[200] > 30


def test_the_command_shares_shows_names_and_tells_who_did_it(server):
    shown = roost(server, "traffic", "adds", "v1=25", "2=75", "--sticky", "header:x-user", "--rule", "x-t=a:b:3")
    assert "sticky by header x-user" in shown.stdout
    assert "x-t: a:b  goes to version 3" in shown.stdout
    document = json.loads(roost(server, "--json", "traffic", "adds").stdout)
    assert [(share["version"], share["percent"]) for share in document["split"]] == [(1, 25), (2, 75)]
    assert "stable is version 1" in roost(server, "alias", "adds", "stable=v1").stdout
    assert "NAME=VERSION" in roost(server, "alias", "adds", "stable", status=2).stderr
    assert "stable" not in roost(server, "alias", "adds", "stable", "--remove").stdout
    roost(server, "traffic", "adds", "3=100", "--sticky", "none", "--no-rules")
    entries = json.loads(roost(server, "--json", "history", "adds", "--limit", "2").stdout)["entries"]
    assert [entry["what"] for entry in entries] == ["traffic", "alias"]
    assert entries[0]["before"]["traffic"] == {"1": 25, "2": 75}
    assert entries[0]["after"] == {"traffic": {"3": 100}}
    key_id = server.http.get("/api/v1/keys").json()["keys"][0]["id"]
    assert {entry["by"] for entry in entries} == {key_id}
    table = roost(server, "history", "adds").stdout
    assert "traffic=1:25,2:75" in table
    assert "a version is named twice" in roost(server, "traffic", "adds", "v3=90", "3=10", status=2).stderr
    refused = roost(server, "traffic", "adds", "1=50", status=1)
    assert "sum to 50 %" in refused.stderr


def test_an_upload_may_wait_without_traffic(server, tmp_path):
    file = models.adds(tmp_path / "4.onnx", 4)
    roost(server, "deploy", "adds", str(file), "--no-traffic")
    assert (ask(server), ask(server, "/versions/4")) == (3, 4)
    roost(server, "deploy", "adds", str(file))
    assert ask(server) == 4


def test_a_version_that_sleeps_gets_its_share_of_calls_one_by_one(server, tmp_path):
    for number in (1, 2):
        file = models.adds(tmp_path / f"{number}.onnx", number)
        server.deploy(server.key, "dozes", file, window=6)
    answer = server.http.put("/api/v1/models/dozes/traffic", json={"split": {"1": 50, "2": 50}})
    assert answer.status_code == 200
    assert (
        server.http.patch("/api/v1/models/dozes/scaling", json={"scale-to-zero-pod-retention-period": 0}).status_code
        == 200
    )
    until(lambda: not server.replicas("dozes"), within=60, what="both asleep")
    path = "/t/acme/v2/models/dozes/infer"
    answers = [server.http.post(path, json=INPUT).json()["outputs"][0]["data"][0] for _ in range(40)]
    assert Counter(answers) == {1: 20, 2: 20}
