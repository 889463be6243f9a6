"""Months become final, once: after their grace, when they are complete; and what comes late is on the next statement (M5, M8)."""

import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete, insert, text, update
from sqlalchemy.exc import DBAPIError

from closing_parts import (
    DAY,
    DECEMBER,
    GRACE,
    HOUR,
    NOVEMBER,
    OCTOBER,
    Closer,
    bill,
    closer_in,
    corrections_of,
    migrated,
)
from metering_parts import event
from roost_platform.billing.months import parse_month
from roost_platform.billing.statement_store import Mark
from roost_platform.billing.statements import Status
from roost_platform.database.money_tables import call_hours, statement_marks, statements, unknown_calls
from roost_platform.database.tables import tenants, usage_events
from roost_platform.domain.errors import Conflict, InvalidRequest
from roost_platform.domain.resources import ResourceKind, ResourceUsage
from roost_platform.domain.usage import Outcome
from roost_platform.metering.corrections import Correction, record_corrections
from roost_platform.metering.resources import record_resources

pytestmark = pytest.mark.usefixtures("each_database")

INSTANT = timedelta(microseconds=1)


@pytest.fixture
def closer(tmp_path):
    with closer_in(tmp_path) as closer:
        yield closer


async def test_a_month_is_open_then_a_draft_and_final_after_its_grace(closer):
    await closer.use(OCTOBER)
    seen = []
    for now in (NOVEMBER - INSTANT, NOVEMBER, NOVEMBER + GRACE - INSTANT, NOVEMBER + GRACE, NOVEMBER + DAY):
        await closer.step_at(now)
        seen.append((await bill(closer)).status)
    assert seen == [Status.OPEN, Status.DRAFT, Status.DRAFT, Status.FINAL, Status.FINAL]
    assert (await bill(closer)).made_at == NOVEMBER + GRACE
    assert closer.closing.figures.finalized == 1


async def test_m5_each_moment_around_midnight_is_billed_in_one_month(closer):
    around = [NOVEMBER - timedelta(milliseconds=1), NOVEMBER - INSTANT, NOVEMBER, NOVEMBER + INSTANT]
    for number, time in enumerate(around):
        await closer.use(time, compute_us=10**number)
    await closer.step_at(DECEMBER + GRACE)
    billed = [await bill(closer, month) for month in ("2026-10", "2026-11")]
    assert [(each.status, each.charged_calls) for each in billed] == [(Status.FINAL, 2)] * 2


