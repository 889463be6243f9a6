"""The disk and the database fail under a running server (L9, L12): calls go on or fail closed, and no usage is lost."""

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import models_for_tests as models
from http_raw import ADD_ONE, Answer, Connection, request
from roost_process import RoostProcess, refusal_of, until

MIB = 1024**2


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RoostProcess]:
    server = RoostProcess(tmp_path)
    yield server
    server.end()


class Caller:
    """One connection that calls `one`, and what became of its calls by request id."""

    def __init__(self, server: RoostProcess, key: str) -> None:
        self.answered: list[str] = []
        self.refused: list[Answer] = []
        self._key = key
        self._connection = Connection(server.port, timeout=60)

    def call(self, times: int) -> None:
        length = b"content-length: %d" % len(ADD_ONE)
        for _ in range(times):
            number = len(self.answered) + len(self.refused)
            self._connection.send(request(length, b"x-request-id: call-%d" % number, key=self._key, body=ADD_ONE))
            answer = self._connection.answer()
            if answer.status != 200:
                self.refused.append(answer)
                continue
            assert json.loads(answer.body)["outputs"][0]["data"] == [2, 3, 4, 5]
            self.answered.append(answer.headers["x-request-id"])

    def close(self) -> None:
        self._connection.close()


def deployed(server: RoostProcess, folder: Path) -> str:
    """The key of a tenant whose model `one` is up."""
    server.start()
    key = server.make_tenant()
    server.deploy(key, "one", models.add_one(folder / "one.onnx"), min_scale=1)
    return key


def assert_ledger_is(server: RoostProcess, key: str, caller: Caller) -> None:
    """Every answered call once, and nothing that was not answered."""
    assert sorted(row[0] for row in server.shipped_ledger(key)) == sorted(caller.answered)


def start_and_fail(server: RoostProcess) -> str:
    """The last words of a start that must fail."""
    command = [sys.executable, "-m", "roost_gateway", "serve", "--port", "0"]
    ended = subprocess.run(command, env=server.environment, check=False, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1, ended
    assert "Traceback" not in ended.stdout + ended.stderr
    return ended.stderr


@pytest.mark.sqlite
def test_l9_while_the_database_is_locked_calls_go_on_and_changes_are_refused(server, tmp_path):
    key = deployed(server, tmp_path)
    caller = Caller(server, key)
    caller.call(10)
    with (
        closing(sqlite3.connect(server.data / "roost.db", isolation_level=None)) as other,
        server.client(key) as client,
    ):
        other.execute("BEGIN EXCLUSIVE")
        caller.call(50)
        refused = refusal_of(lambda: client.create_key("ci", ["predict"]))
        assert (refused.status, refused.code) == (503, "database")
        caller.call(50)
        assert client.models()["models"][0]["model"] == "one", "reading goes on as well"
        other.execute("ROLLBACK")
        assert client.create_key("ci", ["predict"])["secret"]
    caller.call(10)
    assert not caller.refused
    assert_ledger_is(server, key, caller)
    caller.close()
    assert server.stop() == 0


@pytest.mark.sqlite
def test_l9_a_database_that_is_taken_away_is_noticed_and_not_begun_anew(server, tmp_path):
    key = deployed(server, tmp_path)
    caller = Caller(server, key)
    caller.call(20)
    away = tmp_path / "away"
    away.mkdir()
    with server.client(key) as client:
        client.usage()  # so that no transaction is under way
        for file in server.data.glob("roost.db*"):
            file.rename(away / file.name)
        caller.call(20)
        refused = refusal_of(lambda: client.create_key("ci", ["predict"]))
        assert (refused.status, refused.code) == (503, "database")
        assert "removed or replaced" in refused.message
    caller.call(20)
    assert len(caller.answered) == 60
    caller.close()
    server.stop()
    assert not (server.data / "roost.db").exists(), "no new one was made on the sly"

    assert "restore the database from a backup" in start_and_fail(server)
    artifacts = [file for file in (server.data / "artifacts").rglob("*") if file.is_file()]
    assert len(artifacts) == 1, "what the lost database described is still there"
    for file in server.data.glob("roost.db*"):
        file.unlink()
    for file in away.iterdir():
        shutil.move(file, server.data / file.name)
    server.start()
    assert_ledger_is(server, key, caller)
    assert server.stop() == 0


@pytest.mark.sqlite
def test_l9_a_damaged_database_is_not_opened(server, tmp_path):
    deployed(server, tmp_path)
    assert server.stop() == 0
    file = server.data / "roost.db"
    content = bytearray(file.read_bytes())
    content[4096:8192] = b"\xee" * 4096
    file.write_bytes(content)
    assert "the database is damaged and is not opened; restore it from a backup" in start_and_fail(server)
    assert file.read_bytes() == bytes(content), "nothing was written to it"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, as small as it may be."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only those who may mount can make a disk that is full")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> None:
    """Take all room that is left."""
    with (disk / "filler").open("wb", buffering=0) as filler:
        for size in (64 * 1024, 4096, 1):
            try:
                while filler.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


