"""RoostClient: what it sends, and how it tells apart a refusal, an absent server and a broken answer."""

import socket
from base64 import b64encode
from hashlib import sha256

import pytest

from recording_server import serving
from roost_gateway.client import ApiError, RoostClient, ServerNotThere, is_loopback, normal_url


@pytest.fixture
def server():
    with serving() as recording:
        yield recording


@pytest.fixture
def roost(server):
    with RoostClient(server.url, "roost_key") as client:
        yield client


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_every_request_carries_the_key_and_an_operator_names_the_tenant_it_acts_for(server):
    server.on("GET /api/v1/models", {"models": []})
    with RoostClient(server.url, "roost_operator", tenant="acme") as roost:
        assert roost.models() == {"models": []}
    assert server.asked[0].headers["authorization"] == "Bearer roost_operator"
    assert server.asked[0].query == {"tenant": "acme"}


def test_a_client_without_a_key_sends_no_authorization(server):
    server.on("GET /api/v1/models", {"models": []})
    with RoostClient(server.url) as roost:
        roost.models()
    assert "authorization" not in server.asked[0].headers


def test_upload_sends_the_file_whole_with_its_digest_and_reports_progress(server, roost, tmp_path):
    content = bytes(range(256)) * 4096
    file = tmp_path / "model.onnx"
    file.write_bytes(content)
    server.on("POST /api/v1/models/iris/versions", {"version": 1}, status=201)
    reports = []
    version = roost.upload("iris", file, options={"min-scale": 1}, progress=lambda *sent: reports.append(sent))
    (asked,) = server.asked
    assert version == {"version": 1}
    assert asked.body == content
    assert asked.query == {"min-scale": "1"}
    assert asked.headers["content-length"] == str(len(content))
    assert asked.headers["content-digest"] == f"sha-256=:{b64encode(sha256(content).digest()).decode()}:"
    assert "transfer-encoding" not in asked.headers
    assert reports[-1] == (len(content), len(content))
    assert len(reports) > 1


def test_an_empty_file_can_be_uploaded_so_that_the_server_says_what_is_wrong_with_it(server, roost, tmp_path):
    file = tmp_path / "empty.onnx"
    file.touch()
    server.refuse("POST /api/v1/models/iris/versions", status=422, code="model_rejected", message="the file is empty")
    with pytest.raises(ApiError, match="the file is empty"):
        roost.upload("iris", file)


def test_a_refusal_carries_everything_the_server_said(server, roost):
    server.refuse(
        "PATCH /api/v1/models/iris/scaling",
        status=400,
        code="invalid_scaling_policy",
        message="window must be between 6 and 3600, got 1",
        field="window",
        headers={"Retry-After": "7"},
    )
    with pytest.raises(ApiError) as caught:
        roost.set_scaling("iris", {"window": 1})
    error = caught.value
    assert (error.status, error.code, error.field) == (400, "invalid_scaling_policy", "window")
    assert (error.message, error.request_id, error.retry_after) == (
        "window must be between 6 and 3600, got 1",
        "req-1",
        7.0,
    )
    assert error.to_json() == {
        "error": error.message,
        "code": error.code,
        "field": "window",
        "request_id": "req-1",
    }


def test_a_refusal_by_something_that_is_not_roost_is_still_an_api_error(server, roost):
    server.on("GET /api/v1/models", "<html>Bad gateway</html>", status=502, headers={"X-Request-Id": "proxy-9"})
    with pytest.raises(ApiError) as caught:
        roost.models()
    assert (caught.value.status, caught.value.code, caught.value.request_id) == (502, "http_502", "proxy-9")


def test_a_page_that_is_not_json_is_not_taken_for_an_answer(server, roost):
    server.on("GET /api/v1/models", "<html>Welcome</html>")
    with pytest.raises(ApiError, match="not as Roost does"):
        roost.models()


def test_nobody_listening_is_told_apart_from_a_connection_that_breaks(server, roost):
    with RoostClient(f"127.0.0.1:{free_port()}") as nobody, pytest.raises(ServerNotThere) as absent:
        nobody.models()
    server.on("GET /api/v1/models", "cut short", headers={"Content-Length": "1000", "Connection": "close"})
    with pytest.raises(ServerNotThere) as broken:
        roost.models()
    assert (absent.value.connected, broken.value.connected) == (False, True)


def test_a_server_that_says_nothing_is_given_up_after_the_timeout():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with RoostClient(url, timeout=0.1) as roost, pytest.raises(ServerNotThere, match="did not answer in time"):
            roost.info()


def test_a_redirect_is_not_followed_so_the_key_goes_nowhere_else(server, roost):
    server.on("GET /api/v1/models", status=307, headers={"Location": f"{server.url}/elsewhere"})
    with pytest.raises(ApiError):
        roost.models()
    assert [asked.path for asked in server.asked] == ["/api/v1/models"]


def test_names_cannot_reach_other_paths(server, roost):
    with pytest.raises(ApiError):
        roost.model("../tenants?x=1")
    assert server.asked[0].path == "/api/v1/models/..%2Ftenants%3Fx%3D1"


