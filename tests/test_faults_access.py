"""Keys and tenants (A1 to A4, S32) against a real server: who has no business here learns nothing, in whatever way he asks."""

import json
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

import models_for_tests as models
from faulty_calls import request, tensor
from http_raw import ADD_ONE
from roost_platform.domain.tenants import make_secret
from roost_process import RoostProcess, until

SHARED = "shared"
"""A model's name in both tenants; it adds another number in each."""
ADDS = {"acme": 1000, "rival": 7}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("access")
    with RoostProcess(folder) as server:
        server.keys = {tenant: server.make_tenant(tenant) for tenant in ADDS}
        for tenant, number in ADDS.items():
            file = models.adds(folder / f"{tenant}.onnx", number)
            server.deploy(server.keys[tenant], SHARED, file, min_scale=1, max_scale=1, max_batch_size=16)
        server.deploy(server.keys["rival"], "secret-model", models.add_one(folder / "secret.onnx"))
        server.http = httpx.Client(base_url=server.url, timeout=60)
        yield server
        server.http.close()
        assert server.stop() == 0
        for event in ("prediction_failed", "request_failed"):
            assert not server.events(event)


PARAMETERS = {"tenant": "rival", "model": "secret-model", "month": "2026-11", "number": "1", "version": "1"} | {
    "note": "C1",
    "line": "1",
    "statement": "rival-2026-11",
    "alias": "stable",
    "wish": "pause",
}
BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/api/v1/tenants"): {"name": "new"},
    ("PATCH", "/api/v1/tenants/{name}"): {"quota": {}},
    ("POST", "/api/v1/keys"): {"name": "x", "scopes": ["read"]},
    ("PATCH", "/api/v1/models/{model}/scaling"): {"min-scale": 1},
    ("POST", "/api/v1/models/{model}/rollback"): {"version": 1},
    ("PUT", "/api/v1/models/{model}/traffic"): {"split": {"1": 100}},
    ("POST", "/api/v1/models/{model}/rollouts"): {"to": 1, "guard": "errors<1%"},
    ("PUT", "/api/v1/models/{model}/shadow"): {"to": 1},
    ("PUT", "/api/v1/models/{model}/aliases/{alias}"): {"version": 1},
    ("PUT", "/api/v1/models/{model}/drift"): {"rate": 0},
    ("PUT", "/api/v1/models/{model}/versions/{number}/profile"): {"inputs": []},
    ("POST", "/api/v1/models/{model}/feedback"): {"items": [{"request_id": "x", "labels": [1]}]},
}
SCOPES = {
    ("POST", "/api/v1/keys"): "admin",
    ("GET", "/api/v1/keys"): "admin",
    ("DELETE", "/api/v1/keys/{key_id}"): "admin",
    ("POST", "/api/v1/models/{model}/versions"): "deploy",
    ("PATCH", "/api/v1/models/{model}/scaling"): "deploy",
    ("POST", "/api/v1/models/{model}/rollback"): "deploy",
    ("PUT", "/api/v1/models/{model}/traffic"): "deploy",
    ("PUT", "/api/v1/models/{model}/aliases/{alias}"): "deploy",
    ("DELETE", "/api/v1/models/{model}/aliases/{alias}"): "deploy",
    ("GET", "/api/v1/models/{model}/traffic"): "read",
    ("GET", "/api/v1/models/{model}/history"): "read",
    ("GET", "/api/v1/models/{model}/rollouts"): "read",
    ("POST", "/api/v1/models/{model}/rollouts"): "deploy",
    ("POST", "/api/v1/models/{model}/rollouts/{wish}"): "deploy",
    ("GET", "/api/v1/models/{model}/shadow"): "read",
    ("PUT", "/api/v1/models/{model}/shadow"): "deploy",
    ("DELETE", "/api/v1/models/{model}/shadow"): "deploy",
    ("DELETE", "/api/v1/models/{model}"): "deploy",
    ("GET", "/api/v1/models"): "read",
    ("GET", "/api/v1/models/{model}"): "read",
    ("GET", "/api/v1/models/{model}/versions"): "read",
    ("GET", "/api/v1/models/{model}/versions/{number}"): "read",
    ("GET", "/api/v1/models/{model}/status"): "read",
    ("GET", "/api/v1/models/{model}/logs"): "read",
    ("GET", "/api/v1/models/{model}/drift"): "read",
    ("PUT", "/api/v1/models/{model}/drift"): "deploy",
    ("PUT", "/api/v1/models/{model}/versions/{number}/profile"): "deploy",
    ("POST", "/api/v1/models/{model}/feedback"): "predict",
    ("GET", "/api/v1/usage"): "read",
    ("GET", "/api/v1/statements"): "read",
    ("GET", "/api/v1/statements/{month}"): "read",
    ("GET", "/api/v1/statements/{month}/notes/{note}"): "read",
    ("GET", "/api/v1/statements/{month}/lines/{line}/events"): "read",
    ("POST", "/api/v1/statements/{month}/finalize"): "operator",
    ("POST", "/api/v1/statements/{statement}/notes"): "operator",
    ("POST", "/api/v1/statements/{statement}/marks"): "operator",
    ("GET", "/api/v1/usage/corrections"): "read",
    ("POST", "/api/v1/usage/corrections"): "operator",
    ("GET", "/api/v1/budget"): "read",
    ("PUT", "/api/v1/budget"): "operator",
    ("DELETE", "/api/v1/budget"): "operator",
    ("GET", "/api/v1/money"): "operator",
    ("GET", "/api/v1/reconciliation"): "operator",
    ("GET", "/api/v1/info"): "any",
    ("GET", "/api/v1/prices"): "any",
    ("POST", "/api/v1/prices/what-if"): "operator",
    ("GET", "/api/v1/tenants/{name}"): "own",
    ("POST", "/api/v1/tenants"): "operator",
    ("GET", "/api/v1/tenants"): "operator",
    ("PATCH", "/api/v1/tenants/{name}"): "operator",
    ("DELETE", "/api/v1/tenants/{name}"): "operator",
}
"""Every route of the control API and what it takes; a new route must be added here."""
PREDICTIONS = [
    ("GET", "/t/{tenant}/v2"),
    ("GET", "/t/{tenant}/v2/models"),
    ("GET", "/t/{tenant}/v1/models"),
    ("GET", "/t/{tenant}/v2/models/{model}"),
    ("GET", "/t/{tenant}/v2/models/{model}/ready"),
    ("GET", "/t/{tenant}/v2/models/{model}/versions/1"),
    ("GET", "/t/{tenant}/v1/models/{model}"),
    ("POST", "/t/{tenant}/v2/models/{model}/infer"),
    ("POST", "/t/{tenant}/v2/models/{model}/versions/1/infer"),
    ("POST", "/t/{tenant}/v1/models/{model}:predict"),
]


