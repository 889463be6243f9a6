"""The outbox: what tenants held gets into the database once, and whoever tells of it neither waits nor fails."""

import asyncio
import errno
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from databases import url_of
from metering_faulty import FaultyFiles
from metering_parts import ledger_in
from resource_parts import NOON, conflicts, dirty, held, stretch
from roost_platform.database.connection import Database
from roost_platform.database.tables import metadata
from roost_platform.metering.files import Files
from roost_platform.metering.outbox import Outbox
from roost_platform.metering.outbox_shipper import OutboxShipper
from roost_platform.metering.resource_lines import decode_lines, encode_usage
from roost_platform.metering.resources import told_until


def told(folder: Path, *usages: object, source: str = "run", **options: object) -> Outbox:
    """An outbox that was told of these, and closed."""
    outbox = Outbox(folder / "outbox", source=source, **options)
    for usage in usages:
        outbox.tell(usage)
    outbox.close()
    return outbox


def shipper_of(folder: Path, database: Database, **options: int) -> OutboxShipper:
    return OutboxShipper(folder=folder / "outbox", database=database, **options)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "outbox").iterdir())


async def test_what_was_told_is_in_the_database_as_it_was_and_its_hours_are_marked(tmp_path, each_database):
    usages = [stretch(number, version=number % 3, final=number == 9, cold_starts=number % 2) for number in range(10)]
    usages.append(stretch(400, tenant="umbrella", start=NOON + timedelta(hours=1, microseconds=1)))
    outbox = told(tmp_path, *usages, segment_bytes=900)
    assert (outbox.written, outbox.dropped, outbox.failures, outbox.waiting) == (11, 0, 0, 0)
    with ledger_in(tmp_path) as database:
        shipper = shipper_of(tmp_path, database, stretch_bytes=700)
        await shipper.drain()
        assert sorted(await database.read(held), key=lambda usage: usage.start) == usages
        assert set(await database.read(dirty)) == {
            ("resources", "acme", NOON),
            ("resources", "umbrella", NOON + timedelta(hours=1)),
        }
    assert (shipper.shipped, shipper.repeated, shipper.conflicts, shipper.damaged) == (11, 0, 0, 0)
    assert left(tmp_path) == []


async def test_the_same_again_changes_nothing_and_another_under_its_key_is_put_aside(tmp_path, each_database):
    first, other = stretch(1), stretch(1, active_us=1, idle_us=9_999_999)
    with ledger_in(tmp_path) as database:
        shipper = shipper_of(tmp_path, database)
        told(tmp_path, first, first, source="a")
        await shipper.drain()
        marks = await database.read(dirty)
        for source, usage in (("b", first), ("c", other), ("d", other)):
            told(tmp_path, usage, source=source)
            await shipper.drain()
        assert await database.read(held) == [first]
        assert await database.read(conflicts) == [("run", "one/1")]
        assert await database.read(dirty) == marks
    assert (shipper.shipped, shipper.repeated, shipper.conflicts) == (1, 2, 1)


async def test_how_far_a_replica_was_told_of_is_found_by_its_ids(tmp_path, each_database):
    usages = [
        replace(stretch(number), source=source, id=f"{replica}/{1_795_398_295_000_000 + number}", replica=replica)
        for source, replica, number in (
            ("knative", "p1", 1),
            ("knative", "p1", 2),
            ("knative", "p10", 9),
            ("other", "p2", 5),
        )
    ]
    told(tmp_path, *usages)
    with ledger_in(tmp_path) as database:
        await shipper_of(tmp_path, database).drain()
        ends = await database.read(told_until, "knative", ["p1", "p10", "p2", "p"])
    assert ends == {"p1": stretch(2).end, "p10": stretch(9).end}


async def test_two_that_ship_the_same_files_at_once_store_all_of_it_once(tmp_path, each_database):
    usages = [stretch(number) for number in range(200)]
    told(tmp_path, *usages, segment_bytes=20_000)
    with ledger_in(tmp_path) as database, ledger_in(tmp_path) as other:
        one, two = shipper_of(tmp_path, database, stretch_bytes=4000), shipper_of(tmp_path, other, stretch_bytes=5000)
        await asyncio.gather(one.drain(), two.drain())
        assert {usage.id for usage in await database.read(held)} == {usage.id for usage in usages}
        assert await database.read(conflicts) == []
    assert one.shipped + two.shipped == 200
    assert left(tmp_path) == []


async def test_what_is_told_is_shipped_while_the_outbox_is_open(tmp_path, each_database):
    outbox = Outbox(tmp_path / "outbox", source="run")
    with ledger_in(tmp_path) as database:
        shipper = shipper_of(tmp_path, database, interval_s=0.01)
        running = asyncio.create_task(shipper.run())
        for number in range(3):
            outbox.tell(stretch(number))
            while len(await database.read(held)) <= number:  # noqa: ASYNC110 - the thread and the disk take their time
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        outbox.close()
        await shipper.drain()
        assert await database.read(held) == [stretch(number) for number in range(3)]
    assert shipper.repeated == 0, "what was shipped before is not read again"
    assert left(tmp_path) == []


