"""K2 at every instant: calls that come at random milliseconds after the decision to sleep, while the replica goes."""

import asyncio
import os
import random

import pytest

from engines_under_test import LocalHarness

CYCLES = 500
GOING_S = 0.015
"""A replica needs some milliseconds to go: calls fall before it hears of it, while it ends and when it is gone."""


@pytest.mark.timeout(600)
async def test_k2_no_call_fails_whenever_it_comes_while_a_replica_goes_to_sleep(tmp_path):
    seed = int(os.environ.get("ROOST_TEST_SEED") or random.SystemRandom().randrange(2**32))
    print(f"ROOST_TEST_SEED={seed}")
    chance = random.Random(seed)
    harness = LocalHarness()
    await harness.start(tmp_path)
    met_it_alive = 0
    try:
        revision = harness.install(answer=1)
        await harness.apply(revision, window_s=6)
        await harness.until_ready(revision)
        for _ in range(CYCLES):
            assert harness.status(revision).wanted
            while harness.status(revision).wanted:
                await harness.pass_time(1)
            going = set(harness.replicas())
            met_it_alive += bool(going)
            moments = [chance.uniform(0, GOING_S) for _ in range(chance.randint(1, 4))]
            answers = await asyncio.gather(*(_call_at(harness, revision, moment) for moment in moments))
            assert [answer["answer"] for answer in answers] == [1] * len(answers)
            await harness.until(lambda going=going: not going & set(harness.replicas()))
        await harness.pass_time(30)
        await harness.until(lambda: not harness.replicas())
    finally:
        await harness.stop()
    print(f"{met_it_alive} of {CYCLES} replicas were still there when the first look was taken")


async def _call_at(harness, revision, moment: float) -> dict[str, int]:
    await asyncio.sleep(moment)
    return await harness.call(revision)