def call(
    server: RoostProcess, method: str, path: str, key: str | None, body: Any = None, **more: Any
) -> httpx.Response:
    headers = {"x-request-id": "same"} | ({"authorization": f"Bearer {key}"} if key else {})
    return server.http.request(method, path, headers=headers, **({"json": body} if body else {}), **more)


def told(response: httpx.Response) -> tuple[Any, ...]:
    """All that a client can tell two answers apart by."""
    headers = [(name, value) for name, value in response.headers.raw if name != b"date"]
    return response.status_code, headers, response.content


def every_route(server: RoostProcess) -> list[tuple[str, str]]:
    document = server.http.get("/openapi.json").json()
    found = [(method.upper(), path) for path, methods in document["paths"].items() for method in methods]
    assert set(found) == set(SCOPES), set(found) ^ set(SCOPES)
    return found


def test_a1_whatever_is_wrong_with_a_key_every_route_answers_alike(server: RoostProcess):
    with server.client(server.keys["acme"]) as admin:
        soon = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
        expired = admin._json("POST", "/api/v1/keys", json={"name": "e", "scopes": ["admin"], "expires_at": soon})
        revoked = admin._json("POST", "/api/v1/keys", json={"name": "r", "scopes": ["admin"]})
        assert call(server, "GET", "/api/v1/models", revoked["secret"]).status_code == 200
        assert call(server, "DELETE", f"/api/v1/keys/{revoked['id']}", server.keys["acme"]).status_code == 204
    until(lambda: call(server, "GET", "/api/v1/models", expired["secret"]).status_code == 401, what="expiry")
    good = server.keys["acme"]
    wrong: dict[str, list[tuple[str, str | bytes]]] = {
        "none": [],
        "empty": [("authorization", "")],
        "scheme alone": [("authorization", "Bearer")],
        "garbage": [("authorization", b"Bearer \xff\xfe")],
        "long": [("authorization", "Bearer " + "a" * 10_000)],
        "absent": [("authorization", f"Bearer {make_secret()}")],
        "mistyped": [("authorization", f"Bearer {good[:-1]}_")],
        "cut": [("authorization", f"Bearer {good[:-1]}")],
        "with a tail": [("authorization", f"Bearer {good} x")],
        "in capitals": [("authorization", f"Bearer {good.upper()}")],
        "other scheme": [("authorization", f"Basic {good}")],
        "no scheme": [("authorization", good)],
        "two": [("authorization", f"Bearer {good}"), ("authorization", f"Bearer {good}")],
        "a list": [("authorization", f"Bearer {good}, Bearer {good}")],
        "other headers": [
            ("x-api-key", good),
            ("api-key", good),
            ("cookie", f"key={good}"),
            ("proxy-authorization", good),
        ],
        "expired": [("authorization", f"Bearer {expired['secret']}")],
        "revoked": [("authorization", f"Bearer {revoked['secret']}")],
    }
    routes = [(m, p, BODIES.get((m, p))) for m, p in every_route(server)] + [(m, p, None) for m, p in PREDICTIONS]
    answers = set()
    for method, path, _ in routes:
        shown = fill(path, model=SHARED, tenant="acme", name="acme", key_id="0" * 16)
        for case, headers in wrong.items():
            sent = [(name.encode(), value if isinstance(value, bytes) else value.encode()) for name, value in headers]
            response = server.http.request(method, shown, headers=[(b"x-request-id", b"same"), *sent])
            assert response.status_code == 401, (case, method, path, response.content)
            assert response.headers["www-authenticate"] == "Bearer"
            answers.add(response.content)
    assert len(answers) == 1, answers


