"""Plays framing cases at a server and tells what a client sees, in the notation of `http_corpus`."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from http_requests import MARKER, Case

AT_ONCE = 128
_SILENCE_S = 20
"""Far longer than any limit of the servers under test: reached only where a marker was swallowed whole."""
_REFUSALS = frozenset({400, 408, 413, 414, 431, 501, 505})


@dataclass(frozen=True)
class Target:
    """A server: its port, its path of the model, its header for the key."""

    port: int
    infer: bytes
    key: bytes

    def fill(self, data: bytes) -> bytes:
        return data.replace(b"@INFER@", self.infer).replace(b"@KEY@", self.key)


@contextmanager
def runtime(model: Path, *arguments: str) -> Iterator[Target]:
    """A runtime's own server that is ready, with a service secret."""
    secret = "between-the-two-of-us"
    command = [
        sys.executable,
        "-m",
        "roost_runtimes",
        "serve",
        "--host",
        "127.0.0.1",
        "--name",
        "m",
        "--model",
        str(model),
    ]
    environment = {**os.environ, "PORT": "0", "ROOST_SERVICE_SECRET": secret}
    port = 0
    with subprocess.Popen([*command, *arguments], stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                entry = json.loads(line)
                if entry["message"] == "listening":
                    port = int(entry["roost"]["address"].rpartition(":")[2])
                if entry["message"] == "model_ready":
                    break
            yield Target(port, b"/v2/models/m/infer", f"roost-service-secret: {secret}".encode())
            process.terminate()
            _, log = process.communicate(timeout=30)
            assert process.returncode == 0, log
            assert "Traceback" not in log, log
            assert "Exception" not in log, log
        finally:
            process.kill()


async def play_all(target: Target, cases: Iterable[Case]) -> dict[str, str]:
    """What is seen, by the case's name."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(case: Case) -> tuple[str, str]:
        async with places:
            return case.name, await play(target, case.data)

    return dict(await asyncio.gather(*(one(case) for case in cases)))


async def play(target: Target, data: bytes) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port, limit=1 << 20)
    writer.write(target.fill(data + MARKER))
    try:
        return " ".join(await _watch(reader))
    finally:
        writer.transport.abort()


async def _watch(reader: asyncio.StreamReader) -> list[str]:
    seen: list[str] = []
    closing = False
    while not seen or seen[-1] != "m":
        try:
            async with asyncio.timeout(_SILENCE_S):
                status, closes, document = await _answer(reader)
        except TimeoutError:
            return [*seen, "silence"]
        except (ConnectionError, asyncio.IncompleteReadError):
            return _refused(seen)
        if status == 100:
            continue
        assert status < 500 or status in _REFUSALS, (status, document)
        assert not closing, f"an answer behind the last one: {status} {document}"
        closing = closes
        if status == 200:
            assert document["outputs"][0]["data"] == [2, 3, 4, 5]
            seen.append(document.get("id", "without-id"))
        elif closing and status in _REFUSALS:
            rest = await _rest(reader)
            assert not rest, f"bytes behind a refusal: {rest[:200]!r}"
            return _refused(seen)
        else:
            seen.append("-")
    return seen


def _refused(seen: list[str]) -> list[str]:
    """An error as the last answer of a connection that is then closed is a refusal, whatever its headers say."""
    return [*(seen[:-1] if seen[-1:] == ["-"] else seen), "!"]


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bool, dict]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value for name, _, value in (text.partition(": ") for text in lines)}
    content = await reader.readexactly(int(headers.get("content-length", 0)))
    status = int(line.split()[1])
    document = {}
    if content:
        assert headers["content-type"] == "application/json", (line, headers, content)
        document = json.loads(content)
        # One shape of errors; the runtime stands behind the gateway, which gives each call its id.
        assert status == 200 or {"error", "code"} <= set(document) <= {"error", "code", "field", "request_id"}
        assert status == 200 or document.get("request_id") == headers.get("x-request-id")
    return status, headers.get("connection") == "close", document


async def _rest(reader: asyncio.StreamReader) -> bytes:
    try:
        async with asyncio.timeout(_SILENCE_S):
            return await reader.read()
    except ConnectionError:
        return b""
