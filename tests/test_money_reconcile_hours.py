"""Reconciling roll-ups, replicas and the outbox: each check finds the difference that was planted for it."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import delete, insert, update

from metering_parts import event, ledger_in
from reconcile_parts import DECEMBER, NOVEMBER, asking, pairs, plant, the_finding
from roost_gateway.money.checks import hours, replicas
from roost_gateway.money.checks.check import Verdict
from roost_platform.database.money_tables import (
    call_hours,
    dirty_hours,
    resource_hours,
    resource_usage,
    usage_corrections,
)
from roost_platform.domain.resources import ResourceKind, ResourceUsage
from roost_platform.domain.usage import Outcome
from roost_platform.metering.ledger import record
from roost_platform.metering.outbox import Outbox
from roost_platform.metering.outbox_shipper import OutboxShipper
from roost_platform.metering.resources import record_resources

pytestmark = pytest.mark.usefixtures("each_database")

TEN = NOVEMBER.replace(day=3, hour=10)
SECOND = timedelta(seconds=1)
ROLLED_UP = {"tenant": "acme", "hour": TEN, "model": "iris", "version": 1, "outcome": "ok", "requests": 2, "rows": 2}
ROLLED_UP |= {"compute_us": 3000, "queue_us": 40, "cold_starts": 1, "cold_start_us": 9}
ROLLED_UP |= {"bytes_in": 200, "bytes_out": 120}


@pytest.fixture
def database(tmp_path):
    with ledger_in(tmp_path) as database:
        yield database


async def two_calls_and_their_hour(database, **changes):
    """At the first and the last instant of an hour."""
    last = TEN + timedelta(hours=1) - timedelta(microseconds=1)
    await database.write(record, [event(0, time=TEN), event(1, time=last, cold_start_us=9)])
    await plant(database, delete(dirty_hours))  # as if they were rolled up
    await plant(database, insert(call_hours), ROLLED_UP | changes)


# Roll-ups


async def test_hours_that_are_the_sums_of_their_calls_agree(database, tmp_path):
    await two_calls_and_their_hour(database)
    assert pairs(await hours.call_roll_ups(asking(database, tmp_path))) == (Verdict.EQUAL, 2, 2, 0, 1)


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("altered", "numbers", "words"),
    [
        ({"requests": 3}, (2, 3, 3), "requests 3 instead of 2"),
        ({"bytes_out": 121}, (120, 121, 2), "bytes_out 121 instead of 120"),
        ({"cold_starts": 0, "rows": 1}, (2, 1, 2), "rows 1 instead of 2, cold_starts 0 instead of 1"),
    ],
)
async def test_a_roll_up_that_was_altered_is_named_with_its_figures(database, tmp_path, altered, numbers, words):
    await two_calls_and_their_hour(database, **altered)
    check = await hours.call_roll_ups(asking(database, tmp_path))
    finding = the_finding(check)
    assert finding.scope == "tenant acme, 2026-11-03T10:00Z, iris 1 ok"
    assert finding.says == f"the roll-up has {words}; make the roll-ups again, after looking for the reason"
    assert (finding.left, finding.right, check.right) == numbers
    assert (check.verdict, check.left) == (Verdict.DIFFERS, 2)


@pytest.mark.sqlite
async def test_a_roll_up_that_is_not_there_is_missed_and_one_without_calls_is_too_much(database, tmp_path):
    await two_calls_and_their_hour(database, model="other")
    check = await hours.call_roll_ups(asking(database, tmp_path))
    here = "tenant acme, 2026-11-03T10:00Z, "
    assert [(finding.scope, finding.left, finding.right) for finding in check.findings] == [
        (f"{here}iris 1 ok", 2, 0),
        (f"{here}other 1 ok", 0, 2),
    ]
    assert (check.left, check.right, check.difference) == (2, 2, 4)


async def test_an_hour_that_waits_to_be_rolled_up_again_is_pending(database, tmp_path):
    await two_calls_and_their_hour(database, requests=1)
    await plant(database, insert(dirty_hours), {"kind": "calls", "tenant": "acme", "hour": TEN, "marks": 1})
    check = await hours.call_roll_ups(asking(database, tmp_path))
    assert pairs(check) == (Verdict.PENDING, 2, 1, 1, 1)
    assert the_finding(check).says == "the roll-up has requests 1 instead of 2; it waits to be made again"


@pytest.mark.sqlite
async def test_the_running_hour_is_not_waited_for(database, tmp_path):
    await two_calls_and_their_hour(database, requests=1)
    await plant(database, insert(dirty_hours), {"kind": "calls", "tenant": "acme", "hour": TEN, "marks": 1})
    inquiry = asking(database, tmp_path, now=TEN + timedelta(minutes=59))
    assert pairs(await hours.call_roll_ups(inquiry)) == (Verdict.EQUAL, 0, 0, 0, 0)


async def test_corrections_belong_to_the_hours_of_what_they_correct(database, tmp_path):
    await two_calls_and_their_hour(database, requests=1, rows=1, compute_us=1500, bytes_in=100, bytes_out=60)
    taken_back = {"requests": -1, "rows": -1, "compute_us": -1500, "bytes_in": -100, "bytes_out": -60}
    about = {"source": "op", "id": "1", "time": TEN, "recorded_at": DECEMBER, "tenant": "acme", "model": "iris"}
    about |= {"version": 1, "outcome": "ok", "corrects_source": "", "corrects_sequence": 0, "reason": "refund"}
    await plant(database, insert(usage_corrections), about | taken_back | {"content_hash": "x"})
    assert pairs(await hours.call_roll_ups(asking(database, tmp_path))) == (Verdict.EQUAL, 1, 1, 0, 1)


@pytest.mark.sqlite
async def test_hours_that_the_period_only_touches_are_compared_whole(database, tmp_path):
    await two_calls_and_their_hour(database)
    inquiry = asking(database, tmp_path, start=TEN + 60 * SECOND, end=TEN + 120 * SECOND)
    assert pairs(await hours.call_roll_ups(inquiry)) == (Verdict.EQUAL, 2, 2, 0, 1)
    outside = asking(database, tmp_path, start=NOVEMBER, end=TEN)
    assert pairs(await hours.call_roll_ups(outside)) == (Verdict.EQUAL, 0, 0, 0, 0)


@pytest.mark.sqlite
async def test_calls_of_every_outcome_and_version_have_a_group_of_their_own(database, tmp_path):
    await database.write(record, [event(0, time=TEN), event(1, time=TEN, outcome=Outcome.CANCELLED, status=499)])
    check = await hours.call_roll_ups(asking(database, tmp_path))
    assert [finding.scope for finding in check.findings] == [
        "tenant acme, 2026-11-03T10:00Z, iris 1 cancelled",
        "tenant acme, 2026-11-03T10:00Z, iris 1 ok",
    ]


# Replicas


def stretch(number: int, *, start: datetime | None = None, seconds: int = 10, **changes: object) -> ResourceUsage:
    """Of a replica that is idle; the one with `number` begins where the one before ended."""
    begin = start or TEN + number * seconds * SECOND
    values = {
        "source": "engine",
        "id": f"r-{number}",
        "kind": ResourceKind.REPLICA,
        "start": begin,
        "end": begin + seconds * SECOND,
        "tenant": "acme",
        "model": "iris",
        "version": 1,
        "revision": "iris-00001",
        "replica": "r",
        "resource_class": "cpu-1",
        "idle_us": seconds * 1_000_000,
    }
    return ResourceUsage(**(values | changes))


async def held(database, *stretches):
    await database.write(record_resources, stretches)
    await plant(database, delete(dirty_hours))


async def test_replicas_whose_stretches_follow_each_other_and_add_up_agree(database, tmp_path):
    await held(
        database,
        stretch(0, setup_us=4_000_000, idle_us=6_000_000),
        stretch(1, active_us=1, reserved_us=9_999_999, idle_us=0),
        stretch(2, final=True),
        stretch(0, id="s-0", replica="s"),
        stretch(9, id="x", kind=ResourceKind.STORAGE, replica="", resource_class="", idle_us=0, byte_seconds=5),
    )
    inquiry = asking(database, tmp_path)
    assert pairs(await replicas.states(inquiry)) == (Verdict.EQUAL, 40_000_000, 40_000_000, 0, 4)
    assert pairs(await replicas.chains(inquiry)) == (Verdict.EQUAL, 4, 4, 0, 4)


async def test_states_that_do_not_add_up_to_the_stretch_are_named(database, tmp_path):
    await held(database, stretch(0), stretch(1))
    await plant(database, update(resource_usage).where(resource_usage.c.id == "r-1").values(idle_us=10_000_001))
    check = await replicas.states(asking(database, tmp_path))
    assert (check.verdict, check.left, check.right, check.difference) == (Verdict.DIFFERS, 20_000_000, 20_000_001, 1)
    finding = the_finding(check)
    assert finding.scope == "tenant acme, iris, replica r, 2026-11-03T10:00:10+00:00"
    assert finding.says == "the stretch lasts 10,000,000 µs, but its states add up to 10,000,001 µs"


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (stretch(2), "nothing is known of the 0:00:10 before it: a stretch was lost, or deleted"),
        (stretch(1, start=TEN + 9 * SECOND), "it overlaps the one before by 0:00:01: that time is counted twice"),
    ],
)
async def test_a_stretch_that_does_not_follow_the_one_before_is_named(database, tmp_path, second, words):
    await held(database, stretch(0), second)
    check = await replicas.chains(asking(database, tmp_path))
    assert (check.verdict, check.left, check.right, check.difference) == (Verdict.DIFFERS, 2, 1, 1)
    finding = the_finding(check)
    assert finding.scope == f"tenant acme, iris, replica r, {second.start.isoformat()}"
    assert finding.says == words


@pytest.mark.parametrize("jump_s", [3600, -3])
async def test_a_clock_that_was_set_loses_no_stretch(database, tmp_path, jump_s):
    jumped = TEN + (10 + jump_s) * SECOND
    await held(database, stretch(0, id="r/1"), stretch(1, id="r/2", start=jumped))
    assert pairs(await replicas.chains(asking(database, tmp_path))) == (Verdict.EQUAL, 2, 2, 0, 2)
    await held(database, stretch(2, id="r/4", start=jumped + 20 * SECOND))
    finding = the_finding(await replicas.chains(asking(database, tmp_path)))
    assert finding.says == "nothing is known of the 0:00:10 before it: a stretch was lost, or deleted"


async def test_a_replica_that_ended_does_not_go_on(database, tmp_path):
    await held(database, stretch(0, final=True), stretch(1))
    finding = the_finding(await replicas.chains(asking(database, tmp_path)))
    assert finding.says == "the replica had ended at 2026-11-03T10:00:10+00:00, and yet it goes on"


async def test_a_chain_is_followed_over_midnight(database, tmp_path):
    midnight = TEN.replace(hour=0) + timedelta(days=1)
    before, after = stretch(0, start=midnight - 10 * SECOND), stretch(1, start=midnight)
    await held(database, before, after)
    assert pairs(await replicas.chains(asking(database, tmp_path))) == (Verdict.EQUAL, 2, 2, 0, 2)
    await plant(database, update(resource_usage).where(resource_usage.c.id == "r-0").values(end=midnight - SECOND))
    finding = the_finding(await replicas.chains(asking(database, tmp_path)))
    assert finding.says.startswith("nothing is known of the 0:00:01 before it")


async def test_hours_of_what_was_held_are_the_sums_of_its_stretches(database, tmp_path):
    await held(database, stretch(0), stretch(1, idle_us=0, active_us=10_000_000), stretch(2, tenant="rival", id="o"))
    rolled_up = {column.name: 0 for column in resource_hours.c} | {"tenant": "acme", "hour": TEN, "model": "iris"}
    rolled_up |= {"version": 1, "resource_class": "cpu-1", "idle_us": 10_000_000, "active_us": 10_000_000}
    await plant(database, insert(resource_hours), rolled_up, rolled_up | {"tenant": "rival", "active_us": 0})
    inquiry = asking(database, tmp_path)
    assert pairs(await hours.resource_roll_ups(inquiry)) == (Verdict.EQUAL, 30_000_000, 30_000_000, 0, 2)
    await plant(database, update(resource_hours).where(resource_hours.c.tenant == "rival").values(idle_us=1))
    finding = the_finding(await hours.resource_roll_ups(inquiry))
    assert (finding.scope, finding.left, finding.right) == (
        "tenant rival, 2026-11-03T10:00Z, iris 1 cpu-1",
        10_000_000,
        1,
    )


# The outbox


@pytest.mark.sqlite
async def test_what_stays_in_the_outbox_or_was_damaged_there_is_named(database, tmp_path):
    folder = tmp_path / "outbox"
    outbox = Outbox(folder, source="engine")
    for number in range(3):
        outbox.tell(stretch(number))
    outbox.close()
    stuck = await replicas.outbox(asking(database, tmp_path))
    assert pairs(stuck) == (Verdict.DIFFERS, 3, 0, 3, 1)
    assert the_finding(stuck).says == "3 lines of the outbox cannot be brought to the database; see the server's log"

    (segment,) = folder.glob("*.jsonl")
    segment.write_bytes(segment.read_bytes().replace(b'"r-1"', b'"r-X"'))
    shipper = OutboxShipper(folder=folder, database=database)
    check = await replicas.outbox(asking(database, tmp_path, drain=shipper.drain))
    finding = the_finding(check)
    assert (finding.left, finding.right) == (1, 0)
    assert finding.says.startswith("1 line could not be read: nobody is charged for what it held")
    assert the_finding(await replicas.chains(asking(database, tmp_path))).says.startswith("nothing is known of")