def test_predict_asks_for_the_tenant_of_the_key_and_posts_the_body_untouched(server, roost):
    server.on("GET /api/v1/models/iris", {"tenant": "acme"})
    server.on("POST /t/acme/v2/models/iris/versions/2/infer", {"outputs": []})
    assert roost.predict("iris", b'{"inputs": [ ]}', version=2) == {"outputs": []}
    assert server.asked[1].body == b'{"inputs": [ ]}'


def test_ready_is_false_while_the_server_starts(server, roost):
    server.on("GET /readyz", {"status": "starting"}, status=503)
    server.on("GET /readyz", {"status": "ready"})
    assert [roost.ready(), roost.ready()] == [False, True]


def test_urls_are_accepted_as_people_write_them():
    assert normal_url("localhost:8000/") == "http://localhost:8000"
    assert normal_url("https://roost.example/base/") == "https://roost.example/base"
    assert [is_loopback(u) for u in ("127.0.0.1:80", "http://[::1]:80", "http://localhost", "http://10.0.0.1")] == [
        True,
        True,
        True,
        False,
    ]


def test_each_call_uses_the_documented_method_path_and_body(server, roost):
    calls = [
        ("GET", "/api/v1/info", roost.info, None),
        ("GET", "/api/v1/prices", roost.prices, None),
        ("POST", "/api/v1/tenants", lambda: roost.create_tenant("acme", {"models": 3}), {"name": "acme", "quota": {"models": 3}}),
        ("GET", "/api/v1/tenants", roost.tenants, None),
        ("GET", "/api/v1/tenants/acme", lambda: roost.tenant("acme"), None),
        ("PATCH", "/api/v1/tenants/acme", lambda: roost.set_quota("acme", {"burst": 2}), {"quota": {"burst": 2}}),
        ("DELETE", "/api/v1/tenants/acme", lambda: roost.delete_tenant("acme", force=True), None),
        ("POST", "/api/v1/keys", lambda: roost.create_key("ci", ["read"]), {"name": "ci", "scopes": ["read"]}),
        ("GET", "/api/v1/keys", roost.keys, None),
        ("DELETE", "/api/v1/keys/k1", lambda: roost.revoke_key("k1"), None),
        ("GET", "/api/v1/models", roost.models, None),
        ("GET", "/api/v1/models/iris", lambda: roost.model("iris"), None),
        ("GET", "/api/v1/models/iris/versions", lambda: roost.versions("iris"), None),
        ("GET", "/api/v1/models/iris/versions/2", lambda: roost.version("iris", 2), None),
        ("GET", "/api/v1/models/iris/status", lambda: roost.status("iris"), None),
        ("GET", "/api/v1/models/iris/logs", lambda: list(roost.logs("iris", limit=5)), None),
        ("PATCH", "/api/v1/models/iris/scaling", lambda: roost.set_scaling("iris", {"target": None}), {"target": None}),
        ("POST", "/api/v1/models/iris/rollback", lambda: roost.rollback("iris", 1), {"version": 1}),
        ("DELETE", "/api/v1/models/iris", lambda: roost.delete_model("iris"), None),
        ("GET", "/api/v1/usage", lambda: roost.usage(start="2026-11-01", group_by="day"), None),
        ("GET", "/api/v1/statements", roost.statements, None),
        ("GET", "/api/v1/statements/2026-11", lambda: roost.statement("2026-11"), None),
        ("GET", "/api/v1/statements/2026-11", lambda: roost.statement_file("2026-11", "pdf"), None),
        ("GET", "/api/v1/statements/2026-11/lines/3/events", lambda: roost.statement_events("2026-11", 3, limit=5), None),
        ("POST", "/api/v1/statements/2026-11/finalize", lambda: roost.finalize_statement("2026-11"), None),
        ("POST", "/api/v1/statements/a-2026-11/notes", lambda: roost.add_note("a-2026-11", kind="credit", amount="1.00", reason="x"), {"kind": "credit", "amount": "1.00", "reason": "x"}),
        ("POST", "/api/v1/statements/a-2026-11/marks", lambda: roost.mark_statement("a-2026-11", state="paid"), {"state": "paid", "note": ""}),
        ("GET", "/api/v1/money", lambda: roost.money("2026-11", limit=3), None),
        ("GET", "/api/v1/reconciliation", lambda: roost.reconciliation(start="2026-11-01"), None),
    ]  # fmt: skip
    for method, path, call, body in calls:
        server.on(f"{method} {path}", {}, status=200)
        call()
        asked = server.asked[-1]
        assert (asked.method, asked.path, asked.json if asked.body else None) == (method, path, body)
    by_path = {(asked.method, asked.path): asked.query for asked in server.asked}
    assert by_path["DELETE", "/api/v1/tenants/acme"] == {"force": "true"}
    assert by_path["GET", "/api/v1/models/iris/logs"] == {"limit": "5"}
    assert by_path["GET", "/api/v1/usage"] == {"from": "2026-11-01", "group_by": "day"}
    assert by_path["GET", "/api/v1/statements/2026-11"] == {"format": "pdf"}
    assert by_path["GET", "/api/v1/statements/2026-11/lines/3/events"] == {"limit": "5"}
    assert by_path["GET", "/api/v1/money"] == {"month": "2026-11", "limit": "3"}
    assert by_path["GET", "/api/v1/reconciliation"] == {"from": "2026-11-01"}
