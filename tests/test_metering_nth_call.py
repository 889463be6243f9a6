"""M1, M9: every call to the file system and the database fails once, or is the last; and power cuts. Lost 0, doubled 0."""

import asyncio
import errno
import itertools
import json
import random
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from metering_faulty import Disk, FaultyDatabase, FaultyFiles, ShortFiles, copy_of
from metering_parts import append, balances, ledger_in, now, request_ids, unknown_ids
from roost_platform.database.connection import Database
from roost_platform.domain.errors import RoostError, StorageFull
from roost_platform.domain.usage import Outcome
from roost_platform.metering.auditing import Auditor
from roost_platform.metering.files import Files
from roost_platform.metering.journal import Journal
from roost_platform.metering.settling import Settler
from roost_platform.metering.shipper import Shipper
from sqlite_power import library

TURNS = 6
CALLS = 3
REFUSAL = "refusal"
CUTS = 50


@dataclass
class History:
    """What callers were told."""

    answered: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    refusals: int = 0


async def live(folder: Path, files: Files, history: History, *, sync_interval_s: float) -> None:
    """A run of a gateway that ends in order, with a call that never does. Raises OSError when it cannot even begin."""
    journal = Journal(folder, source="run", segment_bytes=900, sync_interval_s=sync_interval_s, files=files)
    journal.intents.open("acme", "iris", 1, "never ends")
    for turn in range(TURNS):
        await _turn(journal, [f"{turn}-{number}" for number in range(CALLS)], history)
    journal.close()


async def _turn(journal: Journal, ids: list[str], history: History) -> None:
    for name in ids:
        append(journal, name)
    append(journal, REFUSAL, outcome=Outcome.THROTTLED, status=429, compute_us=0, rows=0)
    try:
        await journal.written()
    except StorageFull:
        history.refused += ids
    else:
        history.answered += ids
        history.refusals += 1


async def end(folder: Path, database: Database, files: Files | None = None) -> None:
    """As the start after it does: ship what is there, close the books."""
    given = {} if files is None else {"files": files}
    await Shipper(journal_folder=folder, database=database, **given).drain()
    await Settler(journal_folder=folder, database=database, clock=now, **given).settle()


async def check(database: Database, history: History, *, exact: bool = True) -> None:
    """Nothing that was answered is lost, nothing is there twice, and all that was taken on is accounted for.

    `exact`: what was refused is not there either, which holds unless it was the disk that failed after the write.
    """
    counted = Counter(name for name in await database.read(request_ids) if name != REFUSAL)
    assert counted.keys() >= set(history.answered), "lost"
    assert max(counted.values(), default=1) == 1, "doubled"
    if exact:
        assert not counted.keys() & set(history.refused)
    unknown = Counter(await database.read(unknown_ids))
    assert not unknown.keys() & counted.keys()
    assert unknown["never ends"] <= 1
    assert await Auditor(database=database, clock=now).look() == []
    for book in await database.read(balances):
        assert book.unaccounted == 0
        assert book.completed >= len(history.answered) + history.refusals


@pytest.mark.parametrize(
    ("kind", "goes_on", "sync_interval_s"),
    [(FaultyFiles, False, 0), (FaultyFiles, True, 60), (ShortFiles, False, 60), (ShortFiles, True, 0)],
    ids=["once, synced", "from then on", "short, once", "short, from then on, synced"],
)
async def test_whichever_file_operation_of_a_run_fails_nothing_is_lost_or_doubled(
    tmp_path, kind, goes_on, sync_interval_s
):
    refused = began = 0
    with ledger_in(tmp_path) as database:
        for number in itertools.count(1):
            failed: list[str] = []

            def fail(call: int, name: str, number: int = number, failed: list[str] = failed) -> None:
                if call == number or (goes_on and call > number):
                    failed.append(name)
                    raise OSError(errno.EIO, "it fails")

            history, folder = History(), tmp_path / f"journal{number}"
            try:
                await live(folder, kind(fail), history, sync_interval_s=sync_interval_s)
                began += 1
            except OSError:
                assert history == History(), "it did not begin, or it goes on"
            await _wipe(database)
            await end(folder, database)
            await check(database, history, exact="datasync" not in failed and "sync_folder" not in failed)
            refused += len(history.refused)
            if not failed:
                break
    assert history.refused == []
    assert len(history.answered) == TURNS * CALLS
    assert refused
    assert number > 30, "there are more operations than that"
    assert began > number / 2
    print(f"{number - 1} operations failed")


async def test_whichever_file_operation_fails_while_usage_is_shipped_it_is_shipped_once(tmp_path):
    history = History()
    await live(tmp_path / "made", Files(), history, sync_interval_s=60)
    with ledger_in(tmp_path) as database:
        for number in itertools.count(1):

            def fail(call: int, _name: str, number: int = number) -> None:
                if call == number:
                    raise OSError(errno.EIO, "it fails")

            files, folder = FaultyFiles(fail), copy_of(tmp_path / "made", f"journal{number}")
            await _wipe(database)
            failed = False
            try:
                await end(folder, database, files)
            except OSError:
                failed = True
                await end(folder, database, files)
            await check(database, history)
            assert await database.read(unknown_ids) == ["never ends"]
            assert await asyncio.to_thread(_names, folder) == []
            if not failed:
                break
    assert number > 5


