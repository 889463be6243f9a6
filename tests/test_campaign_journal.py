"""L12 and M1: while the journal cannot be written, no call is answered with 200; and a key half made is none."""

import json

import pytest

import models_for_tests as models
from http_raw import ADD_ONE, Answer, Connection, request
from roost_process import RoostProcess, wait_until_gone


def test_without_a_folder_for_the_journal_no_call_is_answered_and_none_is_charged(tmp_path):
    """A file in the folder's place refuses every new segment, as a read-only disk does; even to root."""
    with RoostProcess(tmp_path) as server:
        key = server.make_tenant()
        server.deploy(key, "one", models.add_one(tmp_path / "one.onnx"))
        journal, away = server.data / "journal", server.data / "journal.away"
        journal.rename(away)
        journal.write_text("")
        refused = [_call(server, key, f"refused-{number}") for number in range(20)]
        assert {(answer.status, json.loads(answer.body)["code"]) for answer in refused} == {(507, "storage_full")}
        assert server.answers_ready()
        journal.unlink()
        away.rename(journal)
        served = [_call(server, key, f"served-{number}") for number in range(20)]
        assert {answer.status for answer in served} == {200}
        rows = server.shipped_ledger(key)
        assert [row[0] for row in rows] == [answer.headers["x-request-id"] for answer in served]
        assert server.stop() == 0


@pytest.mark.parametrize(("left", "text"), [("operator.new", "roost_0123"), ("operator.key", "")])
def test_a_server_killed_while_it_made_the_operators_key_makes_another(tmp_path, left, text):
    """What a kill leaves: a part of a key under its working name, or (by releases before) an empty file under its own."""
    server = RoostProcess(tmp_path)
    del server.environment["ROOST_OPERATOR_KEY"]
    server.data.mkdir(mode=0o700)
    (server.data / left).write_text(text)
    with server:
        file = server.data / "operator.key"
        made = file.read_text()
        assert len(made.strip()) > 24
        assert file.stat().st_mode & 0o777 == 0o600
        assert not (server.data / "operator.new").exists()
        with server.client(made.strip()) as operator:
            assert operator.tenants()["tenants"] == []
        with Connection(server.port, timeout=60) as connection:
            connection.send(request(b"authorization: Bearer ", line=b"GET /api/v1/tenants HTTP/1.1"))
            assert connection.answer().status == 401
        wait_until_gone(server.kill(), 20)
        server.start()
        assert file.read_text() == made


def _call(server: RoostProcess, key: str, request_id: str) -> Answer:
    headers = (
        b"content-type: application/json",
        b"content-length: %d" % len(ADD_ONE),
        f"x-request-id: {request_id}".encode(),
    )
    with Connection(server.port, timeout=60) as connection:
        connection.send(request(*headers, key=key, body=ADD_ONE))
        return connection.answer()