async def test_m5_what_is_held_over_midnight_is_billed_where_each_stretch_begins(closer):
    about = {"kind": ResourceKind.REPLICA, "tenant": "acme", "model": "iris", "version": 1, "resource_class": "cpu-1"}
    cut = [(NOVEMBER - 7 * INSTANT, NOVEMBER), (NOVEMBER, NOVEMBER + 5_000_000 * INSTANT)]
    stretches = [
        ResourceUsage(source="run", id=str(n), start=a, end=b, active_us=(b - a) // INSTANT, **about)
        for n, (a, b) in enumerate(cut)
    ]
    await closer.database.write(record_resources, stretches)
    await closer.step_at(DECEMBER + GRACE)
    lines = [line for month in ("2026-10", "2026-11") for line in (await bill(closer, month)).lines]
    assert [(line.quantity, str(line.amount), line.start) for line in lines] == [
        (7, "0.00", OCTOBER),
        (5_000_000, "5.00", NOVEMBER),
    ]


@pytest.mark.parametrize(
    ("used", "month", "ends"),
    [
        (datetime(2027, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), "2027-12", datetime(2028, 1, 1, tzinfo=UTC)),
        (datetime(2028, 2, 29, 12, tzinfo=UTC), "2028-02", datetime(2028, 3, 1, tzinfo=UTC)),
        (datetime(2027, 2, 28, 23, 59, tzinfo=UTC), "2027-02", datetime(2027, 3, 1, tzinfo=UTC)),
    ],
)
async def test_year_ends_and_leap_days_are_months_like_others(closer, used, month, ends):
    await closer.use(used)
    await closer.step_at(ends + GRACE - INSTANT)
    assert await closer.documents() == {}
    await closer.step_at(ends + GRACE)
    assert list(await closer.documents()) == [f"acme-{month}"]


async def test_a_clock_over_two_years_closes_each_month_once(closer):
    moments = [datetime(2027, 1, 1, tzinfo=UTC) + 23 * DAY * number for number in range(33)]
    for now in moments:
        await closer.use(now)
        await closer.step_at(now)
    await closer.step_at(datetime(2029, 2, 1, 1, tzinfo=UTC))
    documents = await closer.documents()
    assert len(documents) == 25
    assert sum(json.loads(document)["charged_calls"] for document in documents.values()) == len(moments)


# Late usage


async def test_m8_usage_after_the_close_is_on_the_next_statement_and_the_closed_one_stays(closer):
    for _ in range(4):
        await closer.use(OCTOBER + DAY)
    await closer.step_at(NOVEMBER + GRACE)
    before = await closer.documents()
    for _ in range(3):
        await closer.use(OCTOBER + DAY)
    await closer.use(NOVEMBER)
    running = await bill(closer, "2026-11")
    await closer.step_at(DECEMBER + GRACE)
    november = await bill(closer, "2026-11")
    # 7 calls cost 5 + 2 / 2 - 2 of them free; 4 did cost 4 - 2.
    assert corrections_of(november) == corrections_of(running) == [("2026-10", 1, "1.00"), ("2026-10", 2, "1.00")]
    assert (str((await bill(closer)).total), str(november.total)) == ("2.00", "2.00")
    documents = await closer.documents()
    assert documents["acme-2026-10"] == before["acme-2026-10"]
    await closer.use(datetime(2026, 12, 5, tzinfo=UTC))
    await closer.step_at(datetime(2027, 1, 2, tzinfo=UTC))
    assert corrections_of(await bill(closer, "2026-12")) == []


async def test_m8_a_refund_is_given_back_on_the_next_statement(closer):
    for _ in range(4):
        await closer.use(OCTOBER + DAY)
    await closer.step_at(NOVEMBER + GRACE)
    before = await closer.documents()
    await add_tenant(closer)
    refund = Correction(
        source="/desk", id="1", time=OCTOBER + DAY, tenant="acme", model="iris", version=1, outcome=Outcome.OK, requests=-1,
        rows=-1, compute_us=-1500, bytes_in=-100, bytes_out=-60, corrects_source="run", corrects_sequence=2, reason="twice",
    )  # fmt: skip
    for _ in range(2):
        await closer.database.write(record_corrections, [refund], NOVEMBER + 2 * DAY)
    await closer.use(NOVEMBER)
    await closer.step_at(DECEMBER + GRACE)
    assert corrections_of(await bill(closer, "2026-11")) == [("2026-10", -1, "-1.00")]
    assert (await closer.documents())["acme-2026-10"] == before["acme-2026-10"]


async def add_tenant(closer, name="acme"):
    row = {"name": name, "quota": {}, "created_at": OCTOBER}
    await closer.database.write(lambda connection: connection.execute(insert(tenants).values(row)))


async def test_late_usage_alone_makes_a_statement_of_its_month(closer):
    await closer.use(NOVEMBER)
    await closer.step_at(DECEMBER + GRACE)
    await closer.use(OCTOBER + DAY)
    await closer.step_at(DECEMBER + DAY)
    assert list(await closer.documents()) == ["acme-2026-10", "acme-2026-11"]
    assert str((await bill(closer)).total) == "0.00"  # within the allowance
    assert corrections_of(await bill(closer, "2026-11")) == []


async def test_a_month_without_usage_has_a_statement_when_it_gives_something_back(closer):
    for _ in range(4):
        await closer.use(OCTOBER + DAY)
    await closer.step_at(NOVEMBER + GRACE)
    await closer.step_at(DECEMBER + GRACE)
    assert list(await closer.documents()) == ["acme-2026-10"]  # nothing to say about November
    await add_tenant(closer)
    refund = Correction(
        source="/desk", id="1", time=NOVEMBER - INSTANT, tenant="acme", model="iris", version=1, outcome=Outcome.OK,
        requests=-2, rows=0, compute_us=0, bytes_in=0, bytes_out=0, corrects_source="", corrects_sequence=0, reason="x",
    )  # fmt: skip
    await closer.database.write(record_corrections, [refund], DECEMBER + 4 * DAY)
    await closer.step_at(DECEMBER + 4 * DAY)
    assert corrections_of(await bill(closer, "2026-11")) == [("2026-10", -2, "-2.00")]
    for days in (5, 40, 70, 200):
        await closer.step_at(DECEMBER + days * DAY)
    assert list(await closer.documents()) == ["acme-2026-10", "acme-2026-11"]


async def test_an_older_month_that_closes_later_bills_no_correction_twice(closer):
    await closer.use(OCTOBER)
    await closer.step_at(NOVEMBER + GRACE)
    for _ in range(4):
        await closer.use(OCTOBER + DAY)
    await closer.use(DECEMBER)
    closer.now = datetime(2027, 1, 1, 1, tzinfo=UTC)
    await closer.statements.finalize("acme", parse_month("2026-12"))
    await closer.use(NOVEMBER)
    await closer.step_at(datetime(2027, 1, 2, tzinfo=UTC))
    assert list(await closer.documents()) == ["acme-2026-10", "acme-2026-11", "acme-2026-12"]
    assert len(corrections_of(await bill(closer, "2026-12"))) == 1
    assert corrections_of(await bill(closer, "2026-11")) == []


async def test_usage_that_comes_too_late_for_any_statement_is_counted_and_kept(closer):
    await closer.use(OCTOBER)
    await closer.step_at(NOVEMBER + GRACE)
    for months in (12, 13):
        await closer.use(datetime(2026 + months // 13, (months - 1) % 12 + 1, 2, tzinfo=UTC))
    await closer.step_at(datetime(2027, 2, 1, 1, tzinfo=UTC))
    await closer.use(OCTOBER + DAY)
    await closer.step_at(datetime(2027, 2, 2, tzinfo=UTC))
    assert closer.closing.figures.late_calls == 1
    await closer.use(datetime(2027, 2, 2, tzinfo=UTC))
    await closer.step_at(datetime(2027, 3, 2, tzinfo=UTC))
    assert corrections_of(await bill(closer, "2027-02")) == []
    assert closer.closing.figures.late_calls == 1


async def test_usage_of_a_clock_that_is_ahead_is_counted_until_its_time_has_come(closer):
    for ahead in (timedelta(minutes=5), timedelta(minutes=5) + INSTANT, DAY):
        await closer.use(NOVEMBER + ahead)
    seen = []
    for now in (NOVEMBER, NOVEMBER + HOUR, NOVEMBER + DAY):
        await closer.step_at(now)
        seen.append(closer.closing.figures.ahead_calls)
    assert seen == [2, 1, 0]
    assert (await bill(closer, "2026-11")).charged_calls == 3


# What is final


async def test_m8_the_database_itself_refuses_to_change_what_is_final(tmp_path):
    with migrated(tmp_path) as database:
        await _assert_unchangeable(Closer(database))


async def _assert_unchangeable(closer):
    await closer.use(OCTOBER)
    await closer.step_at(NOVEMBER + GRACE)
    await closer.statements.mark("acme-2026-10", Mark.PAID, "by bank")
    before = await closer.documents()
    for statement in (
        update(statements).values(total="0.00"),
        delete(statements),
        update(statement_marks).values(state="void"),
        delete(statement_marks),
        text("INSERT INTO statements SELECT * FROM statements"),
    ):
        with pytest.raises((DBAPIError, Conflict)):
            await closer.database.write(lambda connection, done=statement: connection.execute(done))
    assert await closer.documents() == before


async def test_a_month_is_final_only_once_whoever_asks(closer):
    await closer.use(OCTOBER)
    closer.now = NOVEMBER
    first = await closer.statements.finalize("acme", parse_month("2026-10"))
    await closer.use(OCTOBER)
    closer.now += HOUR
    assert await closer.statements.finalize("acme", parse_month("2026-10")) == first == await bill(closer)
    await closer.step_at(NOVEMBER + DAY)
    assert len(await closer.documents()) == 1


async def test_a_month_that_is_not_over_cannot_be_final(closer):
    closer.now = NOVEMBER - INSTANT
    with pytest.raises(InvalidRequest) as refused:
        await closer.statements.finalize("acme", parse_month("2026-10"))
    assert refused.value.code == "month_not_over"


async def test_the_inputs_hash_is_that_of_the_same_month_rated_again(closer):
    await closer.use(OCTOBER)
    closer.now = NOVEMBER
    draft = await bill(closer)
    final = await closer.statements.finalize("acme", parse_month("2026-10"))
    assert (draft.inputs_hash, draft.lines, draft.price_books) == (final.inputs_hash, final.lines, final.price_books)


async def test_roll_ups_that_are_wrong_cost_nobody_money(closer):
    for hour in range(3):
        await closer.use(OCTOBER + hour * HOUR)
    await closer.step_at(OCTOBER + DAY)
    await closer.database.write(lambda connection: connection.execute(update(call_hours).values(requests=1000)))
    # As a gateway of the release before would: it knows of no marks.
    row = asdict(event(3, time=OCTOBER + 5 * HOUR))
    await closer.database.write(lambda connection: connection.execute(insert(usage_events).values(row)))
    await closer.step_at(NOVEMBER + GRACE)
    assert (await bill(closer)).charged_calls == 4


async def test_unknown_calls_are_told_and_cost_nothing(closer):
    await closer.use(OCTOBER)
    row = {
        "source": "dead",
        "number": 1,
        "time": OCTOBER,
        "tenant": "acme",
        "model": "iris",
        "version": 1,
        "request_id": "r",
    }
    await closer.database.write(lambda connection: connection.execute(insert(unknown_calls).values(row)))
    await closer.step_at(NOVEMBER + GRACE)
    assert ((await bill(closer)).unknown_calls, (await bill(closer)).charged_calls) == (1, 1)
