"""The promise of metering under kill -9 and a full disk: what was acknowledged is in the ledger, once."""

import asyncio
import multiprocessing
import os
import random
import resource
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

from sqlalchemy import select

from metering_parts import append, request_ids, sqlite_ledger
from roost_platform.database.connection import Database, sqlite_url
from roost_platform.database.tables import usage_events
from roost_platform.domain.errors import StorageFull
from roost_platform.domain.usage import Outcome
from roost_platform.metering.journal import Journal
from roost_platform.metering.ledger import gaps
from roost_platform.metering.shipper import Shipper

KILLS = 30
REFUSAL = "refusal"
IS_REFUSAL = usage_events.c.request_id == REFUSAL
CALLERS = 8
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["pytest", "roost_platform.metering.shipper", "roost_platform.metering.journal"])


async def test_kill_9_at_random_points_loses_no_acknowledged_call_and_counts_none_twice(tmp_path):
    chance = random.Random(20261122)
    acknowledged: list[str] = []
    with sqlite_ledger(tmp_path) as database:
        for run in range(KILLS):
            acknowledged += _run_and_kill(tmp_path, f"run{run:02}", after=chance.randrange(1, 500))
        shipped_by_the_killed = len(await database.read(request_ids))
        await Shipper(journal_folder=tmp_path / "journal", database=database).drain()
        stored = [name for name in await database.read(request_ids) if name != REFUSAL]
        refusals = await database.read(lambda c: c.execute(select(usage_events.c.requests).where(IS_REFUSAL)).all())
        sources = await database.read(lambda c: list(c.scalars(select(usage_events.c.source).distinct())))
        holes = [await database.read(gaps, source) for source in sources]
    assert shipped_by_the_killed > len(acknowledged) / 4  # or the kills would have hit nothing but the journal
    assert len(stored) == len(set(stored))
    assert set(acknowledged) <= set(stored)
    # A killed caller's call may have been stored just before it could say so; each has one in flight.
    assert len(stored) <= len(acknowledged) + KILLS * CALLERS
    assert len(sources) == KILLS
    # Each call came with a refusal in the same batch: the sums, too, are exact, and there are few rows of them.
    assert sum(requests for (requests,) in refusals) == len(stored)
    assert KILLS <= len(refusals) <= 2 * KILLS
    assert holes == [()] * KILLS
    assert not list((tmp_path / "journal").iterdir())


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
    with sqlite_ledger(tmp_path) as database:
        await Shipper(journal_folder=tmp_path / "journal", database=database).drain()
        assert await database.read(request_ids) == answered
        assert await database.read(gaps, "full") == ()


def _run_and_kill(folder: Path, source: str, *, after: int) -> list[str]:
    """Run a gateway's metering until it has acknowledged so many calls, kill it; returns all that it acknowledged."""
    receiver, sender = processes.Pipe(duplex=False)
    child = processes.Process(target=_meter_for_ever, args=(folder, source, sender))
    child.start()
    sender.close()
    text = b""
    while chunk := os.read(receiver.fileno(), 4096):
        text += chunk
        if text.count(b"\n") >= after:
            child.kill()
    child.join()
    receiver.close()
    assert child.exitcode == -9
    child.close()
    return text.decode().split("\n")[:-1]


def _meter_for_ever(folder: Path, source: str, pipe: Pipe) -> None:
    asyncio.run(_meter(folder, source, pipe))


async def _meter(folder: Path, source: str, pipe: Pipe) -> None:
    database = Database(sqlite_url(folder / "roost.sqlite"))
    journal = Journal(folder / "journal", source=source, segment_bytes=2000)
    shipper = Shipper(journal_folder=folder / "journal", database=database, interval_s=0.002, stretch_bytes=3000)

    async def call(caller: int) -> None:
        number = 0
        while True:
            request_id = f"{source}-{caller}-{number}"
            append(journal, request_id)
            append(journal, REFUSAL, outcome=Outcome.THROTTLED, status=429, compute_us=0, rows=0)
            await journal.written()
            os.write(pipe.fileno(), f"{request_id}\n".encode())
            number += 1
            await asyncio.sleep(0.001)  # so that the shipper has its share of a short life

    await asyncio.gather(shipper.run(), *(call(i) for i in range(CALLERS)))


def _fill_the_disk(folder: Path, pipe: Pipe) -> None:
    # Files may not grow over this size here: the write that reaches it is cut short, as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
    pipe.send(asyncio.run(_write_through(folder)))


async def _write_through(folder: Path) -> tuple[list[str], list[str]]:
    journal = Journal(folder / "journal", source="full")
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
