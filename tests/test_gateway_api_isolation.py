"""Who may do what through the control API: no tenant sees another, and scopes come before look-ups."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway_parts import Parts, gateway_parts, refusal
from roost_platform.domain.services import ServiceKey


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


async def test_operator_acts_for_the_tenant_it_names(
    parts: Parts, acme: httpx.AsyncClient, operator: httpx.AsyncClient
):
    await parts.serve()
    assert refusal(await operator.get("/api/v1/models")) == (400, "invalid_request", "tenant")
    assert refusal(await operator.get("/api/v1/models?tenant=absent")) == (404, "not_found", None)
    assert refusal(await operator.get("/api/v1/models?tenant=..")) == (400, "invalid_name", "tenant")
    assert (await operator.get("/api/v1/models?tenant=acme")).json() == (await acme.get("/api/v1/models")).json()
    assert (await operator.get("/api/v1/info?tenant=acme")).status_code == 200


ROUTES: list[tuple[str, str, Any, str]] = [
    ("GET", "/api/v1/models/{m}", None, "read"),
    ("GET", "/api/v1/models/{m}/versions", None, "read"),
    ("GET", "/api/v1/models/{m}/versions/1", None, "read"),
    ("GET", "/api/v1/models/{m}/status", None, "read"),
    ("GET", "/api/v1/models/{m}/logs", None, "read"),
    ("PATCH", "/api/v1/models/{m}/scaling", {"min-scale": 1}, "deploy"),
    ("POST", "/api/v1/models/{m}/rollback", {"version": 1}, "deploy"),
    ("DELETE", "/api/v1/models/{m}", None, "deploy"),
    ("DELETE", "/api/v1/keys/{k}", None, "admin"),
    ("GET", "/api/v1/tenants/{t}", None, "read"),
    ("GET", "/api/v1/models?tenant={t}", None, "read"),
    ("GET", "/api/v1/keys?tenant={t}", None, "admin"),
    ("POST", "/api/v1/keys?tenant={t}", {"name": "x", "scopes": ["read"]}, "admin"),
    ("GET", "/api/v1/usage?tenant={t}", None, "read"),
    ("GET", "/api/v1/statements?tenant={t}", None, "read"),
    ("GET", "/api/v1/statements/2026-11?tenant={t}", None, "read"),
    ("GET", "/api/v1/usage/corrections?tenant={t}", None, "read"),
    ("POST", "/api/v1/models/new/versions?tenant={t}", None, "deploy"),
]


@pytest.mark.parametrize(("method", "path", "body", "scope"), ROUTES, ids=[f"{r[0]} {r[1]}" for r in ROUTES])
async def test_object_of_another_tenant_looks_absent(
    parts: Parts, acme: httpx.AsyncClient, *, method, path, body, scope
):
    await parts.add_tenant("rival")
    await parts.serve(ServiceKey("rival", "secret-model"))
    rival_key = parts.keys.list("rival")[0].id
    foreign = await acme.request(method, path.format(m="secret-model", k=rival_key, t="rival"), json=body)
    absent = await acme.request(method, path.format(m="no-such-model", k="0" * 16, t="absent"), json=body)
    assert refusal(foreign)[0] == 404
    assert refusal(foreign) == refusal(absent)
    assert foreign.json()["error"] == absent.json()["error"]
    assert dict(foreign.headers) | {"x-request-id": ""} == dict(absent.headers) | {"x-request-id": ""}


@pytest.mark.parametrize(("method", "path", "body", "scope"), ROUTES, ids=[f"{r[0]} {r[1]}" for r in ROUTES])
async def test_scope_decides_before_anything_is_looked_up(
    parts: Parts, acme: httpx.AsyncClient, *, method, path, body, scope
):
    await parts.serve()
    made = (await acme.post("/api/v1/keys", json={"name": "user", "scopes": ["predict"]})).json()
    async with parts.client(made["secret"]) as user:
        own = await user.request(method, path.format(m="iris", k=made["id"], t="acme"), json=body)
        absent = await user.request(method, path.format(m="absent", k="x", t="absent"), json=body)
    if scope == "read":
        assert own.status_code == 200
        assert absent.status_code in (200, 404)
    else:
        assert refusal(own) == refusal(absent) == (403, "missing_scope", None)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v1/tenants"),
        ("GET", "/api/v1/tenants"),
        ("PATCH", "/api/v1/tenants/acme"),
        ("DELETE", "/api/v1/tenants/acme"),
    ],
)
async def test_operator_routes_refuse_a_tenants_admin(acme: httpx.AsyncClient, method, path):
    body = {"name": "x", "quota": {}} if method == "POST" else {"quota": {}} if method == "PATCH" else None
    assert refusal(await acme.request(method, path, json=body)) == (403, "operator_only", None)


async def test_every_path_under_the_api_asks_for_a_key_first(parts: Parts):
    async with parts.client(None) as nobody:
        answers = set()
        for method, path in [(r[0], r[1]) for r in ROUTES] + [("GET", "/api/v1/nothing"), ("PUT", "/api/v1/models")]:
            response = await nobody.request(method, path.format(m="iris", k="x", t="acme"))
            assert response.headers["www-authenticate"] == "Bearer"
            answers.add((*refusal(response), response.json()["error"]))
        assert len(answers) == 1
        assert (await nobody.get("/openapi.json")).status_code == 200
        assert (await nobody.get("/docs")).status_code == 200
