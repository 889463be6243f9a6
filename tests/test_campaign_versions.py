"""Fifty version changes under load: no call fails, and each is answered by a version that was current while it waited."""

import asyncio
import os
import random
from pathlib import Path

import pytest

from campaign_clients import TENANT, Answer, Caller, History
from campaign_registered import adding
from roost_gateway.client import RoostClient
from roost_process import RoostProcess, until

CHANGES = 50
CLIENTS = 4
KEPT = 15
"""Versions back that clients name: the server keeps the last twenty."""


class Timeline:
    """Which versions may have the traffic now: one, or while a change is under way the old one and the new."""

    def __init__(self) -> None:
        self.sure = 1
        """All traffic is known to have gone to this one or to a later."""
        self.newest = 1
        """Nothing later than this one was ever sent."""


@pytest.mark.timeout(600)
async def test_fifty_version_changes_under_load_fail_no_call_and_serve_no_version_out_of_its_time(tmp_path):
    seed = int(os.environ.get("ROOST_TEST_SEED") or random.SystemRandom().randrange(2**32))
    print(f"ROOST_TEST_SEED={seed}")
    chance = random.Random(seed)
    history, timeline = History(), Timeline()
    with RoostProcess(tmp_path) as server:
        key = server.make_tenant(TENANT)
        server.deploy(key, "one", _file(tmp_path, 1), window=6)
        calls = [_keep_calling(server.port, key, history, timeline, chance) for _ in range(CLIENTS)]
        clients = [asyncio.create_task(each) for each in calls]
        with server.client(key) as operator:
            for version in range(2, CHANGES + 2):
                await asyncio.to_thread(_change, operator, _file(tmp_path, version), version, timeline)
                assert not any(client.done() for client in clients), [client for client in clients if client.done()]
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        assert not history.refusals, history.refusals
        assert history.served > 10 * CHANGES
        assert {version for _, version, _ in history.sums} >= set(range(2, CHANGES + 1)), "each was called in its time"
        assert all(added == version for _, version, added in history.sums)
        rows = dict(server.shipped_ledger(key, "request_id, status"))
        assert {request_id: rows[request_id] for request_id in history.answered} == history.answered
        assert server.stop() == 0


def _file(folder: Path, version: int) -> Path:
    """A model that adds the number of its version."""
    file = folder / f"{version}.onnx"
    file.write_bytes(adding(version))
    return file


def _change(operator: RoostClient, file: Path, version: int, timeline: Timeline) -> None:
    timeline.newest = version
    assert operator.upload("one", file)["version"] == version

    def has_all_traffic() -> bool:
        (target,) = operator.model("one")["traffic"]
        return target["version"] == version

    until(has_all_traffic, within=60, what=f"traffic to version {version}")
    timeline.sure = version


async def _keep_calling(port: int, key: str, history: History, timeline: Timeline, chance: random.Random) -> None:
    async with Caller(port, key, history) as caller:
        while True:
            before = timeline.sure
            if chance.random() < 0.2:
                answer = await caller.call(version=chance.randint(max(1, before - KEPT), before))
            else:
                answer = await caller.call()
                _check_time(answer, before, timeline.newest)
            assert answer.status == 200, answer
            await asyncio.sleep(0.002)


def _check_time(answer: Answer, oldest: int, newest: int) -> None:
    assert oldest <= answer.version <= newest, (answer, oldest, newest)
