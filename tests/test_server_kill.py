"""M1, L1, L2, L3 and U13: processes are killed at random moments; what was acknowledged holds, once, ever after."""

import asyncio
import os
import random

import pytest

from campaign_kill import Campaign

SHIP_INTERVALS_S = (1.0, 0.01)
"""One server each, at once, because a restart is mostly one core's work. The second is mostly killed while it ships."""
TIMES = int(os.environ.get("ROOST_TEST_KILLS", "300")) / 300
"""More of everything: `ROOST_TEST_KILLS=1000` is what `make torture` asks for."""
VICTIMS = {victim: round(number * TIMES) for victim, number in {"gateway": 45, "zygote": 30, "replica": 70}.items()}
"""Of each server, in the middle of work."""
GATEWAYS_AT_START = round(5 * TIMES)
KILLS = len(SHIP_INTERVALS_S) * (sum(VICTIMS.values()) + GATEWAYS_AT_START)


@pytest.mark.timeout(600 * TIMES)
async def test_processes_killed_three_hundred_times_lose_no_acknowledged_call_and_leave_nothing_half_done(tmp_path):
    seed = int(os.environ.get("ROOST_TEST_SEED") or random.SystemRandom().randrange(2**32))
    print(f"ROOST_TEST_SEED={seed}")
    campaigns = [
        Campaign(tmp_path / str(index), seed + index, ROOST_JOURNAL_SHIP_INTERVAL_S=str(interval_s))
        for index, interval_s in enumerate(SHIP_INTERVALS_S)
    ]
    try:
        async with asyncio.TaskGroup() as group:
            for index, campaign in enumerate(campaigns):
                group.create_task(campaign.run(_victims(seed + index), GATEWAYS_AT_START))
        for campaign in campaigns:
            await campaign.check()
            history = campaign.history
            print(
                f"{history.served} of {len(history.sent)} calls, {campaign.unknown} unknown, {campaign.changes} changes, "
                f"{dict(history.refusals)}"
            )
            assert history.served > KILLS  # the kills came in the middle of work
            assert {status for status, _ in history.refusals} <= {502, 503}
            assert campaign.server.stop() == 0
        assert sum(campaign.killed.total() for campaign in campaigns) == KILLS
    finally:
        for campaign in campaigns:
            campaign.server.end()


def _victims(seed: int) -> list[str]:
    """In random order, a gateway at the end: every life is ended by a kill."""
    victims = [victim for victim, number in VICTIMS.items() for _ in range(number)]
    victims.remove("gateway")
    random.Random(seed).shuffle(victims)
    return [*victims, "gateway"]
