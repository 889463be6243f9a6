"""`roost usage`, `bill`, `money` and `reconcile` against the real server, whose ledger somebody meddles with."""

import asyncio
import csv
import io
import json
from datetime import UTC, datetime

import pytest
from sqlalchemy import delete

import models_for_tests as models
from recording_server import Command
from roost_gateway.cli.samples import sample_body
from roost_platform.database.connection import Database
from roost_platform.database.tables import usage_events
from roost_process import RoostProcess

CALLS = 4


@pytest.fixture
def server(tmp_path):
    with RoostProcess(tmp_path) as server:
        yield server


def test_usage_bills_and_money_agree_until_somebody_takes_a_call_out_of_the_ledger(server, tmp_path):
    acme = server.make_tenant()
    version = server.deploy(acme, "iris", models.add_one(tmp_path / "iris.onnx"))
    with server.client(acme) as client:
        for _ in range(CALLS):
            client.predict("iris", json.dumps(sample_body(version["signature"])).encode())
    roost, keys = Command(server.url, tmp_path), {"ROOST_API_KEY": acme, "ROOST_OPERATOR_KEY": server.operator_key}
    month = f"{datetime.now(UTC):%Y-%m}"

    def ok(*words):
        result = roost(*words, environment=keys)
        assert result.exit_code == 0, result.output
        return result.stdout

    # The tenant's view, and the operator's: the same calls in all of them.
    assert json.loads(ok("usage", "--json"))["total"]["requests"] == CALLS
    rows = list(csv.DictReader(io.StringIO(ok("usage", "--by", "model,outcome", "--csv"))))
    assert [(row["model"], row["requests"]) for row in rows if row["outcome"] == "ok"] == [("iris", str(CALLS))]
    assert "4 requests" in ok("usage", "--by", "tenant,meter", "--period", "2d")
    assert f"{CALLS} charged calls" in ok("bill", month)
    ok("bill", month, "-o", str(tmp_path / "bill.html"))
    assert (tmp_path / "bill.html").read_bytes().startswith(b"<!DOCTYPE html>")
    money = json.loads(ok("money", "--json"))
    assert [(each["tenant"], each["calls"]) for each in money["tenants"]] == [("acme", CALLS)]
    assert "iris" in ok("money", "--by", "model")

    # Everything that counts them says the same.
    agreed = json.loads(ok("reconcile", "--json"))
    assert {check["verdict"] for check in agreed["checks"]} <= {"equal", "pending"}
    by_name = {check["check"]: check for check in agreed["checks"]}
    assert (by_name["counters"]["left"], by_name["counters"]["right"]) == (CALLS, CALLS)

    database = Database(server.database_url)
    gone = delete(usage_events).where(usage_events.c.sequence == 1)
    assert asyncio.run(database.write(lambda connection: connection.execute(gone).rowcount)) == 1
    database.close()
    found = roost("reconcile", environment=keys)
    assert found.exit_code == 1
    assert "tenant acme: this gateway" in found.stdout
    assert f"answered {CALLS} calls since it started, but the ledger holds 3 of them: it lacks 1 call" in found.stdout
    assert "missing: 1. Usage was lost" in found.stdout
    assert found.stdout.endswith("Something differs: see above.\n")
    assert server.stop() == 0
