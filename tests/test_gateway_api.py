"""The control API in this process: real FastAPI, database and ledger; an engine that does as it is told."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from gateway_parts import IRIS, Parts, gateway_parts, refusal
from metering_parts import append
from roost_platform.domain.services import ServiceKey
from roost_platform.domain.usage import Outcome
from roost_platform.engines.port import RevisionFigures
from roost_platform.metering.journal import Journal


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    async with gateway_parts(tmp_path) as made:
        yield made


@pytest.fixture
async def operator(parts: Parts) -> AsyncIterator[httpx.AsyncClient]:
    async with parts.client() as client:
        yield client


@pytest.fixture
async def acme(parts: Parts) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the admin key of the tenant `acme`."""
    async with parts.client(await parts.add_tenant()) as client:
        yield client


async def test_operator_makes_shows_changes_and_deletes_a_tenant(parts: Parts, operator: httpx.AsyncClient):
    made = await operator.post("/api/v1/tenants", json={"name": "acme", "quota": {"models": 3}})
    assert made.status_code == 201
    document = made.json()
    assert set(document) == {"name", "quota", "created_at", "key"}
    assert (document["quota"]["models"], document["key"]["scopes"]) == (3, ["admin"])
    assert document["key"]["secret"].startswith("roost_")
    assert refusal(await operator.post("/api/v1/tenants", json={"name": "acme"})) == (409, "tenant_exists", "name")
    shown = (await operator.get("/api/v1/tenants/acme")).json()
    assert shown == {k: v for k, v in document.items() if k != "key"}
    assert (await operator.get("/api/v1/tenants")).json() == {"tenants": [shown]}
    changed = await operator.patch("/api/v1/tenants/acme", json={"quota": {"burst": 9}})
    assert (changed.json()["quota"]["burst"], changed.json()["quota"]["models"]) == (9, 3)
    await parts.serve()
    assert refusal(await operator.delete("/api/v1/tenants/acme")) == (409, "tenant_has_models", None)
    assert (await operator.delete("/api/v1/tenants/acme?force=true")).status_code == 204
    assert refusal(await operator.get("/api/v1/tenants/acme")) == (404, "not_found", None)
    assert parts.engine.deleted == [IRIS]


async def test_admin_makes_lists_and_revokes_keys(parts: Parts, acme: httpx.AsyncClient):
    wish = {"name": "ci", "scopes": ["predict"], "expires_at": "2027-01-01T00:00:00+01:00"}
    made = (await acme.post("/api/v1/keys", json=wish)).json()
    assert set(made) == {"id", "name", "scopes", "created_at", "expires_at", "secret"}
    assert datetime.fromisoformat(made["expires_at"]) == datetime(2026, 12, 31, 23, tzinfo=UTC)
    listed = (await acme.get("/api/v1/keys")).json()["keys"]
    assert [key["name"] for key in listed] == ["admin", "ci"]
    assert set(listed[1]) == {"id", "name", "scopes", "created_at", "expires_at", "revoked_at", "last_used_at"}
    async with parts.client(made["secret"]) as user:
        assert (await user.get("/api/v1/models")).json() == {"models": []}
        assert (await acme.delete(f"/api/v1/keys/{made['id']}")).status_code == 204
        assert refusal(await user.get("/api/v1/models")) == (401, "unauthenticated", None)
    assert refusal(await acme.delete("/api/v1/keys/unknown")) == (404, "not_found", None)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"scopes": ["read"]}, "name"),
        ({"name": "x", "scopes": []}, "scopes"),
        ({"name": "x", "scopes": ["root"]}, "scopes.0"),
        ({"name": "a\r\nb", "scopes": ["read"]}, "name"),
        ({"name": "x" * 64, "scopes": ["read"]}, "name"),
        ({"name": "x", "scopes": ["read"], "expires_at": "2027-01-01T00:00:00"}, "expires_at"),
        ({"name": "x", "scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"name": "x", "scopes": ["read"], "exspires_at": None}, "exspires_at"),
    ],
)
async def test_malformed_key_request_names_the_field(acme: httpx.AsyncClient, body, field):
    assert refusal(await acme.post("/api/v1/keys", json=body)) == (400, "invalid_request", field)


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"{", "application/json", 400, "invalid_json"),
        (b"", "application/json", 400, "invalid_request"),
        (b"null", "application/json", 400, "invalid_request"),
        (b"[" * 100_000, "application/json", 400, "invalid_json"),
        (b"\xff\xfe", "application/json", 400, "invalid_json"),
        (b'{"name": ' + b"1" * 10_000 + b"}", "application/json", 400, "invalid_json"),
        (b'{"name": "x", "scopes": ["read"]}', "text/plain", 400, "invalid_request"),
        (b" " * (1024 * 1024 + 1), "application/json", 413, "body_too_large"),
    ],
    ids=["broken", "empty", "null", "deep", "not UTF-8", "huge number", "not JSON", "large"],
)
async def test_unreadable_body_is_the_clients_mistake(acme: httpx.AsyncClient, content, kind, status, code):
    response = await acme.post("/api/v1/keys", content=content, headers={"Content-Type": kind})
    assert refusal(response)[:2] == (status, code)