def test_l12_a_full_disk_under_journal_and_database_loses_no_usage(small_disk, tmp_path):
    server = RoostProcess(small_disk)
    server.log_file = tmp_path / "server.log"
    try:
        key = deployed(server, tmp_path)
        caller = Caller(server, key)
        caller.call(50)
        fill(small_disk)
        caller.call(2000)
        assert {(a.status, json.loads(a.body)["code"]) for a in caller.refused} == {(507, "storage_full")}
        assert len(caller.refused) > 100, "the disk was full, was it not?"
        with server.client(key) as client:
            refused = refusal_of(lambda: client.upload("two", models.infinite(tmp_path / "two.onnx")))
            assert (refused.status, refused.code) == (507, "storage_full")
        assert "No space left" in server.events("request_refused")[-1]["roost"]["cause"], "the log says why"
        assert not list((server.data / "staging").iterdir())
        assert server.answers_ready()

        (small_disk / "filler").unlink()
        already = len(caller.refused)
        caller.call(50)
        assert len(caller.refused) == already
        assert_ledger_is(server, key, caller)
        with server.client(key) as client:
            assert client.upload("two", models.infinite(tmp_path / "two.onnx"))["version"] == 1
        caller.close()
        assert server.stop() == 0
        assert not server.events("prediction_failed")
    finally:
        server.end()


def test_l12_a_server_killed_on_a_full_disk_has_all_it_answered(small_disk, tmp_path):
    server = RoostProcess(small_disk, ROOST_JOURNAL_SHIP_INTERVAL_S="3600")
    server.log_file = tmp_path / "server.log"
    try:
        key = deployed(server, tmp_path)
        caller = Caller(server, key)
        caller.call(50)
        fill(small_disk)
        while not caller.refused:
            caller.call(10)
        server.kill()
        caller.close()
        (small_disk / "filler").unlink()
        server.start()
        assert_ledger_is(server, key, caller)
        assert server.stop() == 0
    finally:
        server.end()


class Unlogged(RoostProcess):
    """One whose log goes to a disk that is full from the start."""

    def log_tail(self) -> str:
        return "(nowhere)"


def test_l12_a_log_that_cannot_be_written_stops_nothing(tmp_path):
    server = Unlogged(tmp_path)
    server.log_file = Path("/dev/full")
    try:
        key = deployed(server, tmp_path)
        caller = Caller(server, key)
        caller.call(50)
        with server.client(key) as client:  # this one logs
            assert client.upload("two", models.infinite(tmp_path / "two.onnx"))["version"] == 1
        caller.call(50)
        assert not caller.refused
        assert_ledger_is(server, key, caller)
        caller.close()
        assert server.stop() == 0
    finally:
        server.end()


def test_l9_a_read_only_folder_is_said_at_once(small_disk, tmp_path):
    server = RoostProcess(small_disk)
    server.log_file = tmp_path / "server.log"
    server.start()
    assert server.stop() == 0
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert "the data folder cannot be used" in start_and_fail(server)
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    server.start()
    until(server.answers_ready)
    assert server.stop() == 0
