"""M1 and M2 at every step: kills before, inside and after each write of the shipper and around the journal's; replays."""

import asyncio
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, func, select

from databases import url_of
from metering_parts import NOON_US, append, ledger_in, request_ids, segments
from roost_platform.database.connection import Database
from roost_platform.database.tables import journal_positions, usage_events
from roost_platform.metering.journal import Journal
from roost_platform.metering.ledger import gaps
from roost_platform.metering.shipper import Shipper

pytestmark = pytest.mark.usefixtures("each_database")

CALLS = [f"call-{number:02}" for number in range(20)]
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["pytest", "roost_platform.metering.shipper", "roost_platform.metering.journal"])


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class DyingDatabase(Database):
    """Kills this process at its n-th write: before it, inside (done but not committed), or after it (committed)."""

    def __init__(self, folder: Path, moment: str, number: int) -> None:
        super().__init__(url_of(folder))
        self._moment = moment
        self._left = number

    async def write(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._left -= 1
        now = self._moment if self._left == 0 else ""

        def dying(connection: Connection) -> Any:
            result = work(connection, *args, **kwargs)
            if now == "inside":
                _die()
            return result

        if now == "before":
            _die()
        result = await super().write(dying)
        if now == "after":
            _die()
        return result


@pytest.mark.parametrize("moment", ["before", "inside", "after"])
async def test_a_kill_at_any_write_of_the_shipper_changes_nothing_in_the_end(tmp_path, moment):
    """Before the first, the second … until one run needs no more writes: so every gap between two was hit."""
    for number in count(1):
        folder = tmp_path / str(number)
        folder.mkdir()
        with ledger_in(folder) as database:
            exit_code = _run(_write_and_ship, folder, moment, number)
            await Shipper(journal_folder=folder / "journal", database=database).drain()
            assert await database.read(request_ids) == CALLS
            assert await database.read(gaps, "run") == ()
            assert segments(folder / "journal") == []
            left = await database.read(lambda c: c.scalar(select(func.count()).select_from(journal_positions)))
            assert left == 0, "a position of a segment that is gone"
        if exit_code == 0:
            break
        assert exit_code == -signal.SIGKILL
    assert number > 6  # more than one segment, each with more than one stretch


@pytest.mark.parametrize(
    ("moment", "stored"),
    [("before the write", CALLS[:2]), ("before the answer", CALLS[:3]), ("torn", CALLS[:2])],
)
async def test_a_kill_around_the_write_of_a_call_counts_it_once_or_not_at_all(tmp_path, moment, stored):
    with ledger_in(tmp_path) as database:
        assert _run(_write_and_die, tmp_path, moment) == -signal.SIGKILL
        shipper = Shipper(journal_folder=tmp_path / "journal", database=database)
        await shipper.drain()
        assert await database.read(request_ids) == stored
        assert await database.read(gaps, "run") == ()
        assert shipper.damaged == 0
    assert segments(tmp_path / "journal") == []


@pytest.mark.parametrize("later", [timedelta(seconds=1), timedelta(hours=25), timedelta(days=40)])
async def test_m2_an_event_that_comes_again_however_late_is_one_row(tmp_path, later):
    """A segment comes back, say from a backup of the folder, after newer usage is in the ledger."""
    folder, kept = tmp_path / "journal", tmp_path / "kept.jsonl"
    with ledger_in(tmp_path) as database:
        await _write(folder, "old", NOON_US)
        shutil.copy(folder / "old-1.jsonl", kept)
        shipper = Shipper(journal_folder=folder, database=database)
        await shipper.drain()
        await _write(folder, "new", NOON_US + later // timedelta(microseconds=1))
        await shipper.drain()
        before = await database.read(_everything)
        shutil.copy(kept, folder / "old-1.jsonl")
        for each in (shipper, Shipper(journal_folder=folder, database=database)):
            await each.drain()
        assert await database.read(_everything) == before
        assert len(before) == 2
        assert (shipper.shipped, shipper.repeated) == (2, 1)
    assert segments(folder) == []


async def _write(folder: Path, source: str, time_us: int) -> None:
    journal = Journal(folder, source=source)
    append(journal, f"call of {source}", time_us=time_us)
    await journal.written()
    journal.close()


def _everything(connection: Connection) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in connection.execute(select(usage_events).order_by(usage_events.c.source))]


def _run(work: Callable[..., None], *arguments: Any) -> int | None:
    """The exit code of a process that did it."""
    child = processes.Process(target=work, args=arguments)
    child.start()
    child.join()
    code = child.exitcode
    child.close()
    return code


def _write_and_ship(folder: Path, moment: str, number: int) -> None:
    async def run() -> None:
        database = DyingDatabase(folder, moment, number)
        journal = Journal(folder / "journal", source="run", segment_bytes=1500)
        for request_id in CALLS:
            append(journal, request_id)
            await journal.written()
        journal.close()
        await Shipper(journal_folder=folder / "journal", database=database, stretch_bytes=600).drain()
        database.close()

    asyncio.run(run())


def _write_and_die(folder: Path, moment: str) -> None:
    async def run() -> None:
        journal = Journal(folder / "journal", source="run")
        for request_id in CALLS[:2]:
            append(journal, request_id)
            await journal.written()
        append(journal, CALLS[2])
        if moment == "before the write":
            _die()
        await journal.written()
        if moment == "torn":  # as if the kernel had taken only a part of the write
            (segment,) = (folder / "journal").glob("*.jsonl")
            os.truncate(segment, segment.stat().st_size - 30)
        _die()

    asyncio.run(run())