async def test_chunked_body_over_the_limit_is_refused_while_it_comes(acme: httpx.AsyncClient):
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b" " * 600_000

    response = await acme.post("/api/v1/keys", content=endless(), headers={"Content-Type": "application/json"})
    assert refusal(response) == (413, "body_too_large", None)


async def test_model_is_shown_with_versions_traffic_and_state(parts: Parts, acme: httpx.AsyncClient):
    _, name = await parts.serve()
    parts.engine.broken(await parts.deploy(await parts.add_version(digest="b")))
    await parts.deployments.settled(IRIS)
    (listed,) = (await acme.get("/api/v1/models")).json()["models"]
    assert listed == {
        "tenant": "acme",
        "model": "iris",
        "created_at": "2026-11-03T12:00:00Z",
        "traffic": [{"revision": name, "version": 1, "percent": 100}],
        "latest_version": 2,
        "state": "ready",
        "replicas_ready": 1,
        "replicas_wanted": 1,
        "url": "http://roost.test/t/acme/v2/models/iris",
    }
    details = (await acme.get("/api/v1/models/iris")).json()
    assert {k: v for k, v in details.items() if k not in ("scaling", "versions")} == listed
    assert details["scaling"]["min-scale"] == 0
    first, second = details["versions"]
    assert (first["state"], first["revision"], first["reason"]) == ("ready", name, "")
    assert (second["state"], second["reason"]) == ("failed", "ExitedAtStart: it ended with status 1")
    assert first["predict_url"] == "http://roost.test/t/acme/v2/models/iris/infer"
    assert (await acme.get("/api/v1/models/iris/versions")).json() == {"versions": [first, second]}
    assert (await acme.get("/api/v1/models/iris/versions/2")).json() == second
    for number, status in (("9", 404), ("x", 400), ("1" * 30, 400), ("-1", 400), ("²", 400)):
        assert refusal(await acme.get(f"/api/v1/models/iris/versions/{number}"))[0] == status


async def test_status_and_logs_tell_why_a_version_failed(parts: Parts, acme: httpx.AsyncClient):
    _, good = await parts.serve()
    bad = await parts.deploy(await parts.add_version(digest="b"))
    parts.engine.broken(bad)
    await parts.deployments.settled(IRIS)
    status = (await acme.get("/api/v1/models/iris/status")).json()
    assert (status["state"], [r["ready"] for r in status["revisions"]]) == ("ready", ["True", "False"])
    failed = status["revisions"][1]
    assert (failed["reason"], failed["message"]) == ("ExitedAtStart", "it ended with status 1")
    assert [r["load"] for r in status["revisions"]] == [None, None]
    logs = (await acme.get("/api/v1/models/iris/logs", params={"limit": 1, "revision": bad})).json()
    assert (logs["revision"], logs["version"], logs["replica"], logs["text"]) == (bad, 2, "", "Traceback: boom")
    assert (await acme.get("/api/v1/models/iris/logs", params={"revision": good})).content == b""
    assert refusal(await acme.get("/api/v1/models/iris/logs?revision=x"))[0] == 404
    assert refusal(await acme.get("/api/v1/models/iris/logs?limit=0")) == (400, "invalid_request", "limit")


async def test_status_tells_replicas_and_load(parts: Parts, acme: httpx.AsyncClient):
    _, name = await parts.serve()
    parts.engine.figures_say[name] = RevisionFigures(
        wanted=3, ready=1, starting=2, idle=0, queued=4, in_flight=5, most=0, desired=3, stable=1.5, panic=2.5,
        panicking=True, cold_starts=6,
    )  # fmt: skip
    (revision,) = (await acme.get("/api/v1/models/iris/status")).json()["revisions"]
    assert revision["load"] == {
        "replicas_starting": 2,
        "queued": 4,
        "in_flight": 5,
        "desired": 3,
        "average_stable": 1.5,
        "average_panic": 2.5,
        "panicking": True,
        "cold_starts": 6,
    }


