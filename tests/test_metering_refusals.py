"""Refusals are summed per minute, and no count is lost or doubled by order, repetition, a full disk or `kill -9`."""

import asyncio
import multiprocessing
import random
import resource
import shutil
from dataclasses import replace
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select

from metering_parts import NOON, NOON_US, append, event, ledger_in
from roost_platform.database.tables import usage_events
from roost_platform.domain.errors import StorageFull
from roost_platform.domain.usage import Outcome
from roost_platform.metering.journal import Journal
from roost_platform.metering.ledger import gaps, record, usage_report
from roost_platform.metering.lines import encode, encode_batch, event_values
from roost_platform.metering.refusals import MINUTE_US
from roost_platform.metering.shipper import Shipper

pytestmark = pytest.mark.usefixtures("each_database")

REFUSED: dict[str, Any] = {"outcome": Outcome.THROTTLED, "status": 429, "compute_us": 0, "rows": 0, "queue_us": 3}
processes = multiprocessing.get_context("forkserver")


def ledger(connection: Connection) -> list[tuple[Any, ...]]:
    row = usage_events.c
    query = select(row.sequence, row.outcome, row.requests, row.request_id).order_by(row.source, row.sequence)
    return [tuple(each) for each in connection.execute(query)]


async def ship(folder: Path, **options: int) -> list[tuple[Any, ...]]:
    with ledger_in(folder) as database:
        await Shipper(journal_folder=folder / "journal", database=database, **options).drain()
        assert await database.read(gaps, "run") == ()
        return await database.read(ledger)


async def test_the_refusals_of_a_kind_and_a_minute_are_one_row_with_their_sums(tmp_path: Path):
    journal = Journal(tmp_path / "journal", source="run", segment_bytes=2000)
    for number in range(300):
        append(journal, f"r{number}", time_us=NOON_US + number, **REFUSED)
        if number % 100 == 0:
            append(journal, f"good{number}")
        await journal.written()
    append(journal, "other status", **(REFUSED | {"outcome": Outcome.CLIENT_ERROR, "status": 400}))
    append(journal, "other model", **(REFUSED | {"model": "b"}))
    append(journal, "other minute", time_us=NOON_US + MINUTE_US, **REFUSED)
    append(journal, "same again", time_us=NOON_US + MINUTE_US, **REFUSED)
    for reason in ({"compute_us": 1}, {"cold_start_us": 1}, {"rows": 1}, {"outcome": Outcome.PLATFORM_ERROR}):
        append(journal, "no mere refusal", **(REFUSED | reason))
        append(journal, "no mere refusal", **(REFUSED | reason))
    await journal.written()
    journal.close()
    assert journal.events == 300 + 3 + 4 + 8
    rows = await ship(tmp_path, stretch_bytes=1000)
    assert rows[:8] == [
        (0, "throttled", 300, "r0"), (1, "ok", 1, "good0"), (2, "ok", 1, "good100"), (3, "ok", 1, "good200"),
        (4, "client_error", 1, "other status"), (5, "throttled", 1, "other model"),
        (6, "throttled", 2, "other minute"), (7, "throttled", 1, "no mere refusal"),
    ]  # fmt: skip
    assert len(rows) == 15
    with ledger_in(tmp_path) as database:
        report = await database.read(
            usage_report, tenant="acme", start=NOON, end=NOON.replace(day=4), group_by=("outcome",), model="iris"
        )
    figures = {row.keys["outcome"]: row.figures for row in report.rows}
    assert figures["throttled"].requests == figures["throttled"].errors == 300 + 2 + 6
    assert figures["throttled"].billed_requests == 0
    assert figures["throttled"].queue_us == 3 * 308
    assert figures["throttled"].bytes_in == 100 * 308
    assert (figures["ok"].requests, figures["ok"].billed_requests) == (3, 3)


