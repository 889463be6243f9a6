"""The `roost` command against the real server: the whole life of a tenant and its model."""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, sleep

import pytest
import surfaces_onnx_files

from recording_server import Command
from roost_gateway.client import RoostClient, ServerNotThere

FILES = Path(surfaces_onnx_files.__file__).parent
FIRST = str(FILES / "gradient_boosting_regressor.onnx")
SECOND = str(FILES / "k_neighbors_regressor.onnx")


@pytest.fixture
def roost(tmp_path):
    """The command, pointed at a server of its own that ends in order."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "roost_gateway", "serve", "--port", str(port), "--data", str(tmp_path / "data")]
    with (tmp_path / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env=os.environ, stdout=log, stderr=log)
    try:
        end = monotonic() + 60
        with RoostClient(url) as client:
            while not _ready(client):
                assert server.poll() is None, (tmp_path / "server.log").read_text()
                assert monotonic() < end
                sleep(0.05)
        yield Command(url, tmp_path)
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0, (tmp_path / "server.log").read_text()
    finally:
        server.kill()
        server.wait()


def _ready(client):
    with suppress(ServerNotThere):
        return client.ready()
    return False


def test_a_tenants_whole_life(roost, tmp_path):
    def ok(*arguments, **how):
        result = roost(*arguments, **how)
        assert result.exit_code == 0, result.output
        return result.stdout

    # The operator's key comes from the file that the server wrote; the tenant's is saved.
    assert (tmp_path / "data" / "operator.key").stat().st_mode & 0o777 == 0o600
    ok("tenant", "create", "acme", "--save", "--quota", "models=1")
    again = roost("tenant", "create", "acme")
    assert (again.exit_code, "tenant_exists" in again.stderr) == (1, True)
    assert "acme" in ok("tenant", "list")
    assert json.loads(ok("tenant", "set-quota", "acme", "burst=7", "--json"))["quota"]["burst"] == 7

    # Two versions, and a file that is none.
    assert "version 1 is ready" in ok("deploy", "scores", FIRST, "--min-scale", "1")
    sample = ok("predict", "scores", "--sample")
    first = json.loads(ok("predict", "scores", "--data", "-", stdin=sample))["outputs"][0]["data"]
    assert "version 2 is ready" in ok("deploy", "scores", SECOND)
    second = json.loads(ok("predict", "scores", "--data", "-", stdin=sample))["outputs"][0]["data"]
    assert first != second
    (tmp_path / "text.onnx").write_text("not a model")
    refused = roost("deploy", "scores", str(tmp_path / "text.onnx"))
    assert (refused.exit_code, "not_onnx" in refused.stderr) == (1, True)
    quota = roost("deploy", "another", FIRST)
    assert (quota.exit_code, "models" in quota.stderr) == (1, True)

    # Back to the first one.
    assert "v1 100 %" in ok("rollback", "scores", "1")
    assert json.loads(ok("predict", "scores", "--data", "-", stdin=sample))["outputs"][0]["data"] == first
    named = json.loads(ok("predict", "scores", "--version", "2", "--data", "-", stdin=sample))
    assert named["outputs"][0]["data"] == second
    assert "window=30" in ok("scale", "scores", "window=30", "min-scale=")
    assert len(json.loads(ok("versions", "scores", "--json"))["versions"]) == 2
    assert "scores-00001" in ok("status", "scores")
    assert "scores-00001" in ok("logs", "scores", "--lines", "10")
    assert "v1 100 %" in ok("models", "--tenant", "acme")

    # A key that may only predict.
    key = json.loads(ok("key", "create", "caller", "--scope", "predict", "--json"))
    caller = {"ROOST_API_KEY": key["secret"]}
    ok("predict", "scores", "--data", "-", stdin=sample, environment=caller)
    forbidden = roost("delete", "scores", "--yes", environment=caller)
    assert (forbidden.exit_code, "scope" in forbidden.stderr) == (1, True)
    ok("key", "revoke", key["id"])
    assert roost("models", environment=caller).exit_code == 1

    # Five calls, metered and billed.
    usage = json.loads(ok("usage", "--by", "model,version,outcome", "--json"))
    assert {(row["version"], row["outcome"]): row["requests"] for row in usage["rows"]} == {(1, "ok"): 3, (2, "ok"): 2}
    month = f"{datetime.now(UTC):%Y-%m}"
    assert json.loads(ok("bill", month, "--json"))["charged_calls"] == 5
    assert "5 charged calls" in ok("bill", month)
    assert json.loads(ok("bill", "list", "--json")) == {"statements": []}
    assert ok("bill", month, "--csv").splitlines()[0].startswith("id,kind,tenant,month,status")
    events = json.loads(ok("bill", "events", month, "1", "--json"))["events"]
    assert sum(event["quantity"] for event in events) == 5
    assert "per 1,000,000 requests" in ok("prices")

    # The end.
    in_use = roost("tenant", "delete", "acme", "--yes")
    assert in_use.exit_code == 1
    ok("delete", "scores", "--yes")
    ok("tenant", "delete", "acme", "--yes")
    assert json.loads(ok("tenant", "list", "--json")) == {"tenants": []}
