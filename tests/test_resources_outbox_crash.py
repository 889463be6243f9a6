"""The outbox under kill -9 before each of its steps: what was written is in the database, once; the rest is nobody's."""

from databases import url_of
from metering_parts import ledger_in
from resource_killed import STRETCHES, run_and_kill
from resource_parts import conflicts, dirty, held, stretch
from roost_platform.domain.hours import hour_of
from roost_platform.metering.outbox import Outbox
from roost_platform.metering.outbox_shipper import OutboxShipper

STRIDE = {"sqlite": 1, "postgresql": 6}
"""Of so many steps one is the last; a process and its connections take their time on PostgreSQL."""


async def test_killed_before_any_step_it_loses_nothing_that_was_written_and_stores_nothing_twice(
    tmp_path, each_database
):
    folder = tmp_path / "outbox"
    written: set[str] = set()
    runs, unharmed = 0, False
    with ledger_in(tmp_path) as database:
        while not unharmed:
            kill_at = 1 + runs * STRIDE[each_database]
            unharmed, acknowledged = run_and_kill(url_of(tmp_path), folder, f"run{runs:03}", kill_at=kill_at)
            written |= acknowledged
            runs += 1
        Outbox(folder, source="last").close()  # removes what was not named yet
        await OutboxShipper(folder=folder, database=database).drain()
        stored = await database.read(held)
        assert list(folder.iterdir()) == []
        assert await database.read(conflicts) == []
        marked = {hour for _, _, hour in await database.read(dirty)}
    names = {f"{usage.source}:{usage.id}" for usage in stored}
    assert len(names) == len(stored)
    assert written <= names
    assert runs >= 20 / STRIDE[each_database], "there are that many steps at least"
    assert len([usage for usage in stored if usage.source == f"run{runs - 1:03}"]) == STRETCHES
    for usage in stored:
        assert usage == stretch(int(usage.id.removeprefix("one/")), source=usage.source)
        assert hour_of(usage.start) in marked
