"""Roll-ups by the hour: the same numbers as the events, whatever is behind, thrown away or added meanwhile."""

import asyncio
import itertools
import random
import threading
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime, timedelta

import pytest
from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, func, select, update

from databases import url_of
from metering_parts import event, ledger_in
from roost_platform.database import migrations
from roost_platform.database.connection import Database
from roost_platform.database.migrations import migrate
from roost_platform.database.money_tables import call_hours, dirty_hours, resource_hours
from roost_platform.database.tables import tenants, usage_events
from roost_platform.domain.resources import ResourceKind, ResourceUsage
from roost_platform.domain.usage import Outcome
from roost_platform.metering.corrections import Correction, record_corrections
from roost_platform.metering.hours import CallSum, ResourceSum, UsageSums, rebuild, refresh, usage_between
from roost_platform.metering.ledger import record
from roost_platform.metering.resources import record_resources

pytestmark = pytest.mark.usefixtures("each_database")

NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
INSTANT = timedelta(microseconds=1)
CORRECTED = ("requests", "rows", "compute_us", "bytes_in", "bytes_out")
_tenants = itertools.count()


@pytest.fixture
def database(tmp_path):
    with ledger_in(tmp_path) as database:
        yield database


def new_tenant(connection) -> str:
    """One that nobody has used yet: so one database does for many examples."""
    name = f"t{next(_tenants)}"
    connection.execute(tenants.insert().values(name=name, quota={}, created_at=NOVEMBER))
    return name


def summed(events, corrections, stretches, start, end) -> UsageSums:
    """The reference: one after the other, in Python."""
    calls, held = {}, {}
    amounts = [field.name for field in fields(CallSum)][3:]
    for each in events + corrections:
        if start <= each.time < end:
            woken = each.requests if getattr(each, "cold_start_us", 0) else 0
            sums = calls.setdefault((each.model, each.version, each.outcome), dict.fromkeys(amounts, 0))
            for name in amounts:
                sums[name] += woken if name == "cold_starts" else getattr(each, name, 0)
    amounts = [field.name for field in fields(ResourceSum)][3:]
    for each in stretches:
        if start <= each.start < end:
            sums = held.setdefault((each.model, each.version, each.resource_class), dict.fromkeys(amounts, 0))
            for name in amounts:
                sums[name] += getattr(each, name)
    return UsageSums(
        tuple(CallSum(*key, **sums) for key, sums in sorted(calls.items()) if any(sums.values())),
        tuple(ResourceSum(*key, **sums) for key, sums in sorted(held.items()) if any(sums.values())),
    )


def stretch(number: int, start: datetime = NOVEMBER, **changes) -> ResourceUsage:
    values = {"kind": ResourceKind.REPLICA, "model": "iris", "version": 1, "resource_class": "cpu-1", "tenant": "acme"}
    return ResourceUsage(source="run", id=str(number), start=start, end=start + INSTANT, **(values | changes))