@pytest.mark.usefixtures("each_database")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_whichever_question_the_database_does_not_answer_usage_is_counted_once(tmp_path, after):
    history = History()
    await live(tmp_path / "made", Files(), history, sync_interval_s=60)
    with ledger_in(tmp_path) as database:
        for number in itertools.count(1):
            folder = copy_of(tmp_path / "made", f"journal{number}")
            await _wipe(database)
            faulty = FaultyDatabase(tmp_path, number, after=after)
            failed = False
            try:
                await end(folder, faulty)
            except RoostError:
                failed = True
                await end(folder, faulty)
            faulty.close()
            await check(database, history)
            assert await database.read(unknown_ids) == ["never ends"]
            assert await asyncio.to_thread(_names, folder) == []
            if not failed:
                break
    assert number > 8


@pytest.mark.parametrize("sync_interval_s", [0, 60])
async def test_a_kill_before_or_after_any_file_operation_leaves_what_was_answered_and_a_balance(
    tmp_path, sync_interval_s
):
    """What lies in the folder at that moment, mapped memory included, is what `kill -9` leaves."""
    history, moments = History(), []

    def snapshot(call: int, _name: str) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # the one that syncs changes nothing, and to copy beside the one that writes would be no moment
        told = History(list(history.answered), list(history.refused), history.refusals)
        moments.append((copy_of(tmp_path / "journal", f"moment{call}"), told))

    await live(tmp_path / "journal", FaultyFiles(snapshot), history, sync_interval_s=sync_interval_s)
    with ledger_in(tmp_path) as database:
        for folder, told in moments:
            await _wipe(database)
            await end(folder, database)
            await check(database, told)
            assert [name for name in await asyncio.to_thread(_names, folder) if not name.endswith(".new")] == []
    assert len(moments) > 20


async def test_fifty_power_cuts_lose_nothing_that_was_answered_after_a_sync(tmp_path):
    """Unsynced pages are forgotten, or not: as chance has it. Books may be some calls apart then; the ledger is not."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    kept = apart = 0
    with ledger_in(tmp_path) as database:
        for cut in range(CUTS):
            chance, folder = random.Random(seed + cut), tmp_path / f"journal{cut}"
            disk, history = Disk(folder, chance), History()
            journal = Journal(folder, source=f"run{cut}", segment_bytes=900, sync_interval_s=0, files=disk)
            for turn in range(chance.randint(1, TURNS)):
                await _turn(journal, [f"{turn}-{number}" for number in range(CALLS)], history)
            told = History(list(history.answered), [], history.refusals)
            under_way = asyncio.create_task(_turn(journal, ["last"], history))
            await asyncio.sleep(0)
            left = tmp_path / f"left{cut}"
            disk.cut_power(left)  # on this thread: nothing is written meanwhile
            await under_way
            journal.close()
            await _wipe(database)
            await end(left, database)
            counted = Counter(name for name in await database.read(request_ids) if name != REFUSAL)
            assert counted.keys() >= set(told.answered), "lost"
            assert max(counted.values()) == 1, "doubled"
            kept += len(counted)
            apart += any(book.unaccounted for book in await database.read(balances))
            assert not [name for name in await asyncio.to_thread(_names, left) if name.endswith((".jsonl", ".open"))]
    assert kept > CUTS * CALLS
    print(f"{kept} calls kept, {apart} of {CUTS} books apart")


@pytest.mark.skipif(
    library() is None, reason="this Python has SQLite inside, where its file system cannot be stood in for"
)
def test_fifty_power_cuts_under_the_journal_and_the_ledger_lose_nothing(tmp_path):
    """A process of its own: SQLite's file system, which forgets what was not synced, is one for all connections."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    script = Path(__file__).with_name("metering_power.py")
    found = json.loads(subprocess.check_output([sys.executable, script, tmp_path, str(seed), str(CUTS)], text=True))
    assert (found["cuts"], found["lost"], found["doubled"], found["broken"]) == (CUTS, 0, 0, 0)
    assert found["answered"] > CUTS * CALLS
    assert found["segments_removed"] > CUTS / 2
    assert found["syncs"] > CUTS


async def _wipe(database: Database) -> None:
    """A fresh ledger, without the time that a new database takes."""

    def wipe(connection) -> None:
        for table in (
            "usage_events",
            "journal_positions",
            "sources",
            "unknown_calls",
            "ledger_conflicts",
            "dirty_hours",
        ):
            connection.exec_driver_sql(f"DELETE FROM {table}")

    await database.write(wipe)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
