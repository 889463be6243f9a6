"""Clients of a campaign: they call as fast as they are answered, check each answer, and keep what they were told."""

import asyncio
import json
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Self

TENANT = "acme"
ANSWER_LIMIT_S = 60.0
"""Bounds a hang, nothing else."""


@dataclass
class History:
    """What the clients of one server sent and were answered, over all its lives."""

    sent: set[str] = field(default_factory=set)
    answered: dict[str, int] = field(default_factory=dict)
    """Request id → HTTP status of the whole answer that arrived."""
    refusals: Counter[tuple[int, str]] = field(default_factory=Counter)
    """Status and code of answers other than 200."""
    sums: set[tuple[str, int, float]] = field(default_factory=set)
    """Model, version that the answer names, and what it had added."""
    numbers: count = field(default_factory=count)

    @property
    def served(self) -> int:
        return sum(status == 200 for status in self.answered.values())


@dataclass(frozen=True)
class Answer:
    status: int
    document: dict

    @property
    def version(self) -> int:
        return int(self.document["model_version"])


class Caller:
    """One kept-alive connection. Every call carries an id of its own; `history` gets each answer that arrived whole."""

    def __init__(self, port: int, key: str, history: History) -> None:
        self._port = port
        self._key = key
        self._history = history

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()

    async def call(self, model: str = "one", version: int | None = None) -> Answer:
        """Raises OSError or IncompleteReadError when the connection ends before the answer does."""
        number = next(self._history.numbers)
        request_id = f"call-{number}"
        self._history.sent.add(request_id)
        path = f"/t/{TENANT}/v2/models/{model}" + (f"/versions/{version}" if version else "") + "/infer"
        values = [number % 1_000_000 + column for column in range(4)]
        body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": values}]}).encode()
        self._writer.write(
            f"POST {path} HTTP/1.1\r\nhost: roost\r\nauthorization: Bearer {self._key}\r\nx-request-id: {request_id}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        async with asyncio.timeout(ANSWER_LIMIT_S):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.split("content-length: ")[1].split("\r\n")[0])
            answer = Answer(int(head[9:12]), json.loads(await self._reader.readexactly(length)))
        assert f"x-request-id: {request_id}\r\n" in head
        self._history.answered[request_id] = answer.status
        if answer.status != 200:
            self._history.refusals[answer.status, answer.document["code"]] += 1
            return answer
        (output,) = answer.document["outputs"]
        added = {after - before for before, after in zip(values, output["data"], strict=True)}
        assert len(added) == 1, (path, values, answer)
        assert version in (None, answer.version), (path, answer)
        self._history.sums.add((model, answer.version, added.pop()))
        return answer


async def call_until_gone(port: int, key: str, history: History, chance: random.Random, named: list[int]) -> None:
    """Call until the server is gone, some calls by version; all that it answers in that time counts."""
    with suppress(OSError, asyncio.IncompleteReadError):
        async with Caller(port, key, history) as caller:
            while True:
                await caller.call(version=chance.choice(named) if chance.random() < 0.3 else None)
                await asyncio.sleep(0.001)
