"""The shipper: exactly once, whatever is repeated, interleaved or damaged."""

import asyncio
import shutil
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, func, select

from metering_parts import NOON, append, ledger_in, request_ids, segments
from roost_platform.database.connection import Database
from roost_platform.database.tables import journal_positions, metadata, usage_events
from roost_platform.domain.errors import Unavailable
from roost_platform.domain.usage import Outcome, UsageEvent
from roost_platform.metering.journal import Journal
from roost_platform.metering.ledger import gaps, record
from roost_platform.metering.lines import EPOCH
from roost_platform.metering.shipper import Shipper

pytestmark = pytest.mark.usefixtures("each_database")


async def _write(journal: Journal, *ids: str) -> None:
    for request_id in ids:
        append(journal, request_id)
    await journal.written()


async def _positions(database: Database) -> int:
    return await database.read(lambda c: c.scalar(select(func.count()).select_from(journal_positions)) or 0)


async def test_events_reach_the_ledger_while_their_segment_is_still_written_to(tmp_path):
    journal = Journal(tmp_path / "j", source="run")
    with ledger_in(tmp_path) as database:
        shipper = Shipper(journal_folder=tmp_path / "j", database=database)
        await _write(journal, "a", "b")
        assert shipper.unshipped_bytes > 0
        assert await shipper.ship_once() == 2
        assert await shipper.ship_once() == 0
        await _write(journal, "c")
        await shipper.drain()
        assert await database.read(request_ids) == ["a", "b", "c"]
        assert shipper.unshipped_bytes == 0
        assert shipper.shipped == 3
        assert shipper.repeated == 0
        assert segments(tmp_path / "j") == ["run-1.jsonl"]
        journal.close()


async def test_sealed_segments_are_deleted_with_their_positions_once_shipped(tmp_path):
    with ledger_in(tmp_path) as database:
        shipper = Shipper(journal_folder=tmp_path / "j", database=database)
        journal = Journal(tmp_path / "j", source="run", segment_bytes=150)
        for i in range(5):
            await _write(journal, f"r{i}")
        journal.close()
        await shipper.drain()
        assert segments(tmp_path / "j") == []
        assert await _positions(database) == 0
        assert await database.read(request_ids) == [f"r{i}" for i in range(5)]


async def test_a_batch_longer_than_a_stretch_is_shipped_whole(tmp_path):
    journal = Journal(tmp_path / "j", source="run")
    with ledger_in(tmp_path) as database:
        await _write(journal, *(f"r{i}" for i in range(100)))
        await _write(journal, *(f"s{i}" for i in range(3)))
        shipper = Shipper(journal_folder=tmp_path / "j", database=database, stretch_bytes=50)
        assert await shipper.ship_once() == 103
        journal.close()


async def test_a_torn_tail_of_a_dead_run_is_dropped(tmp_path):
    journal = Journal(tmp_path / "j", source="run")
    await _write(journal, "a")
    await _write(journal, "b", "c")
    journal.close()
    path = tmp_path / "j" / "run-1.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    with ledger_in(tmp_path) as database:
        shipper = Shipper(journal_folder=tmp_path / "j", database=database)
        await shipper.drain()
        assert await database.read(request_ids) == ["a"]
        assert await database.read(gaps, "run") == ()
        assert shipper.damaged == 0
        assert segments(tmp_path / "j") == []


async def test_a_damaged_line_is_logged_counted_kept_and_shows_as_a_gap(tmp_path, caplog):
    journal = Journal(tmp_path / "j", source="run")
    for name in ("aaaa", "bbbb", "cccc"):
        await _write(journal, name)
    journal.close()
    path = tmp_path / "j" / "run-1.jsonl"
    path.write_bytes(path.read_bytes().replace(b"bbbb", b"bXbb"))
    with ledger_in(tmp_path) as database:
        shipper = Shipper(journal_folder=tmp_path / "j", database=database)
        await shipper.drain()
        assert await database.read(request_ids) == ["aaaa", "cccc"]
        assert await database.read(gaps, "run") == (range(1, 2),)
    assert shipper.damaged == 1
    assert [record.message for record in caplog.records] == ["journal_line_damaged"]
    kept = segments(tmp_path / "j")
    assert kept == ["run-1-0.damaged"]
    assert b"bXbb" in (tmp_path / "j" / kept[0]).read_bytes()


async def test_damage_in_the_last_batch_is_not_taken_for_a_torn_tail(tmp_path):
    journal = Journal(tmp_path / "j", source="run")
    await _write(journal, "a")
    await _write(journal, "bbbb")
    journal.close()
    path = tmp_path / "j" / "run-1.jsonl"
    path.write_bytes(path.read_bytes().replace(b"bbbb", b"bXbb")[:-1])
    with ledger_in(tmp_path) as database:
        shipper = Shipper(journal_folder=tmp_path / "j", database=database)
        await shipper.drain()
    assert shipper.damaged == 1
    assert len(segments(tmp_path / "j")) == 1


async def test_an_event_that_the_ledger_cannot_hold_does_not_stop_those_around_it(tmp_path):
    journal = Journal(tmp_path / "j", source="run")
    append(journal, "a")
    append(journal, "end of days", time_us=2**62)
    append(journal, "c")
    await journal.written()
    with ledger_in(tmp_path) as database:
        shipper = Shipper(journal_folder=tmp_path / "j", database=database)
        assert await shipper.ship_once() == 2
        assert await database.read(request_ids) == ["a", "c"]
        assert (shipper.damaged, shipper.repeated) == (1, 0)
    assert segments(tmp_path / "j") == ["run-1-0.damaged", "run-1.jsonl"]
    journal.close()


