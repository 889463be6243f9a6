"""Reconciling statements: what was altered in a final document, or became known after it, is found and said."""

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from sqlalchemy import insert, text, update
from sqlalchemy.exc import DBAPIError

from gateway_parts import database_in
from metering_parts import NOON, event, ledger_in
from reconcile_parts import DECEMBER, NOVEMBER, asking, pairs, plant, the_finding
from roost_gateway.money.checks import statements as checks
from roost_gateway.money.checks.check import Verdict
from roost_gateway.money.metered import metered
from roost_platform.billing.late import EarlierMonth
from roost_platform.billing.months import parse_month
from roost_platform.billing.notes import Note
from roost_platform.billing.price_file import default_price_books, load_price_books
from roost_platform.billing.statement_store import Mark, add_note, documents_of, keep, set_mark, state_of
from roost_platform.billing.statements import Kind, make_statement
from roost_platform.database.money_tables import statements, usage_corrections
from roost_platform.metering.ledger import record

pytestmark = pytest.mark.usefixtures("each_database")

MILLION = 1_000_000
MONTH = parse_month("2026-11")
CLOSED = DECEMBER.replace(hour=1)
MUCH_LATER = datetime(2027, 2, 1, tzinfo=UTC)
BOOKS = default_price_books()


@pytest.fixture
def database(tmp_path):
    with ledger_in(tmp_path) as database:
        yield database


@pytest.fixture
def protected(tmp_path):
    """One with the triggers that keep what is final."""
    database = database_in(tmp_path)
    yield database
    database.close()


def calls(sequence, millions=10, **changes):
    return event(sequence, **({"compute_us": 0, "bytes_out": 0, "rows": 0, "requests": millions * MILLION} | changes))


async def close(database, month=MONTH, now=CLOSED, earlier=()):
    """Make the month's statement final."""
    periods = BOOKS.periods(month.start, month.end, tenant="acme")
    edges = [month.start, *(period.end for period in periods)]
    usage = await database.read(metered, tenant="acme", edges=edges)
    made = make_statement(tenant="acme", month=month, usage=usage, books=BOOKS, now=now, earlier=earlier, final=True)
    return await database.write(keep, made, seen=await database.read(state_of, "acme"))


async def usage_of(database, month=MONTH):
    return tuple(await database.read(metered, tenant="acme", edges=[month.start, month.end]))


async def check_all(database, folder, **changes):
    """The verdicts of documents, calls and amounts; and their findings."""
    inquiry = asking(database, folder, **({"now": CLOSED} | changes))
    found = [await check(inquiry) for check in (checks.documents, checks.calls, checks.rated_again)]
    return [each.verdict for each in found], [each.findings for each in found]


async def tamper(database, **values):
    """What only somebody with the database's own password can do: the triggers refuse it otherwise."""
    change = update(statements).where(statements.c.id == "acme-2026-11").values(**values)
    with pytest.raises(DBAPIError):
        await plant(database, change)
    on_postgresql = database.engine.dialect.name == "postgresql"
    drop = "final_statements ON statements" if on_postgresql else "final_statements_update"
    await plant(database, text(f"DROP TRIGGER {drop}"))
    await plant(database, change)


async def altered(database, **values):
    """The document with some of its values replaced."""
    (document,) = await database.read(
        lambda connection: list(connection.scalars(statements.select().with_only_columns(statements.c.document)))
    )
    return json.dumps(json.loads(document) | values)


async def test_a_final_statement_its_calls_and_its_amounts_agree_with_the_ledger(database, tmp_path):
    await database.write(record, [calls(0), calls(1, 5, model="wine")])
    await close(database)
    await database.write(add_note, "acme-2026-11", Note(Kind.CREDIT_NOTE, Decimal("1.00"), "outage"), now=CLOSED)
    inquiry = asking(database, tmp_path, now=CLOSED)
    assert pairs(await checks.documents(inquiry)) == (Verdict.EQUAL, 200, 200, 0, 2)  # 3.00, and 1.00 given back
    assert pairs(await checks.calls(inquiry)) == (Verdict.EQUAL, 15 * MILLION, 15 * MILLION, 0, 1)
    assert pairs(await checks.rated_again(inquiry)) == (Verdict.EQUAL, 300, 300, 0, 1)


@pytest.mark.sqlite
async def test_statements_of_other_months_are_left_out(database, tmp_path):
    await database.write(record, [calls(0)])
    await close(database)
    for period in ({"end": NOVEMBER, "start": NOVEMBER.replace(month=10)}, {"start": DECEMBER, "end": MUCH_LATER}):
        inquiry = asking(database, tmp_path, now=MUCH_LATER, **period)
        assert pairs(await checks.documents(inquiry)) == (Verdict.EQUAL, 0, 0, 0, 0)


async def test_a_total_that_was_altered_beside_the_document_is_named(protected, tmp_path):
    await protected.write(record, [calls(0)])
    await close(protected)
    await tamper(protected, total="1.00")
    inquiry = asking(protected, tmp_path, now=CLOSED)
    check = await checks.documents(inquiry)
    assert pairs(check) == (Verdict.DIFFERS, 100, 200, 100, 1)
    assert the_finding(check).says == (
        "its total is 2.00, but 1.00 beside it. A final document never changes: compare it with a copy that was sent out"
    )


