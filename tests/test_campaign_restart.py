"""A restart with a thousand models, after a kill: all are there, asleep, and each gives its own answers."""

import random

from campaign_clients import Caller, History
from campaign_registered import name_of, register_many
from roost_process import RoostProcess, wait_until_gone

MODELS = 1000


async def test_a_thousand_models_are_there_after_a_restart_asleep_and_each_its_own(tmp_path):
    server = RoostProcess(tmp_path)
    key = await register_many(server.data, MODELS, window=6)
    with server:
        await _check(server, key)
        wait_until_gone(server.kill(), 20)
        server.start()
        await _check(server, key)
        assert server.stop() == 0


async def _check(server: RoostProcess, key: str) -> None:
    with server.client(key) as client:
        models = client.models()["models"]
    assert {model["model"] for model in models} == {name_of(number) for number in range(1, MODELS + 1)}
    assert {(model["state"], model["replicas_wanted"]) for model in models} == {("asleep", 0)}
    assert server.replicas() == []
    numbers = random.Random(1).sample(range(1, MODELS + 1), 25)
    history = History()
    async with Caller(server.port, key, history) as caller:
        for number in numbers:
            assert (await caller.call(name_of(number))).status == 200
    assert history.sums == {(name_of(number), 1, float(number)) for number in numbers}
