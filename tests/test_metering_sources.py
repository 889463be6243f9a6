"""The books of gateway runs: closed once, whatever is killed when; complete, or somebody is told. Conflicts and dirty hours."""

import asyncio
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, delete, select

from databases import url_of
from metering_killed import processes
from metering_parts import append, balances, event, ledger_in, segments, unknown_ids
from roost_platform.database.connection import Database
from roost_platform.database.money_tables import sources, unknown_calls
from roost_platform.database.tables import metadata, usage_events
from roost_platform.domain.errors import Unavailable
from roost_platform.domain.usage import Outcome
from roost_platform.metering.auditing import Auditor
from roost_platform.metering.intents import Intents
from roost_platform.metering.journal import Journal
from roost_platform.metering.ledger import gaps
from roost_platform.metering.recording import record
from roost_platform.metering.settling import Settler
from roost_platform.metering.shipper import Shipper
from roost_platform.metering.sources import Balance, Counted, Finding, judge, slices

pytestmark = pytest.mark.usefixtures("each_database")

REFUSED: dict[str, Any] = {"outcome": Outcome.THROTTLED, "status": 429, "compute_us": 0, "rows": 0}
STARTED, CLOSED = datetime(2026, 11, 3, 11, tzinfo=UTC), datetime(2026, 11, 3, 13, tzinfo=UTC)
HOUR = timedelta(hours=1)


def settler_of(folder: Path, database: Database, at: datetime = CLOSED) -> Settler:
    return Settler(journal_folder=folder, database=database, clock=lambda: at)


async def _live(folder: Path) -> Journal:
    """A run with two calls done, a minute's refusals, and three calls under way."""
    journal = Journal(folder, source="run")
    for name in ("a", "b"):
        append(journal, name)
        for _ in range(3):
            append(journal, "refused", **REFUSED)
        await journal.written()
    for name in ("x", "y", "z"):
        journal.intents.open("acme", "iris", 2, name)
    return journal


def rows_of(connection: Connection) -> list[dict[str, Any]]:
    kept = [
        sources.c[name] for name in ("source", "started_at", "closed_at", "opened", "completed", "unstored", "unknown")
    ]
    return [dict(row) for row in connection.execute(select(*kept).order_by(sources.c.source)).mappings()]


# Runs


async def test_the_books_of_a_run_are_open_while_it_lives_and_closed_when_it_has_ended(tmp_path):
    folder = tmp_path / "journal"
    with ledger_in(tmp_path) as database:
        await settler_of(folder, database, STARTED).begin("run")
        journal = await _live(folder)
        settler = settler_of(folder, database)
        await Shipper(journal_folder=folder, database=database).drain()
        assert await settler.settle() == 0
        nothing = {"opened": 0, "completed": 0, "unstored": 0, "unknown": 0}
        assert await database.read(rows_of) == [{"source": "run", "started_at": STARTED, "closed_at": None, **nothing}]
        journal.close()
        assert await settler.settle() == 0, "its last segment has not been shipped"
        await Shipper(journal_folder=folder, database=database).drain()
        assert await settler.settle() == 1
        counts = {"opened": 11, "completed": 8, "unstored": 0, "unknown": 3}
        closed = [{"source": "run", "started_at": STARTED, "closed_at": CLOSED, **counts}]
        assert await database.read(rows_of) == closed
        assert settler.unknown == 3
        assert await database.read(unknown_ids) == ["x", "y", "z"]
        (call, *_) = await database.read(lambda c: c.execute(select(unknown_calls)).mappings().all())
        assert {name: call[name] for name in ("source", "number", "tenant", "model", "version", "request_id")} == {
            "source": "run", "number": 9, "tenant": "acme", "model": "iris", "version": 2, "request_id": "x",
        }  # fmt: skip
        assert abs(call["time"] - datetime.now(UTC)) < HOUR
        assert await settler.settle() == 0
        assert await settler_of(folder, database, CLOSED + HOUR).settle() == 0
        assert await database.read(rows_of) == closed
    assert not await asyncio.to_thread(os.listdir, folder)


async def test_a_run_without_a_call_and_a_row_is_closed_as_well(tmp_path):
    (tmp_path / "journal").mkdir()
    Intents(tmp_path / "journal", source="quiet").close()
    with ledger_in(tmp_path) as database:
        assert await settler_of(tmp_path / "journal", database).settle() == 1
        assert await database.read(balances) == [Balance("quiet", 0, 0, 0, 0)]
        assert await Auditor(database=database, clock=lambda: CLOSED).look() == []


