"""`GET …/logs`: what readers get of what a model printed, and who may not."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

import models_for_tests as models
from gateway_parts import IRIS, Parts
from roost_gateway.output import FOLLOWERS, Asked, ModelOutput
from roost_platform.domain.errors import Throttled
from roost_platform.domain.output import OutputLine
from roost_process import RoostProcess
from test_gateway_api import acme, parts, refusal

__all__ = ["acme", "parts"]

BEGIN = datetime(2026, 11, 23, 8, tzinfo=UTC)
CANARY = "canary-7f1c"
CANARY_NUMBER = 271828.0
LOGS = "/api/v1/models/iris/logs"


def line(number: int, replica: str = "7") -> OutputLine:
    return OutputLine(number, BEGIN + timedelta(seconds=number), replica, f"line {number}")


def texts(answer: bytes) -> list[str]:
    return [json.loads(text)["text"] for text in answer.splitlines() if text]


async def asked(client: httpx.AsyncClient, **params: Any) -> list[str]:
    answer = await client.get(LOGS, params=params)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
    return texts(answer.content)


async def test_lines_of_all_replicas_by_their_time(parts: Parts, acme: httpx.AsyncClient) -> None:
    _, name = await parts.serve()
    parts.engine.printed[name] = [line(1), line(2, "8"), line(3)]
    document = json.loads((await acme.get(LOGS, params={"limit": 1})).content)
    assert document == {
        "time": "2026-11-23T08:00:03.000000Z", "revision": name, "version": 1, "replica": "7", "text": "line 3",
    }  # fmt: skip
    assert await asked(acme) == ["line 1", "line 2", "line 3"]
    assert await asked(acme, replica="8") == ["line 2"]
    assert await asked(acme, since="2026-11-23T08:00:01Z") == ["line 2", "line 3"]
    assert await asked(acme, since="2026-11-23T09:00:02+01:00", revision=name) == ["line 3"]


@pytest.mark.parametrize(
    ("query", "field"), [("since=2026-11-23T08:00:00", "since"), ("limit=1001", "limit"), ("follow=maybe", "follow")]
)
async def test_what_is_asked_wrongly_is_refused(parts: Parts, acme: httpx.AsyncClient, query: str, field: str) -> None:
    await parts.serve()
    assert refusal(await acme.get(f"{LOGS}?{query}")) == (400, "invalid_request", field)


@pytest.fixture
def output(parts: Parts) -> ModelOutput:
    return ModelOutput(directory=parts.directory, deployments=parts.deployments, look_s=0.001)


async def next_texts(answer: AsyncIterator[bytes]) -> list[str]:
    return texts(await anext(answer))


async def test_who_follows_gets_each_line_once(parts: Parts, output: ModelOutput) -> None:
    await parts.add_tenant()
    _, name = await parts.serve()
    parts.engine.printed[name] = [line(1), line(2), line(3)]
    answer = output.follow(Asked(key=IRIS, limit=2))
    assert await next_texts(answer) == ["line 2", "line 3"]
    parts.engine.printed[name] = [line(2), line(3), line(4), line(5)]
    assert await next_texts(answer) == ["line 4", "line 5"]
    await parts.deployments.delete(IRIS)
    assert [text async for text in answer] == [], "it ends with the model"


async def test_a_followed_answer_ends_with_the_server_and_after_its_time(parts: Parts) -> None:
    await parts.add_tenant()
    await parts.serve()
    serving = True
    how: dict[str, Any] = {"directory": parts.directory, "deployments": parts.deployments, "look_s": 0.001}
    answer = ModelOutput(**how, serving=lambda: serving).follow(Asked(key=IRIS))
    assert await anext(answer) == b"\n", "its head leaves at once"
    serving = False
    assert [text async for text in answer] == []
    assert [text async for text in ModelOutput(**how, follow_s=0).follow(Asked(key=IRIS))] == [b"\n"]


async def test_a_tenant_holds_only_so_many_answers_open(parts: Parts, output: ModelOutput) -> None:
    await parts.add_tenant()
    await parts.serve()
    held = [output.follow(Asked(key=IRIS)) for _ in range(FOLLOWERS)]
    for answer in held:
        await anext(answer)
    with pytest.raises(Throttled, match="20 logs"):
        output.follow(Asked(key=IRIS))
    await held[0].aclose()  # type: ignore[attr-defined]
    assert await anext(output.follow(Asked(key=IRIS))) == b"\n"
    await asyncio.gather(*(answer.aclose() for answer in held))  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RoostProcess, str]]:
    folder: Path = tmp_path_factory.mktemp("output")
    with RoostProcess(folder, ROOST_ACCESS_LOG="1") as server:
        key = server.make_tenant()
        server.deploy(key, "one", models.add_one(folder / "one.onnx"))
        yield server, key


def test_a_replica_s_end_is_seen_by_who_follows_and_a_stop_ends_the_answer(running: tuple[RoostProcess, str]) -> None:
    server, key = running
    with server.client(key) as client:
        client.predict("one", json.dumps(models_request()).encode())
        lines = client.logs("one", follow=True)
        (replica,) = server.replicas("one")
        followed: list[str] = []
        os.kill(replica.pid, signal.SIGKILL)
        for document in lines:
            followed.append(document["text"])
            if "ended" in document["text"]:
                assert document["replica"] == str(replica.pid)
                break
        assert server.stop() == 0
        assert followed
    lines = server.events("predicted")
    assert [(entry["organization.id"], entry["labels"]["model"], entry["roost"]["status"]) for entry in lines] == [
        ("acme", "one", 200)
    ]
    log = server.log_file.read_text()
    assert not any(secret in log for secret in (CANARY, str(CANARY_NUMBER), key))


def models_request() -> dict[str, Any]:
    return {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [CANARY_NUMBER, 2, 3, 4]}],
        "id": CANARY,
    }
