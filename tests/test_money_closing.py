"""Months become final, once: after their grace, when they are complete; and what comes late is on the next statement (M5, M8)."""

import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import delete, insert, text, update
from sqlalchemy.exc import DBAPIError

from closing_parts import BOOKS, DAY, DECEMBER, GRACE, HOUR, NOVEMBER, OCTOBER, Closer, closer_in, migrated
from metering_parts import event
from roost_gateway.money.closing import find_due
from roost_platform.billing.lines import Category
from roost_platform.billing.months import month_of, parse_month
from roost_platform.billing.notes import Note
from roost_platform.billing.statement_store import Mark
from roost_platform.billing.statements import Kind, Status
from roost_platform.database.money_tables import call_hours, statement_marks, statements, unknown_calls
from roost_platform.database.tables import tenants, usage_events
from roost_platform.domain.errors import Conflict, InvalidRequest, NotFound
from roost_platform.domain.resources import ResourceKind, ResourceUsage
from roost_platform.domain.usage import Outcome
from roost_platform.metering.corrections import Correction, record_corrections
from roost_platform.metering.intents import Left
from roost_platform.metering.progress import note_shipped
from roost_platform.metering.resources import record_resources
from roost_platform.metering.sources import close_source

pytestmark = pytest.mark.usefixtures("each_database")

INSTANT = timedelta(microseconds=1)


@pytest.fixture
def closer(tmp_path):
    with closer_in(tmp_path) as closer:
        yield closer


async def bill(closer, month="2026-10", tenant="acme"):
    return await closer.statements.get(tenant, parse_month(month))


def corrections_of(statement):
    return [
        (line.month, line.quantity, str(line.amount))
        for line in statement.lines
        if line.category is Category.CORRECTION
    ]


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


# Who is billed, and when


async def test_deleted_tenants_and_all_others_are_billed(closer):
    for tenant in ("gone", "acme", "z"):
        await closer.use(OCTOBER, tenant=tenant)
    await closer.step_at(NOVEMBER + GRACE)
    assert list(await closer.documents()) == ["acme-2026-10", "gone-2026-10", "z-2026-10"]


async def test_months_that_were_over_long_before_are_closed_too_the_oldest_first(closer):
    for month in (1, 3, 10):
        await closer.use(datetime(2026, month, 5, tzinfo=UTC))
    due = await closer.database.read(find_due, before=NOVEMBER)
    assert [str(each.month) for each in due] == ["2026-01", "2026-03", "2026-10"]
    await closer.step_at(NOVEMBER + GRACE)
    assert list(await closer.documents()) == ["acme-2026-01", "acme-2026-03", "acme-2026-10"]


async def test_a_gateway_that_does_not_lead_closes_nothing(closer):
    await closer.use(OCTOBER)
    closer.leads = False
    await closer.step_at(NOVEMBER + GRACE)
    assert await closer.documents() == {}
    closer.leads = True
    await closer.step_at(NOVEMBER + GRACE)
    assert len(await closer.documents()) == 1


@pytest.mark.parametrize("told", ["shipped", "closed", "began later"])
async def test_a_month_waits_for_runs_that_may_still_have_usage_of_it(closer, told):
    await closer.use(OCTOBER)
    await closer.begin_run("run", OCTOBER)
    await closer.begin_run("other", NOVEMBER if told == "began later" else OCTOBER)
    await closer.step_at(NOVEMBER + GRACE)
    if told != "began later":
        assert (await closer.documents(), closer.closing.figures.waiting) == ({}, 1)
    if told == "shipped":
        await closer.database.write(note_shipped, "other", NOVEMBER - INSTANT)
        await closer.step_at(NOVEMBER + 2 * HOUR)
        assert await closer.documents() == {}
        await closer.database.write(note_shipped, "other", NOVEMBER)
    elif told == "closed":
        await closer.database.write(end_of, "other")
    await closer.step_at(NOVEMBER + 2 * HOUR)
    assert (len(await closer.documents()), closer.closing.figures.waiting) == (1, 0)


def end_of(connection, source):
    left = Left(source, 0, 0, 0, (), restarted=False)
    assert close_source(connection, left, completed=0, unknown=(), closed_at=NOVEMBER)


