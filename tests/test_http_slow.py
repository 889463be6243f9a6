"""Clients that are slow, silent or never done (S27), and what a body may bring beside itself: both servers, raw sockets."""

import asyncio
import json

import pytest

import models_for_tests as models
from http_both import Target, runtime
from http_raw import Connection
from http_requests import CHUNKED, HOST, IN_CHUNKS, good, head, post
from roost_process import RoostProcess, until

HEAD_S = "3"
SLOW = 1000


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return models.add_one(tmp_path_factory.mktemp("slow") / "one.onnx")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, path):
    folder = tmp_path_factory.mktemp("gateway")
    limits = {"ROOST_LIMIT_HEAD_S": HEAD_S, "ROOST_LIMIT_BODY_IDLE_S": HEAD_S, "ROOST_LIMIT_REQUEST_BYTES": "1000000"}
    with RoostProcess(folder, **limits) as server:
        key = server.make_tenant()
        server.deploy(key, "one", path, min_scale=1)
        yield Target(server.port, b"/t/acme/v2/models/one/infer", f"authorization: Bearer {key}".encode())
        until(lambda: server.figures()["roost_requests_in_flight", frozenset()] == 0)
        assert server.stop() == 0
        log = server.log_file.read_text()
        assert "Traceback" not in log
        assert key not in log


@pytest.fixture(scope="module")
def behind(path):
    arguments = ("--head-s", HEAD_S, "--body-idle-s", HEAD_S, "--max-body-bytes", "1000000")
    with runtime(path, *arguments) as target:
        yield target


@pytest.fixture(params=["gateway", "runtime"])
def target(request) -> Target:
    return request.getfixturevalue("gateway" if request.param == "gateway" else "behind")


async def dribble(target: Target, number: int) -> tuple[int, str]:
    """A byte a second until the server has had enough; status and code of what it says."""
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    data = target.fill(good("slow"))
    try:
        answer = asyncio.create_task(reader.read())
        for at in range(len(data)):
            writer.write(data[at : at + 1])
            done, _ = await asyncio.wait([answer], timeout=1)
            if done:
                break
        said, _, body = (await answer).partition(b"\r\n\r\n")
        return int(said.split()[1]), json.loads(body)["code"]
    finally:
        writer.close()


async def call(target: Target) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    writer.write(target.fill(good("fast")))
    answer = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return answer.split(b"\r\n")[0]


async def test_s27_a_thousand_clients_of_a_byte_a_second_are_closed_and_others_are_served(target):
    slow = [asyncio.create_task(dribble(target, number)) for number in range(SLOW)]
    answered = []
    while not all(task.done() for task in slow):
        answered.append(await call(target))
        await asyncio.sleep(0.05)  # a pace of calls, not a wait for something
    assert set(answered) == {b"HTTP/1.1 200 OK"}
    assert {task.result() for task in slow} == {(400, "head_timeout")}


@pytest.mark.parametrize("sent", [b"", b"x" * 100], ids=["nothing", "a part"])
def test_s27_a_body_of_which_nothing_more_comes_is_given_up(target, sent):
    with Connection(target.port, timeout=30) as connection:
        connection.send(target.fill(post(b"content-length: 1000", content=sent)))
        answer = connection.answer()
        assert (answer.status, json.loads(answer.body)["code"]) == (400, "body_timeout")
        assert connection.is_closed()


def test_an_empty_line_between_requests_keeps_no_connection_for_ever(target):
    with Connection(target.port, timeout=30) as connection:
        connection.send(target.fill(good("a")))
        assert connection.answer().status == 200
        connection.send(b"\r\n")
        assert json.loads(connection.answer().body)["code"] == "head_timeout"
        assert connection.is_closed()


def test_a_client_that_sends_on_after_its_refusal_is_closed_soon(target):
    with Connection(target.port, timeout=30) as connection:
        connection.send(target.fill(head(b"content-length: 900000000")))
        assert connection.answer().status == 413
        for _ in range(10_000):  # far beyond what is waited for
            connection.send(b"x" * 10)
            if connection.closes_within(0.01):
                break
        else:
            pytest.fail("it still listens")


@pytest.mark.parametrize("where", ["size", "trailer"])
def test_a_chunk_extension_or_trailer_without_an_end_is_refused(target, where):
    start = b"5;a=" if where == "size" else IN_CHUNKS[:-2] + b"x-a: "
    with Connection(target.port, timeout=30) as connection:
        connection.send(target.fill(post(CHUNKED, content=start)))
        for _ in range(10_000):
            connection.try_to_send(b"a" * 100)
            if connection.closes_within(0):
                break
        else:
            pytest.fail("it takes anything")


def test_trailers_never_pass_for_headers(target):
    """A key in the trailers opens nothing, and a request id there is none."""
    line = b"POST %b HTTP/1.1" % target.infer
    for trailer, status in (
        (target.key, 401),
        (b"content-encoding: gzip", 200),
        (b"x-request-id: from-the-trailer", 200),
    ):
        with Connection(target.port) as connection:
            own = [] if status == 401 else [target.key]
            content = IN_CHUNKS[:-2] + trailer + b"\r\n\r\n"
            connection.send(b"\r\n".join([line, HOST, *own, CHUNKED, b"", b""]) + content)
            answer = connection.answer()
            assert answer.status == status
            assert answer.headers.get("x-request-id") != "from-the-trailer"


def test_many_offers_of_an_upgrade_in_one_piece_are_all_answered(target):
    offer = target.fill(post(b"content-length: 0", b"connection: upgrade", b"upgrade: h2c", content=b""))
    with Connection(target.port, timeout=60) as connection:
        connection.send(offer * 1500)
        for _ in range(1500):
            assert connection.answer().status == 400
        connection.send(target.fill(good("a")))
        assert connection.answer().status == 200