async def test_a_line_that_was_altered_is_named_even_if_the_total_was_too(protected, tmp_path):
    await protected.write(record, [calls(0)])
    made = await close(protected)
    assert made.total == Decimal("2.00")
    (line,) = json.loads(await altered(protected))["lines"]
    await tamper(
        protected, document=await altered(protected, total="1.50", lines=[line | {"amount": "1.50"}]), total="1.50"
    )
    inquiry = asking(protected, tmp_path, now=CLOSED)
    finding = the_finding(await checks.documents(inquiry))
    assert (finding.scope, finding.left, finding.right) == ("statement acme-2026-11", 150, 150)
    assert finding.says.startswith("line 1: the amount is 1.50, 10000000 at 0.20 per 1000000 are 2")
    finding = the_finding(await checks.rated_again(inquiry))
    assert (finding.left, finding.right) == (150, 200)


@pytest.mark.sqlite
@pytest.mark.parametrize("document", ["", "[]", "{}", '{"id": "acme-2026-11"}'])
async def test_a_document_that_cannot_be_read_is_named(database, tmp_path, document):
    await database.write(record, [calls(0)])
    await close(database)
    await plant(database, update(statements).values(document=document))
    verdicts, (found, *others) = await check_all(database, tmp_path)
    assert (verdicts[0], others) == (Verdict.DIFFERS, [[], []])
    assert found[0].says.startswith("it cannot be read. ")


async def test_usage_that_comes_late_is_pending_until_the_next_statement_has_brought_it(database, tmp_path):
    await database.write(record, [calls(0)])
    first = await close(database)
    await database.write(record, [calls(1, 5)])
    inquiry = asking(database, tmp_path, now=CLOSED)
    finding = the_finding(await checks.calls(inquiry))
    assert (finding.verdict, finding.left, finding.right) == (Verdict.PENDING, 10 * MILLION, 15 * MILLION)
    assert finding.says == (
        "the statement has 10,000,000 calls, now there are 15,000,000; the next statement will bring the difference"
    )
    finding = the_finding(await checks.rated_again(inquiry))
    assert (finding.verdict, finding.left, finding.right) == (Verdict.PENDING, 200, 300)
    assert finding.says == "1 line would be different now; the next statement will bring the difference"

    december, january = parse_month("2026-12"), datetime(2027, 1, 1, 1, tzinfo=UTC)
    late = EarlierMonth(MONTH, await usage_of(database), first.lines, (first.id,), first.price_books)
    await close(database, december, january, earlier=[late])
    assert pairs(await checks.rated_again(asking(database, tmp_path, now=january))) == (Verdict.EQUAL, 300, 300, 0, 1)


@pytest.mark.sqlite
async def test_usage_that_comes_too_late_for_any_statement_differs(database, tmp_path):
    await database.write(record, [calls(0)])
    await close(database)
    about = {"source": "op", "id": "1", "time": NOON, "recorded_at": DECEMBER, "tenant": "acme", "model": "iris"}
    about |= {"version": 1, "outcome": "ok", "requests": -10 * MILLION, "rows": 0, "compute_us": 0, "bytes_in": 0}
    about |= {"bytes_out": 0, "corrects_source": "", "corrects_sequence": 0, "reason": "refund", "content_hash": "x"}
    await plant(database, insert(usage_corrections), about)
    verdicts, (_, calls_found, amounts) = await check_all(database, tmp_path, now=MUCH_LATER)
    assert verdicts == [Verdict.EQUAL, Verdict.DIFFERS, Verdict.DIFFERS]
    assert (amounts[0].left, amounts[0].right) == (200, 0)
    for finding in (calls_found[0], amounts[0]):
        assert finding.says.endswith(
            "; no statement will bring the difference any more: write a credit or a debit note, if one is due"
        )


@pytest.mark.sqlite
async def test_a_void_statement_is_compared_with_itself_only(database, tmp_path):
    await database.write(record, [calls(0)])
    await close(database)
    await database.write(set_mark, "acme-2026-11", Mark.VOID, "", now=CLOSED)
    await database.write(record, [calls(1)])
    inquiry = asking(database, tmp_path, now=MUCH_LATER)
    assert pairs(await checks.documents(inquiry)) == (Verdict.EQUAL, 200, 200, 0, 1)
    assert pairs(await checks.rated_again(inquiry)) == (Verdict.EQUAL, 0, 0, 0, 0)


@pytest.mark.sqlite
async def test_prices_that_are_others_than_those_of_then_are_named(database, tmp_path):
    await database.write(record, [calls(0)])
    (made,) = [await close(database)]
    cheaper = """
        currency = "USD"
        [[book]]
        version = "2026-10"
        effective_from = 2026-10-01T00:00:00Z
        [book.prices]
        requests = "0.10"
        """
    finding = the_finding(
        await checks.rated_again(asking(database, tmp_path, now=CLOSED, books=load_price_books(cheaper)))
    )
    assert (finding.left, finding.right) == (200, 100)
    assert "with other prices than those of then (book/2026-10)" in finding.says
    assert await database.read(documents_of, "acme") == [made]