_AMOUNT = st.integers(0, 2**40)
_MOMENTS = st.builds(
    lambda hours, us: NOVEMBER + timedelta(hours=hours, microseconds=us),
    st.integers(-1, 3),
    st.sampled_from([0, 1, 1_800_000_000, 3_599_999_999]),
)
_MODELS = {"model": st.sampled_from(["a", "b"]), "version": st.integers(0, 2)}
_CALLS = st.fixed_dictionaries(
    {"time": _MOMENTS, **_MODELS, "outcome": st.sampled_from(Outcome), "requests": st.integers(1, 3)}
    | dict.fromkeys(("rows", "compute_us", "queue_us", "cold_start_us", "bytes_in", "bytes_out"), _AMOUNT)
)
_STRETCHES = st.fixed_dictionaries(
    {"start": _MOMENTS, **_MODELS, "resource_class": st.sampled_from(["cpu-1", "gpu-1", ""])}
    | dict.fromkeys(("setup_us", "active_us", "reserved_us", "cold_starts", "load_us", "job_us"), _AMOUNT)
    | {"byte_seconds": st.one_of(_AMOUNT, st.integers(2**56, 2**57))}
)
_CORRECTIONS = st.fixed_dictionaries(
    {"time": _MOMENTS, **_MODELS, "outcome": st.sampled_from(Outcome)}
    | dict.fromkeys(CORRECTED, st.integers(-(2**40), 2**40))
)
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("calls"), st.lists(_CALLS, max_size=4)),
        st.tuples(st.just("stretches"), st.lists(_STRETCHES, max_size=4)),
        st.tuples(st.just("corrections"), st.lists(_CORRECTIONS, max_size=3)),
        st.tuples(st.just("refresh"), st.integers(1, 4)),
        st.tuples(st.just("rebuild"), st.tuples(_MOMENTS, _MOMENTS)),
        st.tuples(st.just("lose"), st.none()),
    ),
    max_size=8,
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_STEPS, asked=st.lists(st.tuples(_MOMENTS, _MOMENTS), min_size=1, max_size=3))
def test_the_sums_are_those_of_the_events_whatever_is_rolled_up(database, steps, asked):
    with database.engine.begin() as connection:
        tenant = new_tenant(connection)
        events, corrections, stretches = [], [], []
        for kind, given_ in steps:
            if kind == "calls":
                new = [event(len(events) + i, source=tenant, tenant=tenant, **each) for i, each in enumerate(given_)]
                record(connection, new)
                events += new
            elif kind == "stretches":
                new = [
                    replace(stretch(len(stretches) + i, tenant=tenant, **each), source=tenant)
                    for i, each in enumerate(given_)
                ]
                record_resources(connection, new)
                stretches += new
            elif kind == "corrections":
                about = {"corrects_source": "", "corrects_sequence": 0, "reason": "x", "tenant": tenant}
                new = [
                    Correction(source=tenant, id=str(len(corrections) + i), **about, **each)
                    for i, each in enumerate(given_)
                ]
                record_corrections(connection, new, now=NOVEMBER + 5 * HOUR)
                corrections += new
            elif kind == "refresh":
                refresh(connection, given_)
            elif kind == "rebuild":
                rebuild(connection, *sorted(given_))
            else:  # a cache may be lost
                for table in (call_hours, resource_hours):
                    connection.execute(delete(table).where(table.c.tenant == tenant))
                rebuild(connection, NOVEMBER - HOUR, NOVEMBER + 4 * HOUR)
        for start, end in map(sorted, asked):
            assert usage_between(connection, tenant, start, end) == summed(events, corrections, stretches, start, end)


async def test_rebuilt_roll_ups_are_the_same_rows(database):
    order = random.Random(5)
    events = [
        event(i, time=NOVEMBER + order.random() * 5 * HOUR, model=order.choice("ab"), compute_us=order.randrange(10**9))
        for i in range(200)
    ]
    await database.write(record, events)
    await database.write(record_resources, [stretch(i, NOVEMBER + i * HOUR / 9, active_us=i) for i in range(40)])
    assert len(await database.write(refresh, 1000)) == 10
    assert await database.read(behind) == 0
    first = await database.read(rows)
    await database.write(rebuild, NOVEMBER, NOVEMBER + 5 * HOUR)
    assert await database.read(rows) == first
    assert len(first) == 15
    assert await database.write(rebuild, NOVEMBER + HOUR + INSTANT, NOVEMBER + HOUR + 2 * INSTANT) == 2
    assert await database.read(rows) == first


async def test_an_hour_without_events_any_more_loses_its_roll_up(database):
    await database.write(record, [event(0), event(1, model="wine")])
    await database.write(refresh, 10)
    gone = delete(usage_events).where(usage_events.c.model == "wine")
    await database.write(lambda connection: connection.execute(gone))
    await database.write(rebuild, NOVEMBER, DECEMBER)
    assert [row.model for row in (await database.read(rows))] == ["iris"]


async def test_the_hours_that_run_are_left_alone_and_read_from_their_events(database):
    await database.write(record, [event(i, time=NOVEMBER + i * HOUR) for i in range(3)])
    assert len(await database.write(refresh, 10, before=NOVEMBER + 2 * HOUR)) == 2
    assert await database.read(behind) == 1
    (sums,) = (await database.read(usage_between, "acme", NOVEMBER, DECEMBER)).calls
    assert sums.requests == 3