@pytest.mark.parametrize("seed", range(5))
async def test_neither_order_nor_repetition_of_sums_matters(tmp_path: Path, seed: int):
    first = event(0, **REFUSED)
    sums = [replace(first, requests=n, queue_us=3 * n, bytes_in=100 * n, bytes_out=60 * n) for n in range(1, 40)]
    chance = random.Random(seed)
    sent = chance.sample(sums * 2, 2 * len(sums))
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "run-1.jsonl").write_bytes(
        b"".join(encode_batch([encode(event_values(each)) for each in sent[at : at + 7]]) for at in range(0, 30, 7))
    )
    with ledger_in(tmp_path) as database:
        await Shipper(journal_folder=tmp_path / "journal", database=database).ship_once()
        for each in sent[28:]:
            await database.write(record, [each])
        (row,) = await database.read(lambda c: c.execute(select(usage_events)).mappings().all())
    assert (row["requests"], row["queue_us"], row["bytes_in"], row["bytes_out"]) == (39, 117, 3900, 2340)
    assert row["time"] == NOON


async def test_a_journal_cut_anywhere_counts_what_was_answered_before(tmp_path: Path):
    """Each answered refusal ends a batch, so as many are counted as whole batches are left after `kill -9`."""
    journal = Journal(tmp_path / "journal", source="run")
    ends = []
    for number in range(12):
        append(journal, f"r{number}", **REFUSED)
        await journal.written()
        ends.append((tmp_path / "journal" / "run-1.jsonl").stat().st_size)
    journal.close()
    whole = (tmp_path / "journal" / "run-1.jsonl").read_bytes()
    for cut in [*ends, *(end - 1 for end in ends), *(end + 5 for end in ends[:-1])]:
        folder = tmp_path / str(cut)
        shutil.copytree(tmp_path / "journal", folder / "journal")
        (folder / "journal" / "run-1.jsonl").write_bytes(whole[:cut])
        answered = sum(end <= cut for end in ends)
        assert await ship(folder) == ([(0, "throttled", answered, "r0")] if answered else [])


async def test_a_call_that_cannot_be_encoded_is_in_no_sum(tmp_path: Path):
    journal = Journal(tmp_path / "journal", source="run")
    for bad in ("lone surrogate \ud800", "fine"):
        for model in ("iris", "\ud800"):
            if bad == "fine" and model == "iris":
                append(journal, bad, **REFUSED)
            else:
                with pytest.raises(TypeError):
                    append(journal, bad, **(REFUSED | {"model": model}))
    append(journal, "good")
    await journal.written()
    journal.close()
    assert await ship(tmp_path) == [(0, "throttled", 1, "fine"), (1, "ok", 1, "good")]


async def test_sums_are_exact_when_the_disk_refuses_some_batches(tmp_path: Path):
    results, sender = processes.Pipe(duplex=False)
    child = processes.Process(target=_fill_the_disk, args=(tmp_path, sender))
    child.start()
    answered, refused = results.recv()
    child.join()
    results.close()
    sender.close()
    assert refused
    assert answered
    rows = await ship(tmp_path)
    assert sum(requests for _, outcome, requests, _ in rows if outcome == "throttled") == 3 * answered
    assert sum(requests for _, outcome, requests, _ in rows if outcome == "ok") == answered
    assert 1 < len(rows) - answered <= refused + 1, "after each failure a new sum is begun, and only then"


def _fill_the_disk(folder: Path, pipe: Pipe) -> None:
    pipe.send(asyncio.run(_write_through(folder)))


async def _write_through(folder: Path) -> tuple[int, int]:
    journal = Journal(folder / "journal", source="run")
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
    answered = refused = 0
    for turn in range(60):
        for number in range(3):
            append(journal, f"{turn}-{number}", **REFUSED)
        append(journal, f"good{turn}")
        try:
            await journal.written()
        except StorageFull:
            refused += 1
        else:
            answered += 1
    journal.close()
    return answered, refused
