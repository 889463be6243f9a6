"""Who is billed and when: deleted tenants, months that wait for lost runs; and what comes after: notes, marks, prices."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from closing_parts import BOOKS, DAY, DECEMBER, GRACE, HOUR, NOVEMBER, OCTOBER, bill, closer_in, corrections_of
from roost_gateway.money.due import find_due
from roost_platform.billing.months import month_of
from roost_platform.billing.notes import Note
from roost_platform.billing.statement_store import Mark
from roost_platform.billing.statements import Kind, Status
from roost_platform.domain.errors import Conflict, NotFound
from roost_platform.metering.intents import Left
from roost_platform.metering.progress import note_shipped
from roost_platform.metering.sources import close_source

pytestmark = pytest.mark.usefixtures("each_database")

INSTANT = timedelta(microseconds=1)


@pytest.fixture
def closer(tmp_path):
    with closer_in(tmp_path) as closer:
        yield closer


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
