"""M1 with two gateways on one PostgreSQL, each with its own journal: both killed at random, and the database cut off at times."""

import asyncio
import random
from collections import Counter
from pathlib import Path

from sqlalchemy import select

from metering_killed import CALLERS, REFUSAL, run_and_kill
from metering_parts import balances, now, request_ids, unknown_ids
from postgres_faults import PostgresProxy
from postgres_server import shared_server
from roost_platform.database.connection import Database
from roost_platform.database.tables import usage_events
from roost_platform.metering.ledger import gaps
from roost_platform.metering.settling import Settler
from roost_platform.metering.shipper import Shipper

LIVES = 5
GATEWAYS = ("a", "b")


async def test_two_gateways_killed_at_random_lose_no_acknowledged_call_and_count_none_twice(
    tmp_path: Path, on_postgres: str
):
    with PostgresProxy(shared_server().port) as proxy:
        far = on_postgres.replace(str(shared_server().port), str(proxy.port))
        cutting = asyncio.create_task(_cut_now_and_then(proxy))
        lives = [_live(far, tmp_path, name) for name in GATEWAYS]
        acknowledged = [call for calls in await asyncio.gather(*lives) for call in calls]
        cutting.cancel()
    database = Database(on_postgres)
    for name in GATEWAYS:
        await Shipper(journal_folder=tmp_path / name / "journal", database=database).drain()
        await Settler(journal_folder=tmp_path / name / "journal", database=database, clock=now).settle()
        assert not list((tmp_path / name / "journal").iterdir())
    counted = Counter(name for name in await database.read(request_ids) if name != REFUSAL)
    sources = await database.read(lambda c: list(c.scalars(select(usage_events.c.source).distinct())))
    refused = await database.read(
        lambda c: list(c.scalars(select(usage_events.c.requests).where(usage_events.c.request_id == REFUSAL)))
    )
    books = await database.read(balances)
    unknown = set(await database.read(unknown_ids)) - {REFUSAL}
    holes = [await database.read(gaps, source) for source in sources]
    database.close()
    assert set(acknowledged) <= counted.keys(), "lost"
    assert max(counted.values()) == 1, "doubled"
    assert counted.total() <= len(acknowledged) + len(GATEWAYS) * LIVES * CALLERS
    assert sum(refused) == counted.total()
    assert len(sources) == len(GATEWAYS) * LIVES
    assert holes == [()] * len(sources)
    assert [book.source for book in books] == sorted(f"{name}{life}" for name in GATEWAYS for life in range(LIVES))
    assert [book.unaccounted for book in books] == [0] * len(books)
    assert not unknown & counted.keys()


async def _live(url: str, folder: Path, name: str) -> list[str]:
    """Each life begins on the folder that the one before left; returns what all of them acknowledged."""
    chance = random.Random(name)
    (folder / name).mkdir()
    calls = []
    for life in range(LIVES):
        after = chance.randrange(1, 400)
        calls += await asyncio.to_thread(run_and_kill, url, folder / name, f"{name}{life}", after=after)
    return calls


async def _cut_now_and_then(proxy: PostgresProxy) -> None:
    chance = random.Random("network")
    while True:
        await asyncio.sleep(chance.random() / 5)
        chance.choice([proxy.reset, lambda: proxy.cut_at_commit("lost"), lambda: proxy.cut_at_commit("done")])()
