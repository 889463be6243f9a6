"""Who may call what (A1 to A4, S1): through the prediction path itself, in one process."""

import asyncio
from datetime import timedelta

import pytest

from gateway_parts import NOON, OPERATOR_KEY
from predict_parts import BODY, INFER, PredictPath, json_response, predict_path
from roost_platform.domain.services import ServiceKey
from roost_platform.domain.tenants import Scope

GETS = (
    "/t/acme",
    "/t/acme/v2",
    "/t/acme/v2/health/live",
    "/t/acme/v2/health/ready",
    "/t/acme/v2/models",
    "/t/acme/v2/models/iris",
    "/t/acme/v2/models/iris/ready",
    "/t/acme/v2/models/iris/versions/1",
    "/t/acme/v2/models/iris/versions/1/ready",
    "/t/acme/v1/models",
    "/t/acme/v1/models/iris",
)
POSTS = (INFER, "/t/acme/v2/models/iris/versions/1/infer", "/t/acme/v1/models/iris:predict")
EVERY_ROUTE = [("GET", path) for path in GETS] + [("POST", path) for path in POSTS]


@pytest.fixture
async def path(tmp_path):
    async with predict_path(tmp_path) as made:
        yield made


@pytest.mark.parametrize(("method", "route"), EVERY_ROUTE)
async def test_a1_every_route_needs_a_key(path: PredictPath, method: str, route: str):
    heard = await path.call(route, method=method, secret="nobody")
    assert heard.refusal == (401, "unauthenticated")
    assert heard.header("www-authenticate") == "Bearer"


async def test_a1_whatever_is_wrong_with_a_key_the_answer_is_the_same(path: PredictPath):
    expired = await path.key(Scope.PREDICT, expires_at=NOON + timedelta(seconds=1))
    revoked = await path.key(Scope.PREDICT)
    for good in (expired, revoked):
        assert (await path.call(secret=good.secret)).status == 200
    path.parts.clock.move(seconds=1)
    await path.parts.keys.revoke("acme", revoked.key.id)
    good = f"Bearer {path.secret}".encode()
    headers = {
        "none": [],
        "garbage": [(b"authorization", b"\xff\xfe")],
        "empty": [(b"authorization", b"")],
        "mistyped": [(b"authorization", good[:-1] + b"_")],
        "wrong scheme": [(b"authorization", b"Basic " + path.secret.encode())],
        "no scheme": [(b"authorization", path.secret.encode())],
        "two": [(b"authorization", good), (b"authorization", good)],
        "expired": [(b"authorization", f"Bearer {expired.secret}".encode())],
        "revoked": [(b"authorization", f"Bearer {revoked.secret}".encode())],
    }
    nobody = type(path.call)(path.app, None)
    answers = {case: await nobody(headers=[*sent, (b"x-request-id", b"same")]) for case, sent in headers.items()}
    assert {case: heard.refusal for case, heard in answers.items()} == dict.fromkeys(headers, (401, "unauthenticated"))
    assert len({heard.body for heard in answers.values()}) == 1
    assert len(path.events()) == 2, "the two calls that were let in, and no other"


async def test_a1_a_key_in_the_url_is_refused_even_beside_a_good_one(path: PredictPath):
    for query in (b"api_key=", b"x=1&token=", b""):
        heard = await path.call(query=query + path.secret.encode())
        assert heard.refusal == (400, "key_in_url")
        assert path.secret.encode() not in heard.body


async def test_a1_the_body_of_a_stranger_is_not_read(path: PredictPath):
    read = []

    async def receive():
        read.append(1)
        return {"type": "http.request", "body": BODY, "more_body": False}

    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": INFER, "query_string": b"", "headers": []}
    await path.app(scope, receive, send)
    assert sent[0]["status"] == 401
    assert not read


@pytest.mark.parametrize(("method", "route"), EVERY_ROUTE)
async def test_a2_anothers_things_look_absent(path: PredictPath, method: str, route: str):
    other = await path.parts.add_tenant("other")
    same = [(b"x-request-id", b"same")]
    theirs = await path.call(route, method=method, secret=other, headers=same)
    nobodys = await path.call(route.replace("acme", "nobody"), method=method, secret=other, headers=same)
    assert theirs.refusal[0] == 404
    assert (theirs.status, theirs.headers, theirs.body) == (nobodys.status, nobodys.headers, nobodys.body)
    assert not path.events()
    assert not path.engine.seen


async def test_a2_an_absent_model_of_ones_own_gives_the_same_answer_as_anothers(path: PredictPath):
    other = await path.parts.add_tenant("other")
    same = [(b"x-request-id", b"same")]
    theirs = await path.call(secret=other, headers=same)
    absent = await path.call("/t/other/v2/models/iris/infer", secret=other, headers=same)
    assert theirs.body == absent.body


async def test_a2_the_operator_is_no_tenant_here(path: PredictPath):
    assert (await path.call(secret=OPERATOR_KEY)).refusal == (404, "not_found")


async def test_a3_one_model_name_in_two_tenants_is_never_mixed(path: PredictPath):
    secrets = {"acme": path.secret, "other": await path.parts.add_tenant("other")}
    await path.parts.serve(ServiceKey("other", "iris"))

    async def echo(request):
        await asyncio.sleep(0.001)
        return json_response({"echo": b"".join(request.body).decode()})

    path.engine.answer = echo

    async def call(tenant: str, number: int) -> None:
        heard = await path.call(
            f"/t/{tenant}/v2/models/iris/infer", secret=secrets[tenant], pieces=[f"{tenant} {number}".encode()]
        )
        assert heard.json() == {"echo": f"{tenant} {number}"}

    await asyncio.gather(*(call(tenant, number) for number in range(50) for tenant in secrets))

    for key, request in path.engine.seen:
        assert key.service.tenant == b"".join(request.body).decode().split()[0]
    tenants = [event.tenant for event in path.events()]
    assert (tenants.count("acme"), tenants.count("other")) == (50, 50)


@pytest.mark.parametrize("route", POSTS)
async def test_a4_a_key_that_may_only_read_does_not_predict(path: PredictPath, route: str):
    reader = (await path.key(Scope.READ)).secret
    assert (await path.call(route, secret=reader)).refusal == (403, "missing_scope")
    assert not path.events()
    assert (await path.call("/t/acme/v2/models/iris", method="GET", secret=reader)).status == 200


@pytest.mark.parametrize("scope", [Scope.PREDICT, Scope.ADMIN])
async def test_a4_a_key_that_may_predict_also_reads(path: PredictPath, scope: Scope):
    secret = (await path.key(scope)).secret
    assert (await path.call(secret=secret)).status == 200
    assert (await path.call("/t/acme/v2/models/iris", method="GET", secret=secret)).status == 200


async def test_a4_a_key_that_may_deploy_does_not_predict(path: PredictPath):
    assert (await path.call(secret=(await path.key(Scope.DEPLOY)).secret)).status == 403
