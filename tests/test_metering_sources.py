"""The books of gateway runs: closed once, whatever is killed when; complete, or somebody is told. Conflicts and dirty hours."""

import asyncio
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, delete, func, select, update

from databases import url_of
from metering_killed import processes
from metering_parts import NOON, NOON_US, append, balances, event, ledger_in, now, request_ids, segments, unknown_ids
from roost_platform.database.connection import Database
from roost_platform.database.money_tables import dirty_hours, ledger_conflicts, sources, unknown_calls
from roost_platform.database.tables import metadata, usage_events
from roost_platform.domain.errors import Unavailable
from roost_platform.domain.usage import Outcome
from roost_platform.metering.auditing import Auditor
from roost_platform.metering.intents import Intents
from roost_platform.metering.journal import Journal
from roost_platform.metering.ledger import gaps
from roost_platform.metering.lines import encode, encode_batch, event_values, hours_of
from roost_platform.metering.recording import record
from roost_platform.metering.refusals import MINUTE_US
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


# Conflicts


def batch(*events: Any) -> bytes:
    return encode_batch([encode(event_values(each)) for each in events])


async def shipped(folder: Path, database: Database, name: str, text: bytes) -> Shipper:
    journal = folder / "journal"
    journal.mkdir(exist_ok=True)
    (journal / f"{name}.jsonl").write_bytes(text)
    shipper = Shipper(journal_folder=journal, database=database)
    await shipper.drain()
    return shipper


def conflicts_in(connection: Connection) -> list[dict[str, Any]]:
    query = select(ledger_conflicts).order_by(ledger_conflicts.c.id, ledger_conflicts.c.content)
    return [dict(row) for row in connection.execute(query).mappings()]


CHANGES = [
    {"compute_us": 1501}, {"rows": 2}, {"bytes_in": 101}, {"bytes_out": 59}, {"queue_us": 0}, {"tenant": "other"},
    {"model": "other"}, {"version": 2}, {"status": 201}, {"outcome": Outcome.MODEL_ERROR}, {"request_id": "other"},
    {"cold_start_us": 1}, {"time": NOON + timedelta(microseconds=1)}, {"requests": 2, "request_id": "more"},
]  # fmt: skip


@pytest.mark.parametrize("way", ["lines", "rows"])
async def test_the_same_key_with_other_content_is_put_aside_and_the_first_is_kept(tmp_path, way):
    first = [event(number) for number in range(3)]
    others = [replace(first[1], **change) for change in CHANGES]
    with ledger_in(tmp_path) as database:
        await database.write(record, first)
        if way == "rows":
            for each in others:
                assert await database.write(record, [event(0), each]) == 0
        else:
            shipper = await shipped(tmp_path, database, "run-1", batch(first[0], *others, first[2]))
            assert (shipper.shipped, shipper.repeated, shipper.conflicts) == (0, 2, len(others))
        assert await database.read(request_ids) == ["r0", "r1", "r2"]
        assert await database.read(lambda c: c.scalar(select(func.sum(usage_events.c.requests)))) == 3
        found = await database.read(conflicts_in)
        values = [[*event_values(each)[:15], each.requests] for each in others]
        assert sorted(json.loads(row["content"]) for row in found) == sorted(values)
        for row in found:
            assert (row["source"], row["id"]) == ("run", "1")
            assert row["content_hash"] == sha256(row["content"].encode()).hexdigest()
            assert abs(row["seen_at"] - datetime.now(UTC)) < HOUR
        again = await shipped(tmp_path, database, "copy-1", batch(*first, *others))
        assert (again.shipped, again.repeated, again.conflicts) == (0, 3 + len(others), 0), "each is told of once"
        assert await database.read(conflicts_in) == found


async def test_two_of_one_batch_that_differ_are_a_conflict_and_growing_sums_are_none(tmp_path, caplog):
    total = event(0, **REFUSED)
    sums = [replace(total, requests=n, queue_us=20 * n, bytes_in=100 * n, bytes_out=60 * n) for n in (1, 2, 3)]
    other = replace(sums[1], request_id="another")
    with ledger_in(tmp_path) as database:
        fine = await shipped(tmp_path, database, "run-1", batch(*sums, event(1), event(2)))
        assert fine.conflicts == 0
        again = await shipped(tmp_path, database, "run-2", batch(*sums[::-1], event(1)))
        assert (again.shipped, again.conflicts) == (0, 0)
        assert await database.read(conflicts_in) == []
        assert caplog.records == []
        both = await shipped(tmp_path, database, "run-3", batch(event(3), replace(event(3), rows=9), sums[0], other))
        assert (both.shipped, both.conflicts) == (1, 2)
        (told,) = caplog.records
        assert (told.message, told.levelname, told.events) == ("ledger_conflicts", "ERROR", 2)
        assert {row["id"] for row in await database.read(conflicts_in)} == {"0", "3"}
        held = await database.read(lambda c: c.execute(select(usage_events).order_by(usage_events.c.sequence)).all())
    assert [(row.sequence, row.requests, row.request_id) for row in held] == [
        (0, 3, "r0"), (1, 1, "r1"), (2, 1, "r2"), (3, 1, "r3"),
    ]  # fmt: skip


