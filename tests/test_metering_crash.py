"""The promise of metering under kill -9 and a full disk: what was acknowledged is in the ledger, once."""

import asyncio
import random
import resource
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import pytest
from sqlalchemy import select

from databases import url_of
from metering_killed import CALLERS, REFUSAL, processes, run_and_kill
from metering_parts import append, balances, ledger_in, now, request_ids, unknown_ids
from roost_platform.database.tables import usage_events
from roost_platform.domain.errors import StorageFull
from roost_platform.metering.auditing import Auditor
from roost_platform.metering.journal import Journal
from roost_platform.metering.ledger import gaps
from roost_platform.metering.settling import Settler
from roost_platform.metering.shipper import Shipper

pytestmark = pytest.mark.usefixtures("each_database")

KILLS = {"sqlite": 30, "postgresql": 10}
IS_REFUSAL = usage_events.c.request_id == REFUSAL


async def test_kill_9_at_random_points_loses_no_acknowledged_call_and_counts_none_twice(tmp_path, each_database):
    kills = KILLS[each_database]
    chance = random.Random(20261122)
    acknowledged: list[str] = []
    with ledger_in(tmp_path) as database:
        for run in range(kills):
            acknowledged += run_and_kill(url_of(tmp_path), tmp_path, f"run{run:02}", after=chance.randrange(1, 500))
        shipped_by_the_killed = len(await database.read(request_ids))
        closed_by_the_killed = len(await database.read(balances))
        await Shipper(journal_folder=tmp_path / "journal", database=database).drain()
        await Settler(journal_folder=tmp_path / "journal", database=database, clock=now).settle()
        stored = [name for name in await database.read(request_ids) if name != REFUSAL]
        refusals = await database.read(lambda c: c.execute(select(usage_events.c.requests).where(IS_REFUSAL)).all())
        sources = await database.read(lambda c: list(c.scalars(select(usage_events.c.source).distinct())))
        holes = [await database.read(gaps, source) for source in sources]
        books = await database.read(balances)
        unknown = await database.read(unknown_ids)
        assert await Auditor(database=database, clock=now).look() == []
    share = 4 if each_database == "sqlite" else 20  # over a network each transaction is some round trips
    assert shipped_by_the_killed > len(acknowledged) / share  # or the kills would have hit nothing but the journal
    assert len(stored) == len(set(stored))
    assert set(acknowledged) <= set(stored)
    # A killed caller's call may have been stored just before it could say so; each has one in flight.
    assert len(stored) <= len(acknowledged) + kills * CALLERS
    assert len(sources) == kills
    # Each call came with a refusal in the same batch: the sums, too, are exact, and there are few rows of them.
    assert sum(requests for (requests,) in refusals) == len(stored)
    assert kills <= len(refusals) <= 2 * kills
    assert holes == [()] * kills
    # Every call that was ever taken on is accounted for, and none that is called unknown is in the ledger.
    assert closed_by_the_killed < kills
    assert closed_by_the_killed or each_database != "sqlite"  # or no kill would have hit the closing of books
    assert [book.source for book in books] == [f"run{run:02}" for run in range(kills)]
    assert [book.unaccounted for book in books] == [0] * kills
    assert sum(book.completed for book in books) == 2 * len(stored)
    assert sum(book.unknown for book in books) == len(unknown) <= kills * 2 * CALLERS
    assert any(book.unknown for book in books)
    assert not {name for name in unknown if name != REFUSAL} & set(stored)
    assert list((tmp_path / "journal").iterdir()) == []


async def test_a_write_that_the_disk_refuses_fails_its_calls_and_leaves_no_gap(tmp_path):
    results, sender = processes.Pipe(duplex=False)
    child = processes.Process(target=_fill_the_disk, args=(tmp_path, sender))
    child.start()
    answered, refused = results.recv()
    child.join()
    results.close()
    sender.close()
    assert refused
    assert max(refused) < max(answered)  # it went on afterwards
    with ledger_in(tmp_path) as database:
        await Shipper(journal_folder=tmp_path / "journal", database=database).drain()
        assert await database.read(request_ids) == answered
        assert await database.read(gaps, "full") == ()


def _fill_the_disk(folder: Path, pipe: Pipe) -> None:
    pipe.send(asyncio.run(_write_through(folder)))


async def _write_through(folder: Path) -> tuple[list[str], list[str]]:
    journal = Journal(folder / "journal", source="full")
    # Files may not grow over this size from here on: the write that reaches it is cut short, as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
    answered, refused = [], []
    for turn in range(20):
        ids = [f"{turn:02}-{i}" for i in range(5)]
        for request_id in ids:
            append(journal, request_id)
        try:
            await journal.written()
        except StorageFull:
            refused += ids
        else:
            answered += ids
    journal.close()
    return answered, refused
