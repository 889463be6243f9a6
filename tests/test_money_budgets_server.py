"""A real server whose tenant uses its budget up by real calls: refused in both lanes, told, kept over a restart, and undone."""

from pathlib import Path

import httpx

import models_for_tests as models
from recording_server import serving
from roost_process import RoostProcess, until

PRICES = """
currency = "USD"

[[book]]
version = "one-each"
effective_from = 2020-01-01T00:00:00Z

[book.prices]
requests = "1000000"
"""
BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
IDS = [f"acme/{{month}}/5.00/{percent}" for percent in (50, 80, 100)]


def test_a_budget_is_used_up_by_real_calls(tmp_path: Path):
    prices = tmp_path / "prices.toml"
    prices.write_text(PRICES)
    with serving() as receiver:
        receiver.on("POST /hook", status=500)
        receiver.on("POST /hook", status=204)
        settings = {
            "ROOST_PRICES": str(prices),
            "ROOST_BUDGET_INTERVAL_S": "0.1",
            "ROOST_BUDGET_WEBHOOK": f"{receiver.url}/hook?token=s3cret",
            "ROOST_JOURNAL_SHIP_INTERVAL_S": "0.05",
        }
        with RoostProcess(tmp_path, **settings) as server:
            server.secrets.add("s3cret")
            key = server.make_tenant()
            server.deploy(key, "one", models.add_one(tmp_path / "one.onnx"), min_scale=1)
            rival = server.make_tenant("rival")
            server.deploy(rival, "one", models.add_one(tmp_path / "two.onnx"), min_scale=1)
            with server.client(tenant="acme") as operator, httpx.Client(base_url=server.url) as http:

                def call(tenant: str = "acme") -> httpx.Response:
                    secret = {"acme": key, "rival": rival}[tenant]
                    path = f"/t/{tenant}/v2/models/one/infer"
                    return http.post(path, json=BODY, headers={"Authorization": f"Bearer {secret}"}, timeout=60)

                operator.set_budget("5.00", hard_cap=True)
                answered = [200] * 5
                assert [call().status_code for _ in answered] == answered, "what the budget pays for is answered"
                until(lambda: answered.append(call().status_code) or answered[-1] != 200, what="the cap")
                assert answered[-1] == 429
                refused = call()
                document = refused.json()
                assert (document["code"], document["limit"], document["used"] >= 5) == ("budget_exhausted", 5.0, True)
                assert 1 <= int(refused.headers["retry-after"]) <= 3600
                assert document["reset"] >= int(refused.headers["retry-after"]) - 1
                assert [call().status_code for _ in range(20)] == [429] * 20
                assert call("rival").status_code == 200
                rows = server.shipped_ledger(key, "outcome, requests")
                assert sum(n for outcome, n in rows if outcome == "ok") == answered.count(200) + 1, "rival's is there"
                assert sum(n for outcome, n in rows if outcome == "throttled") == 1 + 1 + 20

                budget = operator.budget()
                assert budget["spent"] == f"{answered.count(200)}.00"
                assert budget["capped_until"] is not None
                until(lambda: len({asked.json["id"] for asked in receiver.asked}) == 3 and len(receiver.asked) > 3)
                wanted = {each.format(month=budget["month"]) for each in IDS}
                assert {asked.json["id"] for asked in receiver.asked} == wanted
                until(lambda: all(alert["delivered_at"] for alert in operator.budget()["alerts"]))
                figures = server.figures()
                assert figures["roost_budget_used_ratio", frozenset({("tenant", "acme")})] >= 1
                assert figures["roost_budget_alerts_total", frozenset({("tenant", "acme")})] == 3
                assert [event["roost"]["threshold"] for event in server.events("budget_alert")] == [50, 80, 100]

                assert server.stop() == 0
                server.start()
                assert call().status_code == 429, "kept over a restart"
                operator.set_budget("500.00", hard_cap=True)
                assert call().status_code == 200, "raised, it is in force at once"
                operator.set_budget("1.00", hard_cap=True)
                assert call().status_code == 429
                operator.clear_budget()
                assert call().status_code == 200
            assert server.stop() == 0
            assert not server.events("budgets_not_looked_at"), server.log_tail()