async def test_a_run_that_is_lost_holds_a_month_up_for_a_day_and_what_it_had_is_billed_later(closer):
    await closer.use(OCTOBER)
    await closer.begin_run("lost", OCTOBER)
    await closer.step_at(NOVEMBER + GRACE + DAY - INSTANT)
    assert await closer.documents() == {}
    await closer.step_at(NOVEMBER + GRACE + DAY)
    october = await bill(closer)
    assert october.status is Status.FINAL
    assert october.notes == (
        "1 run of a gateway had not told all usage when this became final; what comes of it is on a later statement.",
    )
    for _ in range(3):  # its disk is found, and started on another machine
        await closer.use(OCTOBER + DAY)
    await closer.use(NOVEMBER)
    await closer.step_at(DECEMBER + GRACE + DAY)
    assert corrections_of(await bill(closer, "2026-11")) == [("2026-10", 2, "2.00")]


async def test_this_run_says_how_far_it_has_brought_its_usage(closer):
    await closer.begin_run("run", OCTOBER)
    await closer.use(OCTOBER)
    await closer.step_at(NOVEMBER + timedelta(minutes=4))
    closer.now = NOVEMBER + GRACE
    await closer.closing.step()
    assert len(await closer.documents()) == 1


# Notes and marks


async def test_notes_are_documents_of_their_own_and_written_once(closer):
    for _ in range(5):
        await closer.use(OCTOBER)
    await closer.step_at(NOVEMBER + GRACE)
    credit = Note(Kind.CREDIT_NOTE, Decimal("1.00"), "an outage")
    first = await closer.statements.note("acme-2026-10", credit)
    assert await closer.statements.note("acme-2026-10", credit) == first
    second = await closer.statements.note("acme-2026-10", Note(Kind.CREDIT_NOTE, Decimal("1.00"), "another outage"))
    debit = await closer.statements.note("acme-2026-10", Note(Kind.DEBIT_NOTE, Decimal(7), "a fee"))
    assert [note.id for note in (first, second, debit)] == [f"acme-2026-10-{number}" for number in ("C1", "C2", "D1")]
    assert await closer.statements.get_note("acme", month_of(OCTOBER), "D1") == debit
    listed = await closer.statements.list("acme")
    assert [(each.id, each.kind, each.of, each.total, each.status) for each in listed] == [
        ("acme-2026-10", "statement", "", "3.00", "final"),
        ("acme-2026-10-C1", "credit_note", "acme-2026-10", "-1.00", "final"),
        ("acme-2026-10-C2", "credit_note", "acme-2026-10", "-1.00", "final"),
        ("acme-2026-10-D1", "debit_note", "acme-2026-10", "7.00", "final"),
    ]


async def test_notes_need_a_final_statement_that_is_owed(closer):
    await closer.use(OCTOBER)
    note = Note(Kind.CREDIT_NOTE, Decimal("0.01"), "x")
    with pytest.raises(NotFound):
        await closer.statements.note("acme-2026-10", note)
    for _ in range(5):
        await closer.use(OCTOBER)
    await closer.step_at(NOVEMBER + GRACE)
    written = await closer.statements.note("acme-2026-10", note)
    with pytest.raises(Conflict) as refused:
        await closer.statements.note(written.id, note)
    assert refused.value.code == "not_a_statement"
    await closer.statements.mark("acme-2026-10", Mark.VOID, "")
    with pytest.raises(Conflict) as refused:
        await closer.statements.note("acme-2026-10", Note(Kind.CREDIT_NOTE, Decimal("0.02"), "x"))
    assert refused.value.code == "statement_void"


async def test_a_mark_is_set_once_and_a_void_month_is_corrected_no_more(closer):
    await closer.use(OCTOBER)
    await closer.step_at(NOVEMBER + GRACE)
    closer.now = NOVEMBER + DAY
    for _ in range(2):
        assert (await closer.statements.mark("acme-2026-10", Mark.VOID, "")).status == "void"
    with pytest.raises(Conflict) as refused:
        await closer.statements.mark("acme-2026-10", Mark.PAID, "")
    assert refused.value.code == "statement_marked"
    for _ in range(5):
        await closer.use(OCTOBER)
    await closer.use(NOVEMBER)
    await closer.step_at(DECEMBER + GRACE)
    assert corrections_of(await bill(closer, "2026-11")) == []


async def test_a_change_of_prices_within_the_month_bills_each_call_at_its_price(closer):
    change = BOOKS.books[1].effective_from
    for time in (NOVEMBER, change - INSTANT, change, change + INSTANT):
        await closer.use(time)
    await closer.step_at(DECEMBER + GRACE)
    november = await bill(closer, "2026-11")
    assert [(line.price_book, line.quantity, str(line.amount)) for line in november.lines] == [
        ("2026-01", 2, "2.00"),
        ("2026-01", -2, "-2.00"),
        ("2026-11b", 2, "6.00"),
    ]
    assert list(november.price_books) == ["book/2026-01", "book/2026-11b"]