@pytest.mark.parametrize(
    "moment", [NOON, NOON + timedelta(microseconds=1), datetime(2026, 2, 28, 23, 59, 59, 999999, UTC)]
)
async def test_what_was_appended_is_what_the_ledger_holds(tmp_path, moment):
    journal = Journal(tmp_path / "j", source="run")
    changes = {
        "tenant": "t", "model": "résnet \u2603\n'", "version": 7, "outcome": Outcome.THROTTLED, "status": 429,
        "compute_us": 2**62, "queue_us": 1, "cold_start_us": 2, "bytes_in": 3, "bytes_out": 4, "rows": 5,
    }  # fmt: skip
    append(journal, "a", time_us=(moment - EPOCH) // timedelta(microseconds=1), **changes)
    await journal.written()
    with ledger_in(tmp_path) as database:
        await Shipper(journal_folder=tmp_path / "j", database=database).drain()
        # The same event recorded directly is the same row.
        wanted = UsageEvent(source="run", sequence=0, time=moment, request_id="a", **changes)
        assert await database.write(record, [wanted]) == 0
        await database.write(record, [replace(wanted, source="other")])
        one, other = await database.read(lambda c: c.execute(select(usage_events)).all())
        assert one[1:] == other[1:]
        raw = await database.read(lambda c: c.exec_driver_sql("SELECT DISTINCT time FROM usage_events").all())
        assert len(raw) == 1
    journal.close()


@pytest.mark.sqlite  # PostgreSQL is really stopped in test_postgres_outage
async def test_nothing_is_lost_while_the_database_does_not_answer(tmp_path):
    journal = Journal(tmp_path / "j", source="run", segment_bytes=150)
    for i in range(5):
        await _write(journal, f"r{i}")
    with ledger_in(tmp_path) as database:
        metadata.drop_all(database.engine)
        shipper = Shipper(journal_folder=tmp_path / "j", database=database)
        for ask in (shipper.ship_once, shipper.drain):
            try:
                await ask()
            except Unavailable:
                continue
            raise AssertionError("a shipper that cannot ship must say so")
        metadata.create_all(database.engine)
        await shipper.drain()
        assert await database.read(request_ids) == [f"r{i}" for i in range(5)]
    journal.close()


async def test_every_drain_sees_what_was_written_before_it(tmp_path):
    journal = Journal(tmp_path / "j", source="run")
    with ledger_in(tmp_path) as database:
        shipper = Shipper(journal_folder=tmp_path / "j", database=database)

        async def call_and_look(name: str) -> bool:
            await _write(journal, name)
            await shipper.drain()
            return name in await database.read(request_ids)

        assert all(await asyncio.gather(*(call_and_look(f"r{i}") for i in range(30))))
        journal.close()


async def test_the_loop_ships_until_it_is_cancelled(tmp_path):
    journal = Journal(tmp_path / "j", source="run")
    with ledger_in(tmp_path) as database:
        shipper = Shipper(journal_folder=tmp_path / "j", database=database, interval_s=0.001)
        loop = asyncio.ensure_future(shipper.run())
        await _write(journal, "a")
        while not await database.read(request_ids):
            pass
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
        assert loop.cancelled()
        journal.close()


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("calls"), st.integers(1, 5)),
        st.tuples(st.just("ship"), st.integers(1, 2)),  # by one shipper, by two at once
        st.tuples(st.sampled_from(["new shipper", "forget", "copy", "new run"]), st.just(0)),
    ),
    max_size=25,
)


@settings(max_examples=25, deadline=None)
@given(steps=_STEPS, stretch=st.sampled_from([1, 300, 10**6]))
def test_any_interleaving_and_repetition_of_shipping_gives_the_same_ledger(steps, stretch):
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(_play(Path(name), steps, stretch))


async def _play(folder: Path, steps: list[tuple[str, int]], stretch: int) -> None:
    runs = 0
    calls: list[str] = []
    journal = Journal(folder / "j", source="run0", segment_bytes=300)
    with ledger_in(folder) as database:

        def make() -> Shipper:
            return Shipper(journal_folder=folder / "j", database=database, stretch_bytes=stretch)

        first, second = make(), make()
        for step, count in steps:
            if step == "calls":
                ids = [f"c{len(calls) + i:04}" for i in range(count)]
                await _write(journal, *ids)
                calls += ids
            elif step == "ship":
                await asyncio.gather(*(shipper.ship_once() for shipper in (first, second)[:count]))
            elif step == "new shipper":
                first = make()
            elif step == "forget":  # the positions are lost; and the shipper that knew them dies
                await database.write(lambda c: c.execute(delete(journal_positions)) and None)
                first = make()
            elif step == "copy":  # somebody restores an old copy of the journal beside the new one
                for path in list((folder / "j").glob("run*.jsonl")):
                    shutil.copy(path, path.with_name(f"copy-of-{path.name}"))
            else:
                runs += 1
                journal.close()
                journal = Journal(folder / "j", source=f"run{runs:03}", segment_bytes=300)
        journal.close()
        await make().drain()
        assert sorted(await database.read(request_ids)) == calls
        for run in range(runs + 1):
            assert await database.read(gaps, f"run{run:03}" if run else "run0") == ()
        assert segments(folder / "j") == []