async def test_scaling_is_changed_and_put_back(parts: Parts, acme: httpx.AsyncClient):
    await parts.serve()
    changed = await acme.patch("/api/v1/models/iris/scaling", json={"min-scale": 2, "window": 30})
    assert (changed.json()["scaling"]["min-scale"], changed.json()["scaling"]["window"]) == (2, 30)
    changed = await acme.patch("/api/v1/models/iris/scaling", json={"min-scale": None})
    assert (changed.json()["scaling"]["min-scale"], changed.json()["scaling"]["window"]) == (0, 30)
    for bad, field in (({"nope": 1}, "nope"), ({"window": 1}, "window"), ({"metric": "x"}, "metric")):
        response = await acme.patch("/api/v1/models/iris/scaling", json=bad)
        assert refusal(response) == (400, "invalid_scaling_policy", field)


async def test_rollback_answers_with_the_model_as_it_is_then(parts: Parts, acme: httpx.AsyncClient):
    number, old = await parts.serve()
    await parts.serve()
    response = await acme.post("/api/v1/models/iris/rollback", json={"version": number})
    assert response.json()["traffic"] == [{"revision": old, "version": number, "percent": 100}]
    assert refusal(await acme.post("/api/v1/models/iris/rollback", json={"version": 9}))[0] == 404
    assert refusal(await acme.post("/api/v1/models/iris/rollback", json={"version": "1"}))[0] == 400


async def test_deleted_model_is_gone(parts: Parts, acme: httpx.AsyncClient):
    await parts.serve()
    assert (await acme.delete("/api/v1/models/iris")).status_code == 204
    assert refusal(await acme.get("/api/v1/models/iris")) == (404, "not_found", None)
    assert refusal(await acme.delete("/api/v1/models/iris")) == (404, "not_found", None)


def journal(parts: Parts) -> Journal:
    folder = parts.folder / "journal"
    folder.mkdir(exist_ok=True)
    return Journal(folder, source="0123456789abcdef", sync_interval_s=0)


async def test_usage_of_a_moment_ago_is_in_the_report_and_on_the_statement(parts: Parts, acme: httpx.AsyncClient):
    book = journal(parts)
    append(book, "r1", rows=4)
    append(book, "r2", outcome=Outcome.PLATFORM_ERROR, status=503)
    append(book, "r3", tenant="rival")
    await book.written()
    report = (await acme.get("/api/v1/usage", params={"group_by": "model,outcome"})).json()
    assert report["group_by"] == ["model", "outcome"]
    assert [(row["outcome"], row["requests"]) for row in report["rows"]] == [("ok", 1), ("platform_error", 1)]
    assert (report["total"]["requests"], report["total"]["billed_requests"]) == (2, 1)
    assert report["from"].startswith("2026-11-01")
    statement = (await acme.get("/api/v1/statements/2026-11")).json()
    assert (statement["status"], statement["charged_calls"], statement["calls"]["ok"]) == ("open", 1, 1)
    assert isinstance(statement["total"], str)
    sheet = await acme.get("/api/v1/statements/2026-11?format=csv")
    assert sheet.headers["content-type"].startswith("text/csv")
    assert sheet.text.startswith("id,kind,tenant,month,")
    book.close()


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("usage?from=2026-11-01", "from"),
        ("usage?from=2026-11-02T00:00:00Z&to=2026-11-01T00:00:00Z", "to"),
        ("usage?group_by=tenant", "group_by"),
        ("usage?model=..", "model"),
        ("usage?fromm=x", "fromm"),
        ("statements/2026-13", "month"),
        ("statements/2027-01", "month"),
        ("statements/x", "month"),
        ("statements/2026-11?format=odt", "format"),
    ],
)
async def test_malformed_report_request_names_the_field(acme: httpx.AsyncClient, path, field):
    status, _, named = refusal(await acme.get(f"/api/v1/{path}"))
    assert (status, named) == (400, field)


