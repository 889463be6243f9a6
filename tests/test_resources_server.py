"""What tenants held, through a whole server: told, shipped, and in the database after a stop, and after kill -9."""

from pathlib import Path
from typing import Any

import pytest

import models_for_tests as models
from roost_gateway.client import ApiError
from roost_process import RoostProcess, until

COLUMNS = "kind, model, version, resource_class, setup_us, active_us, idle_us, reserved_us, byte_seconds, job_us, cold_starts, final"
INPUT = b'{"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}'


def held(server: RoostProcess, kind: str) -> list[dict[str, Any]]:
    """The stretches of one kind in the database, oldest first."""
    names = COLUMNS.split(", ")
    rows = server.query(f"SELECT {COLUMNS} FROM resource_usage WHERE kind = '{kind}' ORDER BY start")
    return [dict(zip(names, row, strict=True)) for row in rows]


def counted(server: RoostProcess, name: str) -> float:
    return sum(value for (found, _), value in server.figures().items() if found == name)


def test_what_was_told_before_a_kill_or_a_stop_is_in_the_database_once(tmp_path: Path) -> None:
    with RoostProcess(tmp_path, ROOST_JOURNAL_SHIP_INTERVAL_S="60") as server:
        key = server.make_tenant()
        server.deploy(key, "iris", models.add_one(tmp_path / "one.onnx"))
        until(lambda: counted(server, "roost_outbox_stretches_total") >= 2, within=40, what="the check and a report")
        server.kill()
        assert list((server.data / "outbox").glob("*.jsonl"))
        assert not held(server, "check")
        server.start()
        until(lambda: held(server, "check"), what="what the run before had told")

        with server.client(key) as client:
            for _ in range(3):
                assert client.predict("iris", INPUT)["outputs"][0]["data"] == [2, 3, 4, 5]
            bad = tmp_path / "bad.onnx"
            bad.write_bytes((tmp_path / "one.onnx").read_bytes()[:-20])
            with pytest.raises(ApiError) as refused:
                client.upload("bad", bad)
            assert refused.value.status == 422
            client.delete_model("iris")
        assert counted(server, "roost_outbox_dropped_total") == 0
        assert server.stop() == 0

        killed, *replica = held(server, "replica")
        assert not killed["final"], "what became of it after the last report is nobody's"
        assert killed["setup_us"] > 0
        assert {(one["model"], one["version"], one["resource_class"]) for one in replica} == {("iris", 1, "cpu-1")}
        assert [bool(one["final"]) for one in replica].count(True) == 1, (
            "the one that was killed with its gateway has no end"
        )
        assert sum(one["active_us"] for one in replica) > 0
        assert sum(one["setup_us"] for one in replica) > 0
        assert sum(one["cold_starts"] for one in replica) == 1
        assert [(one["model"], one["version"]) for one in held(server, "check")] == [("iris", 1), ("bad", 0)]
        assert all(one["job_us"] > 0 for one in held(server, "check"))
        assert [(one["model"], one["version"]) for one in held(server, "storage")] == [("iris", 1)]
        assert list((server.data / "outbox").iterdir()) == []
