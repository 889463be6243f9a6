"""Uploads through a real server: real sockets, the real checker, real files."""

import asyncio
import base64
import hashlib
import importlib.util
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn

from gateway_parts import IRIS, Parts, gateway_parts, refusal, until

VERSIONS = "/api/v1/models/iris/versions"
LIMIT = 1024 * 1024


def iris_model() -> bytes:
    spec = importlib.util.find_spec("onnxruntime")
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / "datasets" / "mul_1.onnx").read_bytes()


MODEL = iris_model()


@asynccontextmanager
async def served(parts: Parts, *, idle_s: float = 30.0) -> AsyncIterator[int]:
    """The port of a real server in front of the control API."""
    config = uvicorn.Config(
        parts.api(upload_bytes=LIMIT, body_idle_s=idle_s), http="httptools", log_config=None, access_log=False
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(server.serve(sockets=[listener]))
        await until(lambda: server.started)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await task


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    async with gateway_parts(tmp_path) as made:
        await made.registry.start()
        yield made


@pytest.fixture
async def secret(parts: Parts) -> str:
    return await parts.add_tenant()


@pytest.fixture
async def port(parts: Parts) -> AsyncIterator[int]:
    async with served(parts) as number:
        yield number


@pytest.fixture
async def acme(port: int, secret: str) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {secret}"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as client:
        yield client


def leftovers(parts: Parts) -> list[Path]:
    """Files of uploads under way, or left behind."""
    return list((parts.folder / "staging").rglob("*"))


async def test_uploaded_file_becomes_a_version_that_is_deployed(parts: Parts, acme: httpx.AsyncClient):
    digest = hashlib.sha256(MODEL)
    headers = {
        "Content-Digest": f"sha-256=:{base64.b64encode(digest.digest()).decode()}:",
        "X-Content-SHA256": digest.hexdigest().upper(),
    }
    params = {"min-scale": "1", "max-batch-size": "4", "runtime": "onnx-cpu"}
    response = await acme.post(VERSIONS, content=MODEL, headers=headers, params=params)
    assert response.status_code == 201, response.text
    document = response.json()
    assert (document["version"], document["digest"], document["size"]) == (1, digest.hexdigest(), len(MODEL))
    assert (document["revision"], document["state"], document["reason"]) == ("iris-00001", "deploying", "")
    assert document["signature"]["inputs"][0]["datatype"] == "FP32"
    assert document["predict_url"] == "http://roost.test/t/acme/v2/models/iris/infer"
    service = parts.engine.services[IRIS]
    assert (service.scaling.min_scale, service.revisions[0].max_batch_size) == (1, 4)
    again = await acme.post(VERSIONS, content=MODEL, params=params)
    assert (again.status_code, again.json()) == (200, document)
    assert leftovers(parts) == []


async def test_chunked_upload_is_taken(acme: httpx.AsyncClient):
    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(MODEL), 50):
            yield MODEL[at : at + 50]

    assert (await acme.post(VERSIONS, content=pieces())).status_code == 201


@pytest.mark.parametrize(
    ("headers", "params", "status", "field"),
    [
        ({"Content-Type": "multipart/form-data; boundary=" + "x" * 100_00}, {}, 415, "Content-Type"),
        ({"Content-Type": "application/json"}, {}, 415, "Content-Type"),
        ({"Content-Type": "application/x-python-pickle"}, {}, 415, "Content-Type"),
        ({"Content-Type": "text/plain"}, {}, 415, "Content-Type"),
        ({"Content-Encoding": "gzip"}, {}, 415, "Content-Encoding"),
        ({"Content-Digest": "sha-256=abc"}, {}, 400, "Content-Digest"),
        ({"Content-Digest": "sha-256=:abc:"}, {}, 400, "Content-Digest"),
        ({"Content-Digest": "md5=:AAAA:"}, {}, 400, "Content-Digest"),
        ({"X-Content-SHA256": "abc"}, {}, 400, "X-Content-SHA256"),
        ({"X-Content-SHA256": "0" * 64, "Content-Digest": f"sha-256=:{'A' * 43}E=:"}, {}, 400, "Content-Digest"),
        ({}, {"min-scale": "x"}, 400, "min-scale"),
        ({}, {"min-scale": "3", "max-scale": "2"}, 400, "min-scale"),
        ({}, {"max-batch-size": "0"}, 400, "max-batch-size"),
        ({}, {"runtime": "onnx-gpu"}, 400, "runtime"),
        ({}, {"min_scale": "1"}, 400, "min_scale"),
    ],
)
async def test_upload_is_refused_for_its_headers_before_its_body(
    parts: Parts, acme: httpx.AsyncClient, *, headers, params, status, field
):
    response = await acme.post(VERSIONS, content=MODEL, headers=headers, params=params)
    assert (refusal(response)[0], refusal(response)[2]) == (status, field)
    assert (parts.directory.routes(), leftovers(parts)) == ([], [])