def fill(path: str, **values: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda name: (PARAMETERS | values)[name[1]], path)


@pytest.mark.parametrize(
    "query", ["key={}", "a=1&access_token={}", "{}", "q=Bearer%20{}", "a=1;key={}", "x%5B%5D={}", "a=x{}"]
)
def test_a1_a_key_in_the_url_is_400_everywhere_and_never_logged(server: RoostProcess, query: str):
    good = server.keys["acme"]
    for key in (good, server.operator_key):
        for method, path in [*every_route(server), *PREDICTIONS]:
            shown = fill(path, model=SHARED, tenant="acme", name="acme", key_id="0" * 16)
            response = call(server, method, f"{shown}?{query.format(key)}", good)
            assert (response.status_code, response.json()["code"]) == (400, "key_in_url"), (
                method,
                path,
                response.content,
            )
            assert key not in response.text
    log = server.log_file.read_text()
    assert good not in log
    assert server.operator_key not in log


def test_a2_every_route_shows_anothers_object_as_an_absent_one(server: RoostProcess):
    with server.client(server.keys["rival"]) as rival:
        foreign_key = rival._json("GET", "/api/v1/keys")["keys"][0]["id"]
    theirs = {"model": "secret-model", "tenant": "rival", "name": "rival", "key_id": foreign_key}
    nobodys = {"model": "absent-model", "tenant": "nobody", "name": "nobody", "key_id": "0" * 16}
    compared = 0
    for method, path in [*every_route(server), *PREDICTIONS]:
        body = BODIES.get((method, path))
        for query in ("", "?tenant={tenant}"):
            if "{" not in path.replace("{month}", "") + query or (path.startswith("/t/") and query):
                continue  # it names nothing that could be another's
            if method == "POST" and path.endswith("/versions") and not query:
                continue  # a model of this name may be made
            content = {"content": b"x", "headers": {}} if path.endswith("/versions") and method == "POST" else {}
            both = [call_raw(server, method, fill(path + query, **names), body, content) for names in (theirs, nobodys)]
            assert told(both[0]) == told(both[1]), (method, path, query)
            needs = SCOPES.get((method, path))
            wanted = 403 if needs == "operator" else 200 if path == "/api/v1/info" else 404
            assert both[0].status_code == wanted, (method, path, query, both[0].content)
            compared += 1
    assert compared > 30
    with server.client(server.keys["rival"]) as rival:
        assert {model["model"] for model in rival._json("GET", "/api/v1/models")["models"]} == {SHARED, "secret-model"}


def call_raw(server: RoostProcess, method: str, path: str, body: Any, content: Any) -> httpx.Response:
    headers = {"x-request-id": "same", "authorization": f"Bearer {server.keys['acme']}"}
    if content:
        return server.http.request(
            method, path, headers=headers | {"content-type": "application/octet-stream"}, content=content["content"]
        )
    return server.http.request(method, path, headers=headers, **({"json": body} if body else {}))


def test_a3_one_name_in_two_tenants_is_never_mixed_over_thousands_of_calls(server: RoostProcess):
    rounds, threads = 250, 4

    def calls(tenant: str, thread: int) -> Counter[str]:
        headers = {"authorization": f"Bearer {server.keys[tenant]}", "content-type": "application/json"}
        seen: Counter[str] = Counter()
        with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
            for number in range(rounds):
                value = thread * rounds + number
                body = request(tensor(data=[value] * 4))
                answer = client.post(f"/t/{tenant}/v2/models/{SHARED}/infer", content=body)
                assert answer.status_code == 200, answer.content
                assert answer.json()["outputs"][0]["data"] == [value + ADDS[tenant]] * 4, (tenant, value)
                seen[tenant] += 1
        return seen

    usage = {tenant: requests(server, tenant) for tenant in ADDS}
    with ThreadPoolExecutor(2 * threads) as pool:
        done = [pool.submit(calls, tenant, thread) for thread in range(threads) for tenant in ADDS]
        total = sum((each.result() for each in done), Counter())
    assert total == dict.fromkeys(ADDS, rounds * threads)
    for tenant in ADDS:
        assert requests(server, tenant) - usage[tenant] == rounds * threads
        labels = {("tenant", tenant), ("model", SHARED), ("outcome", "ok")}
        figures = [v for (name, has), v in server.figures().items() if name == "roost_requests_total" and labels <= has]
        assert figures == [requests(server, tenant)]
        logs = call(server, "GET", f"/api/v1/models/{SHARED}/logs", server.keys[tenant]).text
        other = next(name for name in ADDS if name != tenant)
        assert other not in logs


