"""Which revision a call goes to, and what a model says of itself without being woken (K23, K24)."""

from collections import Counter

import pytest

from gateway_parts import IRIS
from predict_parts import PredictPath, predict_path
from roost_gateway.access.routes import Route
from roost_platform.domain.services import TrafficTarget


@pytest.fixture
async def path(tmp_path):
    async with predict_path(tmp_path) as made:
        yield made


def revisions(path: PredictPath) -> list[str]:
    return [key.name for key, _ in path.engine.seen]


async def break_a_version(path: PredictPath) -> int:
    number = await path.parts.add_version(IRIS)
    path.engine.broken(await path.parts.deploy(number), "LoadFailed", "the model is broken")
    await path.parts.deployments.settled(IRIS)
    return number


async def test_k23_a_split_is_kept_within_bounds_and_a_named_version_exactly(path: PredictPath):
    await path.parts.serve(IRIS)
    route = path.parts.directory.route("acme", "iris")
    names = [record.revision.name for record in route.records]
    split = Route(
        key=IRIS,
        scaling=route.service.scaling,
        traffic=tuple(TrafficTarget(name, 50) for name in names),
        records=route.records,
        last_version=2,
        created_at=route.created_at,
    )
    path.parts.directory.put_route(split)
    for _ in range(200):
        assert (await path.call()).status == 200
    assert all(75 <= count <= 125 for count in Counter(revisions(path)).values()), Counter(revisions(path))
    assert Counter(event.version for event in path.events()) == {
        1: Counter(revisions(path))[names[0]],
        2: Counter(revisions(path))[names[1]],
    }

    path.engine.seen.clear()
    for version in (1, 2):
        for _ in range(20):
            assert (await path.call(f"/t/acme/v2/models/iris/versions/{version}/infer")).status == 200
    assert revisions(path) == [names[0]] * 20 + [names[1]] * 20
    assert {request.path for _, request in path.engine.seen[:20]} == {"/v2/models/iris/versions/1/infer"}


async def test_the_replica_is_asked_without_the_tenants_prefix(path: PredictPath):
    for route in ("/v2/models/iris/infer", "/v1/models/iris:predict"):
        await path.call(f"/t/acme{route}")
        assert (path.engine.seen[-1][1].method, path.engine.seen[-1][1].path) == ("POST", route)


async def test_k24_a_broken_version_gets_no_call_and_says_why_when_named(path: PredictPath):
    number = await break_a_version(path)
    for _ in range(20):
        assert (await path.call()).status == 200
    assert set(revisions(path)) == {"iris-00001"}
    heard = await path.call(f"/t/acme/v2/models/iris/versions/{number}/infer")
    assert heard.refusal == (503, "revision_failed")
    assert "LoadFailed: the model is broken" in heard.json()["error"]
    ready = await path.call(f"/t/acme/v2/models/iris/versions/{number}/ready", method="GET")
    assert (ready.status, ready.json()["ready"]) == (503, False)


async def test_an_absent_version_is_not_found(path: PredictPath):
    for what in ("/infer", ""):
        method = "POST" if what else "GET"
        heard = await path.call(f"/t/acme/v2/models/iris/versions/7{what}", method=method)
        assert heard.refusal == (404, "not_found")


async def test_a_model_tells_what_it_takes_and_gives(path: PredictPath):
    await path.parts.serve(IRIS)
    heard = await path.call("/t/acme/v2/models/iris", method="GET")
    assert heard.json() == {
        "name": "iris",
        "versions": ["1", "2"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}],
    }


async def test_what_clients_ask_before_they_call(path: PredictPath):
    async def get(route: str) -> dict:
        heard = await path.call(f"/t/acme{route}", method="GET")
        assert (heard.status, heard.header("content-type")) == (200, "application/json")
        return heard.json()

    assert await get("") == await get("/") == {"status": "alive"}
    assert await get("/v2/health/live") == {"live": True}
    assert await get("/v2/health/ready") == {"ready": True}
    assert await get("/v2/models/iris/ready") == {"name": "iris", "ready": True}
    assert await get("/v1/models/iris") == {"name": "iris", "ready": True}
    assert await get("/v1/models") == await get("/v2/models") == {"models": ["iris"]}
    server = await get("/v2")
    assert (server["name"], server["extensions"]) == ("roost", ["binary_tensor_data"])


async def test_a_server_that_does_not_serve_yet_says_so(path: PredictPath):
    path.serving = False
    heard = await path.call("/t/acme/v2/health/ready", method="GET")
    assert (heard.status, heard.json()) == (503, {"ready": False})
    assert (await path.call("/t/acme/v2/health/live", method="GET")).status == 200


@pytest.mark.parametrize(("route", "allowed"), [("/v2/models/iris/infer", "POST"), ("/v2/models/iris", "GET, HEAD")])
async def test_p11_other_methods_are_refused_with_those_that_work(path: PredictPath, route: str, allowed: str):
    for method in {"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "POST"} - set(allowed.split(", ")):
        heard = await path.call(f"/t/acme{route}", method=method)
        assert heard.refusal == (405, "method_not_allowed")
        assert heard.header("allow") == allowed
    assert not path.events()