async def test_the_file_of_a_closed_run_that_comes_back_changes_nothing(tmp_path):
    folder, kept = tmp_path / "journal", tmp_path / "kept"
    journal = await _live(folder)
    journal.close()
    shutil.copytree(folder, kept)
    with ledger_in(tmp_path) as database:
        for at in (CLOSED, CLOSED + HOUR):
            shutil.copytree(kept, folder, dirs_exist_ok=True)
            await Shipper(journal_folder=folder, database=database).drain()
            settler = settler_of(folder, database, at)
            assert await settler.settle() == 1
            assert settler.unknown == (3 if at == CLOSED else 0)
        assert [row["closed_at"] for row in await database.read(rows_of)] == [CLOSED]
        assert await database.read(balances) == [Balance("run", 11, 8, 0, 3)]
        assert len(await database.read(unknown_ids)) == 3


class Ending(Database):
    """Ends this process at its n-th write, before, inside or after it."""

    def __init__(self, folder: Path, moment: str, number: int) -> None:
        super().__init__(url_of(folder))
        self._moment = moment
        self._left = number

    async def write(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._left -= 1
        now = self._moment if self._left == 0 else ""

        def ending(connection: Connection) -> Any:
            result = work(connection, *args, **kwargs)
            if now == "inside":
                os._exit(9)
            return result

        if now == "before":
            os._exit(9)
        result = await super().write(ending)
        if now == "after":
            os._exit(9)
        return result


@pytest.mark.parametrize("moment", ["before", "inside", "after"])
async def test_a_kill_at_any_write_while_books_are_closed_changes_nothing_in_the_end(tmp_path, moment):
    journal = await _live(tmp_path / "made")
    journal.close()
    for number in count(1):
        folder = tmp_path / str(number)
        folder.mkdir()
        shutil.copytree(tmp_path / "made", folder / "journal")
        with ledger_in(folder) as database:
            child = processes.Process(target=_settle, args=(folder, moment, number))
            child.start()
            child.join()
            await Shipper(journal_folder=folder / "journal", database=database).drain()
            await settler_of(folder / "journal", database).settle()
            assert await database.read(balances) == [Balance("run", 11, 8, 0, 3)]
            assert await database.read(unknown_ids) == ["x", "y", "z"]
            assert not await asyncio.to_thread(os.listdir, folder / "journal")
        if child.exitcode == 0:
            break
        assert child.exitcode == 9
    assert number > 3  # shipping, forgetting the position, closing the books


def _settle(folder: Path, moment: str, number: int) -> None:
    async def run() -> None:
        database = Ending(folder, moment, number)
        await Shipper(journal_folder=folder / "journal", database=database).drain()
        await settler_of(folder / "journal", database).settle()
        database.close()

    asyncio.run(run())


async def test_two_settlers_at_once_close_each_run_once(tmp_path):
    for run in range(5):
        journal = Journal(tmp_path / "journal", source=f"run{run}")
        append(journal, f"r{run}")
        journal.intents.open("acme", "iris", 1, f"x{run}")
        await journal.written()
        journal.close()
    with ledger_in(tmp_path) as database:
        await Shipper(journal_folder=tmp_path / "journal", database=database).drain()
        both = [settler_of(tmp_path / "journal", database) for _ in range(2)]
        await asyncio.gather(*(settler.settle() for settler in both), return_exceptions=True)
        assert await database.read(balances) == [Balance(f"run{run}", 2, 1, 0, 1) for run in range(5)]
        assert sum(settler.unknown for settler in both) == 5


async def test_a_file_that_cannot_be_read_is_kept_and_its_run_stays_unaccounted_for(tmp_path, caplog):
    folder = tmp_path / "journal"
    journal = await _live(folder)
    journal.close()
    (folder / "run.open").write_bytes(b"")
    with ledger_in(tmp_path) as database:
        await Shipper(journal_folder=folder, database=database).drain()
        assert await settler_of(folder, database).settle() == 1
        assert await database.read(balances) == [Balance("run", 0, 8, 0, 0)]
        auditor = Auditor(database=database, clock=lambda: CLOSED)
        assert await auditor.look() == [Finding("run", 0, -8)]
        assert auditor.unaccounted == 8
    assert [record.message for record in caplog.records] == ["intents_unreadable", "ledger_incomplete"]
    assert segments(folder) == ["run.open.unreadable"]


@pytest.mark.sqlite  # PostgreSQL is really stopped in test_postgres_outage
async def test_books_stay_open_while_the_database_does_not_answer(tmp_path):
    journal = await _live(tmp_path / "journal")
    journal.close()
    with ledger_in(tmp_path) as database:
        await Shipper(journal_folder=tmp_path / "journal", database=database).drain()
        metadata.drop_all(database.engine, tables=[sources])
        with pytest.raises(Unavailable):
            await settler_of(tmp_path / "journal", database).settle()
        metadata.create_all(database.engine)
        loop = asyncio.ensure_future(settler_of(tmp_path / "journal", database).run())
        while not await database.read(balances):
            pass
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
        assert await database.read(balances) == [Balance("run", 11, 8, 0, 3)]


# Whether the ledger is complete


@pytest.mark.parametrize(
    ("counted", "last", "missing", "unaccounted"),
    [
        (Counted(8, 10), 7, 0, 0),
        (Counted(7, 9), 7, 1, 1),
        (Counted(8, 9), 7, 0, 1),
        (Counted(9, 11), 8, 0, -1),
        (Counted(0, 0), -1, 0, 10),
    ],
)
def test_a_run_is_judged_by_what_the_ledger_holds_now(counted, last, missing, unaccounted):
    finding = judge(Balance("run", 15, 10, 2, 3), counted, last)
    assert finding == Finding("run", missing, unaccounted)
    assert finding.well == (missing == unaccounted == 0)


@pytest.mark.parametrize("last", [-1, 0, 1, 9, 10, 11, 25])
def test_slices_hold_every_sequence_once(last):
    assert [number for piece in slices(last, 10) for number in piece] == list(range(last + 1))


async def test_what_is_missing_is_told_once_counted_and_forgotten_when_it_is_back(tmp_path, caplog):
    folder = tmp_path / "journal"
    with ledger_in(tmp_path) as database:
        for name in ("well", "ill"):
            journal = Journal(folder, source=name)
            for number in range(10):
                append(journal, f"{name}{number}")
            await journal.written()
            journal.close()
        await Shipper(journal_folder=folder, database=database).drain()
        await settler_of(folder, database).settle()
        lost = [event(number, source="ill", request_id=f"ill{number}") for number in (3, 4, 7)]
        missing = (usage_events.c.source == "ill") & usage_events.c.sequence.in_([3, 4, 7])
        await database.write(lambda c: c.execute(delete(usage_events).where(missing)) and None)
        auditor = Auditor(database=database, clock=lambda: CLOSED + timedelta(days=34))
        for _ in range(2):
            assert await auditor.look() == [Finding("ill", 3, 3)]
        assert (auditor.missing, auditor.unaccounted) == (3, 3)
        assert await database.read(gaps, "ill") == (range(3, 5), range(7, 8))
        (told,) = caplog.records
        assert (told.message, told.levelname) == ("ledger_incomplete", "ERROR")
        assert (told.source, told.missing, told.unaccounted) == ("ill", 3, 3)
        await database.write(record, lost)
        assert await auditor.look() == []
        assert (auditor.missing, auditor.unaccounted) == (0, 0)
        late = Auditor(database=database, clock=lambda: CLOSED + timedelta(days=36))
        await database.write(lambda c: c.execute(delete(usage_events)) and None)
        assert await late.look() == [], "a month can no longer be corrected"


async def test_only_the_gateway_that_leads_looks(tmp_path):
    with ledger_in(tmp_path) as database:
        await database.write(
            lambda c: (
                c.execute(
                    sources.insert().values(
                        source="run", started_at=STARTED, closed_at=CLOSED, opened=1, completed=0, unstored=0, unknown=0
                    )
                )
                and None
            )
        )
        leading: list[bool] = []
        turns = iter([False, True])

        def leads() -> bool:
            leading.append(next(turns, True))
            return leading[-1]

        auditor = Auditor(database=database, clock=lambda: CLOSED, leads=leads, interval_s=0.001)
        loop = asyncio.ensure_future(auditor.run())
        while len(leading) < 2:
            assert auditor.unaccounted == 0
            await asyncio.sleep(0)
        while not auditor.unaccounted:
            await database.read(balances)
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
        assert auditor.unaccounted == 1
