"""What comes again with other content is put aside, and the hours that usage is added to are marked in its transaction."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, func, select, update

from metering_parts import NOON, event, ledger_in, request_ids
from roost_platform.database.connection import Database
from roost_platform.database.money_tables import dirty_hours, ledger_conflicts
from roost_platform.database.tables import usage_events
from roost_platform.domain.usage import Outcome
from roost_platform.metering.lines import encode, encode_batch, event_values, hours_of
from roost_platform.metering.recording import record
from roost_platform.metering.shipper import Shipper

pytestmark = pytest.mark.usefixtures("each_database")

REFUSED: dict[str, Any] = {"outcome": Outcome.THROTTLED, "status": 429, "compute_us": 0, "rows": 0}
HOUR = timedelta(hours=1)


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
