"""M1 and L2: the server is killed at random moments; what it acknowledged is in the ledger exactly once, ever after."""

import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path

import pytest

import models_for_tests as models
from roost_process import RoostProcess, wait_until_gone

KILLS = 100
KILLS_AT_START = 10
SHIP_INTERVALS_S = (1.0, 0.01)
"""One server each, at once, because a restart is mostly one core's work. The second is mostly killed while it ships."""
CLIENTS = 5


class Campaign:
    """One server, killed and restarted on the same folder, and what its clients hold against it."""

    def __init__(self, folder: Path, seed: int, ship_interval_s: float) -> None:
        self.random = random.Random(seed)
        self.server = RoostProcess(folder, ROOST_JOURNAL_SHIP_INTERVAL_S=str(ship_interval_s))
        self.file = models.add_one(folder / "add_one.onnx")
        self.sent: set[str] = set()
        self.acknowledged: set[str] = set()
        self.refused: list[str] = []
        self.numbers = count()

    async def run(self, rounds: int, rounds_at_start: int) -> None:
        await asyncio.to_thread(self.server.start)
        self.key = await asyncio.to_thread(self.server.make_tenant)
        await asyncio.to_thread(self.server.deploy, self.key, "one", self.file, window=6)
        plan = [True] * rounds + [False] * rounds_at_start
        self.random.shuffle(plan)
        for under_load in plan:
            if under_load:
                async with self.load():
                    await asyncio.sleep(self.random.uniform(0.02, 0.3))
                    await self.kill()
                self.server.spawn()
            else:
                await asyncio.sleep(self.random.uniform(0.1, 1.0))
                await self.kill()
                self.server.spawn()
            if under_load or self.random.random() < 0.5:
                await asyncio.to_thread(self.server.wait_until_ready)
        await asyncio.to_thread(self.server.wait_until_ready)

    async def kill(self) -> None:
        children = self.server.kill()  # on the loop's thread, so that no client runs between the two
        await asyncio.to_thread(wait_until_gone, children, 1.0)

    @asynccontextmanager
    async def load(self) -> AsyncIterator[None]:
        """Clients that call as fast as they are answered, until the server is gone."""
        await asyncio.to_thread(self.server.wait_until_ready)
        clients = [asyncio.create_task(self.client()) for _ in range(CLIENTS)]
        yield
        await asyncio.gather(*clients)

    async def client(self) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
            try:
                while True:
                    await self.call(reader, writer)
            finally:
                writer.close()

    async def call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = next(self.numbers)
        request_id = f"call-{number}"
        body = json.dumps(
            {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [number] * 4}]}
        ).encode()
        self.sent.add(request_id)
        writer.write(
            f"POST /t/acme/v2/models/one/infer HTTP/1.1\r\nhost: roost\r\nauthorization: Bearer {self.key}\r\n"
            f"x-request-id: {request_id}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length: ")[1].split("\r\n")[0])
        answer = await reader.readexactly(length)
        if not head.startswith("http/1.1 200 ") or f"x-request-id: {request_id}\r\n" not in head:
            self.refused.append(f"{head}{answer.decode()}")
            return
        assert json.loads(answer)["outputs"][0]["data"] == [number + 1] * 4
        self.acknowledged.add(request_id)

    async def check(self) -> None:
        columns = "source, sequence, request_id, outcome"
        rows = await asyncio.to_thread(self.server.shipped_ledger, self.key, columns)
        counted = Counter(request_id for _, _, request_id, _ in rows)
        lost = self.acknowledged - counted.keys()
        assert not lost, (
            f"{len(lost)} of {len(self.acknowledged)} acknowledged calls were lost, {sorted(lost)[:5]} among them"
        )
        assert max(counted.values()) == 1, f"counted more than once: {counted.most_common(5)}"
        assert counted.keys() <= self.sent
        billed = {request_id for _, _, request_id, outcome in rows if outcome == "ok"}
        assert self.acknowledged <= billed
        for source in {source for source, *_ in rows}:  # no gap: nothing was lost that nobody could have missed
            sequences = [sequence for each, sequence, *_ in rows if each == source]
            assert sequences == list(range(len(sequences)))
        assert not self.refused, f"{len(self.refused)} calls were refused, the first with {self.refused[0]}"
        with self.server.client(self.key) as client:
            assert client.usage()["total"]["requests"] == len(rows)


@pytest.mark.timeout(420)
async def test_a_server_killed_a_hundred_times_loses_no_acknowledged_call_and_counts_none_twice(tmp_path):
    seed = int(os.environ.get("ROOST_TEST_SEED") or random.SystemRandom().randrange(2**32))
    print(f"ROOST_TEST_SEED={seed}")
    campaigns = []
    for index, interval_s in enumerate(SHIP_INTERVALS_S):
        folder = tmp_path / str(index)
        folder.mkdir()
        campaigns.append(Campaign(folder, seed + index, interval_s))
    try:
        async with asyncio.TaskGroup() as group:
            for campaign in campaigns:
                group.create_task(campaign.run(KILLS // len(campaigns), KILLS_AT_START // len(campaigns)))
        for campaign in campaigns:
            await campaign.check()
            print(f"{len(campaign.acknowledged)} of {len(campaign.sent)} calls were acknowledged")
            assert len(campaign.acknowledged) > KILLS  # the kills came in the middle of work
            assert campaign.server.stop() == 0
    finally:
        for campaign in campaigns:
            campaign.server.end()