async def test_while_the_database_is_away_it_waits_on_the_disk(tmp_path):
    outbox = Outbox(tmp_path / "outbox", source="run")
    outbox.tell(stretch(0))
    outbox.close()
    database = Database(url_of(tmp_path, empty=True))  # it has no tables
    shipper = shipper_of(tmp_path, database, interval_s=0.01)
    running = asyncio.create_task(shipper.run())
    await asyncio.sleep(0.1)
    assert shipper.unshipped_bytes > 0
    metadata.create_all(database.engine)
    while shipper.unshipped_bytes:  # noqa: ASYNC110 - the shipper takes its time
        await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert await database.read(held) == [stretch(0)]
    database.close()


async def test_what_finds_no_room_is_dropped_and_counted_and_the_next_one_that_does_is_kept(tmp_path, caplog):
    outbox = Outbox(tmp_path / "outbox", source="run", limit_bytes=1, segment_bytes=1, most_waiting=3)
    outbox.tell(stretch(0))
    while not outbox.written:  # noqa: ASYNC110 - so does the thread
        await asyncio.sleep(0.01)
    for number in range(1, 10):  # the first batch fills the folder: now everything waits in memory
        outbox.tell(stretch(number))
        await asyncio.sleep(0.03)
    assert outbox.waiting <= 4, "some were taken to be written; three more may wait"
    dropped = outbox.dropped
    assert dropped >= 5
    assert [record.message for record in caplog.records].count("held_resources_dropped") == 1
    with ledger_in(tmp_path) as database:
        shipper = shipper_of(tmp_path, database)
        while outbox.waiting:
            await shipper.drain()
            await asyncio.sleep(0.02)
        outbox.tell(stretch(10))
        outbox.close()
        outbox.tell(stretch(11))
        await shipper.drain()
        kept = {usage.id for usage in await database.read(held)}
    assert {"one/0", "one/1", "one/2"} <= kept
    assert len(kept) + outbox.dropped == 12
    assert outbox.dropped == dropped + 2 - ("one/10" in kept)


def full_disk(fails_at: int) -> FaultyFiles:
    """Its n-th call fails."""

    def before(number: int, _: str) -> None:
        if number == fails_at:
            raise OSError(errno.ENOSPC, "no space left on device")

    return FaultyFiles(before)


class HalfWritten(Files):
    """The first write takes half of what it is given, as on a disk that fills up with it."""

    calls = 0

    def write(self, descriptor: int, data: bytes) -> int:
        self.calls += 1
        return super().write(descriptor, data if self.calls > 1 else data[: len(data) // 2])


async def test_whichever_call_to_the_disk_fails_nothing_is_lost_that_the_disk_takes_later(tmp_path):
    half = HalfWritten()
    await survives(tmp_path / "half", half)
    assert half.calls > 1
    fails_at, files = 0, full_disk(0)
    while fails_at <= files.calls:
        fails_at += 1
        files = full_disk(fails_at)
        await survives(tmp_path / str(fails_at), files)
    assert fails_at > 8


async def survives(folder: Path, files: Files) -> None:
    usages = [stretch(number) for number in range(4)]
    outbox = told(folder, *usages, segment_bytes=1, files=files)
    assert (outbox.written, outbox.dropped) == (4, 0), "what failed is tried again at the end"
    with ledger_in(folder) as database:
        shipper = shipper_of(folder, database)
        await shipper.drain()
        assert await database.read(held) == usages
    assert shipper.damaged == 0
    assert [name for name in left(folder) if not name.endswith(".new")] == []


async def test_a_damaged_line_is_put_aside_and_the_others_are_saved(tmp_path):
    told(tmp_path, *(stretch(number) for number in range(3)))
    (name,) = left(tmp_path)
    path = tmp_path / "outbox" / name
    path.write_bytes(path.read_bytes().replace(b'"one/1"', b'"one/7"'))
    with ledger_in(tmp_path) as database:
        shipper = shipper_of(tmp_path, database)
        await shipper.drain()
        assert await database.read(held) == [stretch(0), stretch(2)]
    assert shipper.damaged == 1
    (kept,) = left(tmp_path)
    assert kept == "run-1-0.damaged"
    assert b"one/7" in (tmp_path / "outbox" / kept).read_bytes()


@pytest.mark.parametrize(
    "unfit",
    [
        {"tenant": "x" * 64},
        {"model": "a\0b"},
        {"idle_us": -1},
        {"load_us": 2**63},
        {"version": 2**31},
        {"replica": None},
    ],
)
async def test_what_the_table_cannot_hold_is_dropped_and_holds_up_nothing_behind_it(tmp_path, unfit):
    outbox = told(tmp_path, stretch(0), stretch(1, **unfit), stretch(2))
    assert (outbox.written, outbox.dropped) == (2, 1)
    with ledger_in(tmp_path) as database:
        await shipper_of(tmp_path, database).drain()
        assert await database.read(held) == [stretch(0), stretch(2)]


def test_a_line_that_is_read_is_what_was_written_whatever_its_values():
    usage = replace(stretch(1), id='\n"é\u2028[', start=NOON, byte_seconds=2**63 - 1, final=True)
    assert decode_lines(encode_usage(usage)) == ([usage], [])
    (line,) = encode_usage(usage).splitlines()
    for at in range(len(line)):
        broken = bytes([*line[:at], line[at] ^ 1, *line[at + 1 :]])
        found, damaged = decode_lines(broken + b"\n")
        assert not found
        assert damaged or len(broken) <= 8 or b"\n" in broken