async def test_the_oldest_hours_are_rolled_up_first_so_many_at_a_time(database):
    await database.write(record, [event(i, time=NOVEMBER + i * HOUR) for i in reversed(range(5))])
    assert [len(await database.write(refresh, 2)) for _ in range(4)] == [2, 2, 1, 0]


async def test_a_wrong_roll_up_is_put_right_by_a_rebuild(database):
    await database.write(record, [event(i) for i in range(3)])
    await database.write(refresh, 10)
    await database.write(lambda connection: connection.execute(update(call_hours).values(requests=7)))
    (sums,) = (await database.read(usage_between, "acme", NOVEMBER, DECEMBER)).calls
    assert sums.requests == 7  # a cache is believed
    await database.write(rebuild, NOVEMBER, DECEMBER)
    (sums,) = (await database.read(usage_between, "acme", NOVEMBER, DECEMBER)).calls
    assert sums.requests == 3


async def test_more_byte_seconds_than_sqlite_can_sum_are_summed(database):
    many = [stretch(i, NOVEMBER + i * HOUR, byte_seconds=2**62, resource_class="") for i in range(5)]
    await database.write(record_resources, many)
    for _ in range(2):  # from the events, then from the roll-ups
        (held,) = (await database.read(usage_between, "acme", NOVEMBER, DECEMBER)).resources
        assert held.byte_seconds == 5 * 2**62
        await database.write(refresh, 10)


async def test_nothing_is_missed_while_many_write_and_roll_up(database):
    """Whoever adds usage to an hour that is being rolled up waits, or is waited for."""
    done = threading.Event()

    async def keep_rolling_up():
        while not done.is_set():
            await database.write(refresh, 10)

    async def add(source):
        for sequence in range(25):
            time = NOVEMBER + (sequence % 3) * HOUR
            await database.write(record, [event(sequence, source=source, time=time)])
            found = await database.read(usage_between, "acme", NOVEMBER, DECEMBER)
            assert sum(call.requests for call in found.calls) > sequence

    rolling = [asyncio.create_task(keep_rolling_up()) for _ in range(2)]
    await asyncio.gather(*(add(f"run{i}") for i in range(4)))
    done.set()
    await asyncio.gather(*rolling)
    await database.write(refresh, 10)
    assert await database.read(behind) == 0
    (sums,) = (await database.read(usage_between, "acme", NOVEMBER, DECEMBER)).calls
    assert sums.requests == 100


def test_the_ledger_of_the_release_before_is_marked_by_the_migration(tmp_path):
    database = Database(url_of(tmp_path, "old.db", empty=True))
    migrate(database.engine)
    take_back_to(database.engine, "0003")
    with database.engine.begin() as connection:
        events = [asdict(event(i, time=NOVEMBER + i * HOUR / 2)) for i in range(4)]
        connection.execute(usage_events.insert(), events)
    migrate(database.engine)
    with database.engine.begin() as connection:
        marked = connection.execute(select(dirty_hours.c["kind", "tenant", "hour"]).order_by(dirty_hours.c.hour)).all()
        assert marked == [("calls", "acme", NOVEMBER), ("calls", "acme", NOVEMBER + HOUR)]
        assert len(refresh(connection, 10)) == 2
        (sums,) = usage_between(connection, "acme", NOVEMBER, DECEMBER).calls
        assert sums.requests == 4
    database.close()


def take_back_to(engine, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations.Path(migrations.__file__).parent))
    scripts = ScriptDirectory.from_config(config)
    with engine.begin() as connection:
        steps = {"fn": lambda current, _: scripts._downgrade_revs(revision, current)}
        context = MigrationContext.configure(connection, opts=steps)
        with Operations.context(context):
            context.run_migrations()


def rows(connection) -> list:
    return [
        row
        for table in (call_hours, resource_hours)
        for row in connection.execute(select(table).order_by(*table.primary_key))
    ]


def behind(connection) -> int:
    return connection.scalar(select(func.count()).select_from(dirty_hours))