def requests(server: RoostProcess, tenant: str) -> int:
    with server.client(server.keys[tenant]) as client:
        rows = client.usage(model=SHARED, group_by="outcome")["rows"]
    return sum(row["requests"] for row in rows if row["outcome"] == "ok")


IMPLIED = {
    "read": {"read"},
    "predict": {"predict", "read"},
    "deploy": {"deploy", "read"},
    "admin": {"read", "predict", "deploy", "admin"},
}


@pytest.mark.parametrize("scope", IMPLIED)
def test_a4_a_key_does_what_its_scope_says_on_every_route_and_nothing_else(server: RoostProcess, scope: str):
    made = call(server, "POST", "/api/v1/keys", server.keys["acme"], {"name": scope, "scopes": [scope]}).json()
    names = {"model": "absent-model", "tenant": "acme", "name": "acme", "key_id": "0" * 16}
    for (method, path), needs in SCOPES.items():
        response = call(server, method, fill(path, **names), made["secret"], BODIES.get((method, path)))
        if needs == "operator":
            assert (response.status_code, response.json()["code"]) == (403, "operator_only"), (method, path)
        elif needs in ("any", "own") or needs in IMPLIED[scope]:
            assert response.status_code in (200, 201, 400, 404, 422), (method, path, response.content)
            assert response.status_code < 300 or response.json()["code"] != "missing_scope"
        else:
            assert (response.status_code, response.json()["code"]) == (403, "missing_scope"), (method, path)
    for method, path in PREDICTIONS:
        needs = "predict" if method == "POST" else "read"
        response = call(
            server,
            method,
            fill(path, model=SHARED, tenant="acme"),
            made["secret"],
            json.loads(ADD_ONE) if method == "POST" else None,
        )
        assert (response.status_code == 403) is (needs not in IMPLIED[scope]), (method, path, response.content)


def test_s32_no_file_and_no_log_holds_a_key(server: RoostProcess):
    secrets = [*server.keys.values(), server.operator_key]
    assert all(re.fullmatch(r"roost_[0-9A-Za-z]{40,}", secret) for secret in secrets), "128 random bits at least"
    assert call(server, "GET", "/api/v1/usage", server.keys["acme"]).status_code == 200
    dump = server.dump()
    (hashes,) = zip(*server.query("SELECT hash FROM api_keys"), strict=True)
    assert {len(each) for each in hashes} == {32}
    for secret in secrets:
        assert secret not in dump
        assert secret.encode().hex() not in dump.lower()
    looked_at = 0
    for file in [*server.data.rglob("*"), server.log_file]:
        if file.is_file():
            content = file.read_bytes()
            looked_at += 1
            for secret in secrets:
                body = secret.removeprefix("roost_").encode()
                assert body not in content, file
    assert looked_at > 5


def test_nothing_that_a_body_holds_is_in_the_log(server: RoostProcess):
    canary = "canary-51f0c2"
    before = server.log_file.stat().st_size
    for method, path in every_route(server):
        if method in ("POST", "PUT", "PATCH"):
            body = (BODIES.get((method, path)) or {}) | {"name": canary, canary: [canary]}
            call(server, method, fill(path, model=SHARED, tenant="acme", name="acme"), server.keys["acme"], body)
            call(server, method, fill(path, model=SHARED, tenant="acme", name="acme"), server.operator_key, body)
    for method, path in PREDICTIONS:
        shown = fill(path, model=SHARED, tenant="acme")
        content = (
            {"content": f'{{"inputs": [{{"name": "{canary}", "data": ["{canary}"]'.encode()} if method == "POST" else {}
        )
        server.http.request(method, shown, headers={"authorization": f"Bearer {server.keys['acme']}"}, **content)
        if method == "POST":
            bad = {"inputs": [tensor(data=[canary])]}
            assert call(server, method, shown, server.keys["acme"], bad).status_code == 400
    new = server.log_file.read_bytes()[before:]
    assert canary.encode() not in new, [line for line in new.splitlines() if canary.encode() in line][:3]
