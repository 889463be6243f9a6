"""Who waits for a turn of the journal without a task: told once, at once, whatever the others do."""

import asyncio

import pytest

from roost_platform.domain.errors import StorageFull
from roost_platform.metering.journal import Journal
from roost_platform.metering.syncer import Turn


async def test_everybody_is_told_once_even_when_one_of_them_fails():
    turn, told = Turn(), []

    def fails(error: StorageFull | None) -> None:
        raise RuntimeError("broken")

    for listener in (told.append, fails, told.append):
        turn.then(listener)
    turn.settle(None)
    assert told == [None, None]
    await turn


async def test_a_failure_is_told_and_nobody_need_await_it():
    turn, told = Turn(), []
    turn.then(told.append)
    turn.settle(StorageFull("no room"))
    assert [str(error) for error in told] == ["no room"]
    with pytest.raises(StorageFull):
        await turn


async def test_it_is_told_when_the_line_is_in_the_file(tmp_path):
    journal = Journal(tmp_path, source="run")
    seen: list[int] = []
    journal.append(
        time_us=1, tenant="acme", model="iris", version=1, outcome="ok", status=200, compute_us=1, queue_us=1,
        cold_start_us=0, bytes_in=1, bytes_out=1, rows=1, request_id="r",
    )  # fmt: skip
    journal.written().then(lambda _: seen.append(sum(path.stat().st_size for path in tmp_path.iterdir())))
    assert seen == []
    while not seen:  # noqa: ASYNC110 - the turn of the event loop, which ends it
        await asyncio.sleep(0)
    assert seen[0] > 50
    journal.close()