async def test_info_and_prices_are_for_every_key(parts: Parts, acme: httpx.AsyncClient, operator: httpx.AsyncClient):
    await parts.serve()
    await parts.add_tenant("rival")
    await parts.serve(ServiceKey("rival", "iris"))
    assert (await acme.get("/api/v1/info")).json()["models"] == 1
    assert (await operator.get("/api/v1/info")).json() | {"version": ""} == {
        "version": "",
        "engine": "scripted",
        "models": 2,
    }
    assert (await acme.get("/api/v1/prices")).json()["prices"][0]["sku"] == "requests"


async def test_key_in_the_url_is_refused(parts: Parts, acme: httpx.AsyncClient):
    secret = acme.headers["authorization"].removeprefix("Bearer ")
    assert refusal(await acme.get(f"/api/v1/models?api_key={secret}")) == (400, "key_in_url", None)


@pytest.mark.parametrize(
    "name", ["..%2fx", "%2e%2e", "a%00b", "%252e%252e", "CON", "x" * 64, "-a", "a_b", "é", "..\\x"]
)
async def test_names_that_are_no_labels_are_refused(acme: httpx.AsyncClient, name):
    for path in (f"/api/v1/models/{name}", f"/api/v1/models/{name}/versions", f"/api/v1/tenants/{name}"):
        assert refusal(await acme.get(path))[0] == 400
    assert refusal(await acme.post(f"/api/v1/models/{name}/versions", content=b"x"))[0] == 400


async def test_foreign_refusals_wear_our_body(acme: httpx.AsyncClient):
    assert refusal(await acme.get("/api/v1/nothing")) == (404, "not_found", None)
    assert refusal(await acme.get("/nothing")) == (404, "not_found", None)
    assert refusal(await acme.get("/api/v1/models/")) == (404, "not_found", None)
    wrong = await acme.put("/api/v1/tenants/acme")
    assert (refusal(wrong), "GET" in wrong.headers["allow"]) == ((405, "method_not_allowed", None), True)
    assert refusal(await acme.get("/api/v1/models?tenant=acme&tenant=acme"))[0] == 400
    assert refusal(await acme.get("/api/v1/models?modle=iris")) == (400, "invalid_request", "modle")


async def test_request_id_is_the_clients_when_well_formed(acme: httpx.AsyncClient):
    for given, kept in (("abc.1:2_3-4", True), ("x" * 129, False), ("a b", False), ("a\x1b[1m", False)):
        response = await acme.get("/api/v1/info", headers={"X-Request-Id": given})
        assert (response.headers["x-request-id"] == given) is kept
        assert len(response.headers.get_list("x-request-id")) == 1


async def test_unforeseen_error_is_logged_and_not_shown(parts: Parts, acme: httpx.AsyncClient, caplog):
    await parts.serve()
    parts.engine.says["iris-00001"] = "something else than a status"
    response = await acme.get("/api/v1/models/iris/status")
    assert refusal(response) == (500, "internal", None)
    assert "attribute" not in response.text
    assert "'str' object has no attribute" in caplog.text


@pytest.mark.sqlite  # elsewhere a table that is missing is a mistake, not an outage
async def test_database_that_does_not_answer_is_not_now(parts: Parts, acme: httpx.AsyncClient):
    await parts.serve()
    await parts.database.write(lambda c: c.exec_driver_sql("ALTER TABLE models RENAME TO hidden"))
    response = await acme.patch("/api/v1/models/iris/scaling", json={"min-scale": 1})
    assert refusal(response) == (503, "database", None)
    assert response.headers["retry-after"] == "1"


async def test_openapi_tells_every_error_body_and_every_query_parameter(operator: httpx.AsyncClient):
    document = (await operator.get("/openapi.json")).json()
    assert "HTTPValidationError" not in str(document)
    upload = document["paths"]["/api/v1/models/{model}/versions"]["post"]
    assert {"min-scale", "timeout", "max-batch-size", "runtime", "tenant"} <= {p["name"] for p in upload["parameters"]}
    assert {"401", "403", "404", "409", "413", "415", "422", "429", "503", "507"} <= set(upload["responses"])
    assert list(upload["requestBody"]["content"]) == ["application/octet-stream"]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert {"400", "401", "503"} <= set(operation["responses"]), (method, path)
            assert operation["security"] == [{"key": []}], (method, path)
            assert operation["summary"], (method, path)
            for status, response in operation["responses"].items():
                if status >= "400":
                    schema = response["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/ErrorBody"}, (method, path, status)