async def test_bytes_that_are_no_model_leave_nothing(parts: Parts, acme: httpx.AsyncClient):
    for body in (b"", b"x", MODEL[:100], b"\x89PNG\r\n\x1a\n" + b"0" * 1000):
        assert refusal(await acme.post(VERSIONS, content=body))[0] == 422
    wrong = await acme.post(VERSIONS, content=MODEL, headers={"X-Content-SHA256": "0" * 64})
    assert refusal(wrong)[0] in (400, 422)
    assert refusal(await acme.get("/api/v1/models/iris"))[0] == 404
    assert leftovers(parts) == []


async def test_models_quota_is_enforced(parts: Parts, acme: httpx.AsyncClient):
    await parts.tenants.change("acme", {"models": 1})
    assert (await acme.post(VERSIONS, content=MODEL)).status_code == 201
    response = await acme.post("/api/v1/models/second/versions", content=MODEL)
    assert refusal(response)[0] in (403, 429)


async def test_upload_during_a_deletion_is_a_conflict(parts: Parts, acme: httpx.AsyncClient):
    await parts.serve()
    parts.engine.drained.clear()
    deletion = asyncio.create_task(parts.deployments.delete(IRIS))
    await parts.engine.draining.wait()
    assert refusal(await acme.post(VERSIONS, content=MODEL)) == (409, "model_deleting", None)
    parts.engine.drained.set()
    await deletion


# Raw sockets: what a client sees that does not stop to send.


async def converse(port: int, head: str, body: AsyncIterator[bytes] | None = None) -> tuple[int, dict[str, str], bytes]:
    """Send a request as given, reading the answer only after sending; status, headers and body of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        if body is not None:
            async for piece in body:
                writer.write(piece)
                await writer.drain()
        return await read_answer(reader)
    finally:
        writer.close()
        await writer.wait_closed()


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:-2])}
    return int(lines[0].split()[1]), headers, await reader.readexactly(int(headers.get("content-length", "0")))


async def zeros(total: int, piece: int = 65536) -> AsyncIterator[bytes]:
    """Begins like a model, so that only its size is wrong."""
    yield MODEL.ljust(piece, b"\0")
    for _ in range(total // piece - 1):
        yield bytes(piece)


async def chunked_zeros(total: int, piece: int = 65536) -> AsyncIterator[bytes]:
    async for part in zeros(total, piece):
        yield f"{piece:x}\r\n".encode() + part + b"\r\n"
    yield b"0\r\n\r\n"


def head_of(secret: str, **headers: object) -> str:
    lines = [f"POST {VERSIONS} HTTP/1.1", "Host: roost.test", f"Authorization: Bearer {secret}"]
    return "\n".join([*lines, *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())])


async def test_upload_without_a_key_is_refused_before_a_byte_of_it_is_read(parts: Parts, port: int):
    head = f"POST {VERSIONS} HTTP/1.1\nHost: roost.test\nContent-Length: 2147483648"
    status, headers, body = await converse(port, head)
    assert (status, headers["connection"], json.loads(body)["code"]) == (401, "close", "unauthenticated")
    assert leftovers(parts) == []


async def test_client_that_asks_first_gets_the_refusal_and_no_100(port: int, secret: str):
    status, headers, body = await converse(port, head_of(secret, Content_Length=LIMIT + 1, Expect="100-continue"))
    assert (status, headers["connection"], json.loads(body)["code"]) == (413, "close", "model_too_large")


async def test_client_that_asks_first_is_told_to_go_on(port: int, secret: str):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = head_of(secret, Content_Length=len(MODEL), Expect="100-continue")
    writer.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(MODEL)
    assert (await read_answer(reader))[0] == 201
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
async def test_refusal_reaches_a_client_that_sends_on_regardless(parts: Parts, port: int, secret: str, declared):
    size = 20 * LIMIT
    if declared:
        answer = await converse(port, head_of(secret, Content_Length=size), zeros(size))
    else:
        answer = await converse(port, head_of(secret, Transfer_Encoding="chunked"), chunked_zeros(size))
    status, headers, body = answer
    assert (status, headers["connection"]) == (413, "close")
    assert json.loads(body)["request_id"] == headers["x-request-id"]
    assert leftovers(parts) == []


async def test_client_that_goes_away_leaves_nothing(parts: Parts, port: int, secret: str):
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        head_of(secret, Content_Length=500_000).replace("\n", "\r\n").encode()
        + b"\r\n\r\n"
        + MODEL[:100]
        + bytes(100_000)
    )
    await writer.drain()
    await until(lambda: bool(leftovers(parts)))
    writer.transport.abort()
    await until(lambda: not leftovers(parts))
    assert parts.directory.routes() == []


async def test_silent_client_is_told_and_closed(parts: Parts, secret: str):
    async with served(parts, idle_s=0.05) as port:
        head = head_of(secret, Content_Length=1000)
        status, _, body = await converse(port, head)
        assert (status, json.loads(body)["code"]) == (400, "body_stalled")
    assert leftovers(parts) == []


async def test_same_bytes_twice_at_once_make_one_version(acme: httpx.AsyncClient):
    answers = await asyncio.gather(*(acme.post(VERSIONS, content=MODEL) for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) == [200, 201]
    assert {answer.json()["revision"] for answer in answers} == {"iris-00001"}