async def test_a_sum_that_grew_never_takes_over_anothers_row(tmp_path):
    """More requests under a known key, but of another call: it is put aside, and what is there does not grow."""
    with ledger_in(tmp_path) as database:
        await database.write(record, [event(0)])
        grown = event(0, **REFUSED, requests=40, bytes_in=4000)
        shipper = await shipped(tmp_path, database, "run-1", batch(grown))
        assert (shipper.shipped, shipper.conflicts) == (0, 1)
        (row,) = await database.read(lambda c: c.execute(select(usage_events)).mappings().all())
        assert (row["requests"], row["bytes_in"], row["outcome"]) == (1, 100, "ok")


# Hours whose roll-ups are behind


def marks_in(connection: Connection) -> dict[tuple[str, str, datetime], int]:
    return {tuple(row[:3]): row.marks for row in connection.execute(select(dirty_hours))}


@pytest.mark.parametrize("way", ["lines", "rows", "lines that do not fit"])
async def test_the_hours_that_usage_is_added_to_are_marked_with_it(tmp_path, way):
    noon = NOON_US
    made = [
        event(0, time=NOON - timedelta(microseconds=1)), event(1, time=NOON), event(2, time=NOON + HOUR / 2),
        event(3, time=NOON + HOUR - timedelta(microseconds=1)), event(4, tenant="b-2", time=NOON),
        event(5, time=datetime(2026, 2, 28, 23, 59, 59, 999999, UTC)),
    ]  # fmt: skip
    hours = {
        ("calls", "acme", NOON - HOUR): 1,
        ("calls", "acme", NOON): 1,
        ("calls", "b-2", NOON): 1,
        ("calls", "acme", datetime(2026, 2, 28, 23, tzinfo=UTC)): 1,
    }
    with ledger_in(tmp_path) as database:
        if way == "rows":
            await database.write(record, made)
        else:
            extra = [] if way == "lines" else [replace(made[0], sequence=6, tenant='"quoted"\n')]
            await shipped(tmp_path, database, "run-1", batch(*made, *extra))
            if extra:
                hours["calls", '"quoted"\n', NOON - HOUR] = 1
        assert await database.read(marks_in) == hours
        await database.write(record, [event(6 + len(hours), time=NOON)])
        assert (await database.read(marks_in))["calls", "acme", NOON] == 2
    assert noon // MINUTE_US % 60 == 0


async def test_usage_and_its_marks_are_added_together_or_not_at_all(tmp_path):
    def record_and_fail(connection: Connection) -> None:
        record(connection, [event(0)])
        raise RuntimeError

    with ledger_in(tmp_path) as database:
        with pytest.raises(RuntimeError):
            await database.write(record_and_fail)
        assert await database.read(marks_in) == {}
        assert await database.read(request_ids) == []
        await database.write(record, [event(0)])
        await database.write(lambda c: c.execute(update(dirty_hours).values(marks=41)) and None)
        await database.write(record, [event(1)])
        assert await database.read(marks_in) == {("calls", "acme", NOON): 42}


def test_hours_are_read_from_lines_of_any_tenant_and_time():
    made = [event(n, tenant=t, time=at) for n, (t, at) in enumerate(
        (t, at)
        for t in ("acme", "a", "b-2", 'quo"ted\\', "ümlaut")
        for at in (NOON, NOON + 0.999 * HOUR, datetime(1999, 12, 31, 23, 59, tzinfo=UTC), datetime(2400, 1, 1, tzinfo=UTC))
    )]  # fmt: skip
    for each in [[one] for one in made] + [made]:
        lines = b"".join(encode(event_values(one)) for one in each)
        assert hours_of(lines) == {(one.tenant, one.time.replace(minute=0, second=0, microsecond=0)) for one in each}
    assert hours_of(b"") == set()
    assert now() > NOON
