"""Reconciling calls: each check finds the difference that was planted for it, and says it in words."""

from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest
from sqlalchemy import delete, insert

from metering_parts import append, event, ledger_in, segments
from reconcile_parts import DECEMBER, NOVEMBER, NOW, asking, pairs, plant, the_finding
from roost_gateway.metrics.page import make_page
from roost_gateway.money.checks import calls
from roost_gateway.money.checks.check import Check, Finding, ThisRun, Verdict
from roost_gateway.predict.figures import PredictFigures
from roost_platform.database.money_tables import ledger_conflicts, sources, unknown_calls
from roost_platform.database.tables import usage_events
from roost_platform.domain.services import ServiceKey
from roost_platform.domain.usage import Outcome
from roost_platform.metering.journal import Journal
from roost_platform.metering.ledger import record
from roost_platform.metering.settling import Settler
from roost_platform.metering.shipper import Shipper

pytestmark = pytest.mark.usefixtures("each_database")


@pytest.fixture
def database(tmp_path):
    with ledger_in(tmp_path) as database:
        yield database


def run_row(source="run", **changes):
    row = {"source": source, "started_at": NOVEMBER, "closed_at": NOW, "opened": 5, "completed": 3, "unstored": 1}
    return row | {"unknown": 1} | changes


# A check


@pytest.mark.sqlite
def test_differences_that_cancel_each_other_out_are_two_differences():
    check = Check("calls", "left", "right")
    check.compare("a", 3, 2, "one more")
    check.compare("b", 2, 3, "one less")
    check.compare("c", 7, 7, "")
    assert pairs(check) == (Verdict.DIFFERS, 12, 12, 2, 3)
    assert check.findings == [
        Finding("a", 3, 2, Verdict.DIFFERS, "one more"),
        Finding("b", 2, 3, Verdict.DIFFERS, "one less"),
    ]
    assert [finding.difference for finding in check.findings] == [1, -1]


@pytest.mark.sqlite
def test_what_is_still_written_is_pending_and_something_wrong_beside_it_is_not_hidden():
    check = Check("calls", "left", "right")
    check.compare("a", 3, 2, "soon", pending=True)
    assert check.verdict is Verdict.PENDING
    check.compare("b", 3, 2, "never")
    check.compare("c", 3, 2, "soon", pending=True)
    assert check.verdict is Verdict.DIFFERS


@pytest.mark.sqlite
def test_a_hundred_findings_are_named_and_the_rest_is_counted():
    check = Check("calls", "left", "right")
    for number in range(103):
        check.compare(str(number), 1, 0, "lost")
    assert (len(check.findings), check.more_findings, check.difference) == (100, 3, 103)


@pytest.mark.sqlite
def test_a_long_period_is_asked_day_by_day_and_not_beyond_tomorrow(tmp_path):
    start = NOVEMBER.replace(day=21, hour=13)
    days = list(asking(None, tmp_path, start=start).days())
    edges = [start, *(NOVEMBER.replace(day=day) for day in (22, 23, 24))]
    assert days == list(pairwise(edges))


# Counters and the journal


@contextmanager
def gateway(database, folder, **run):
    """A journal, its shipper, and how a gateway would count."""
    journal = Journal(folder / "journal", source="run", sync_interval_s=0)
    shipper = Shipper(journal_folder=folder / "journal", database=database)
    intents = journal.intents
    counted = {
        "source": "run",
        "opened": lambda: intents.opened,
        "unstored": lambda: intents.unstored,
        "in_flight": lambda: 0,
        "answered": lambda: {"acme": 3},
    }
    try:
        yield journal, asking(database, folder, run=ThisRun(**(counted | run)), drain=shipper.drain)
    finally:
        journal.close()


async def three_calls(journal):
    for number in range(3):
        append(journal, f"r{number}")
    await journal.written()


@pytest.mark.sqlite
def test_a_gateway_goes_on_counting_the_calls_of_models_that_are_deleted():
    """Their series leave the metrics page; the ledger keeps their calls."""
    figures = PredictFigures(models=lambda: [ServiceKey("acme", "iris")])
    for tenant, model in (("acme", "iris"), ("acme", "gone"), ("rival", "gone"), ("acme", "gone")):
        figures.answered(ServiceKey(tenant, model), Outcome.OK, seconds=0.1, queue_us=0, cold_start_us=0)
    before = figures.metered_by_tenant()
    make_page(figures)()
    assert figures.metered_by_tenant() == before == {"acme": 3, "rival": 1}


async def test_a_gateways_counters_its_journal_and_the_ledger_agree(database, tmp_path):
    with gateway(database, tmp_path) as (journal, inquiry):
        await three_calls(journal)
        assert pairs(await calls.counters(inquiry)) == (Verdict.EQUAL, 3, 3, 0, 1)
        assert pairs(await calls.taken_on(inquiry)) == (Verdict.EQUAL, 3, 3, 0, 1)
        assert pairs(await calls.journal(inquiry)) == (Verdict.EQUAL, 0, 0, 0, 0)


async def test_a_call_that_was_answered_and_is_not_in_the_ledger_is_named(database, tmp_path):
    with gateway(database, tmp_path, answered=lambda: {"acme": 4, "rival": 1}) as (journal, inquiry):
        await three_calls(journal)
        check = await calls.counters(inquiry)
    assert pairs(check) == (Verdict.DIFFERS, 5, 3, 2, 2)
    acme, rival = check.findings
    assert (acme.scope, acme.left, acme.right) == ("tenant acme", 4, 3)
    assert acme.says == (
        "this gateway (run run) answered 4 calls since it started, but the ledger holds 3 of them: it lacks 1 call"
    )
    assert (rival.scope, rival.left, rival.right) == ("tenant rival", 1, 0)


@pytest.mark.sqlite
async def test_calls_in_flight_and_those_that_end_meanwhile_are_no_difference(database, tmp_path):
    counted = iter([{"acme": 2}, {"acme": 2}, {"acme": 9}])
    with gateway(database, tmp_path, answered=lambda: next(counted), in_flight=lambda: 1) as (journal, inquiry):
        await three_calls(journal)
        assert pairs(await calls.counters(inquiry)) == (Verdict.EQUAL, 3, 3, 0, 1)  # one is in flight, by then
    shown = iter([2, 9])
    with_more = replace(inquiry, run=replace(inquiry.run, answered=lambda: {"acme": next(shown)}))
    assert pairs(await calls.counters(with_more)) == (Verdict.EQUAL, 3, 3, 0, 1)


@pytest.mark.sqlite
async def test_a_call_that_was_taken_on_and_has_no_end_is_named(database, tmp_path):
    with gateway(database, tmp_path) as (journal, inquiry):
        journal.intents.open("acme", "iris", 1, "lost")
        await three_calls(journal)
        finding = the_finding(await calls.taken_on(inquiry))
    assert (finding.scope, finding.left, finding.right, finding.difference) == ("run run", 4, 3, 1)
    assert finding.says.startswith("4 calls ended here; 3 are in the ledger and 0 could not be stored")


@pytest.mark.sqlite
async def test_an_event_that_stays_in_the_journal_is_named(database, tmp_path):
    with gateway(database, tmp_path) as (journal, inquiry):
        await three_calls(journal)
        stuck = await calls.journal(asking(database, tmp_path))
        assert pairs(stuck) == (Verdict.DIFFERS, 3, 0, 3, 1)
        assert the_finding(stuck).says == (
            "3 events of the journal cannot be brought to the ledger; see the server's log"
        )
        await inquiry.drain()
        assert pairs(await calls.journal(asking(database, tmp_path))) == (Verdict.EQUAL, 0, 0, 0, 0)


@pytest.mark.sqlite
async def test_a_line_that_was_damaged_in_the_journal_is_found_in_three_places(database, tmp_path):
    """Its file, the gap it leaves in the sequence, and the run's balance."""
    folder = tmp_path / "journal"
    with gateway(database, tmp_path) as (journal, _):
        await three_calls(journal)
    (name,) = segments(folder)
    text = (folder / name).read_bytes()
    (folder / name).write_bytes(text.replace(b'"r1"', b'"rX"'))
    shipper = Shipper(journal_folder=folder, database=database)
    await shipper.drain()
    await Settler(journal_folder=folder, database=database, clock=lambda: NOW).settle()
    inquiry = asking(database, tmp_path, start=NOVEMBER - timedelta(days=9999))

    finding = the_finding(await calls.journal(inquiry))
    assert (finding.left, finding.right) == (1, 0)
    assert (
        finding.says
        == f"1 line could not be read: the ledger lacks what it held, which is kept in journal/{finding.scope[5:]}"
    )
    finding = the_finding(await calls.sequences(inquiry))
    assert (finding.scope, finding.left, finding.right) == ("run run", 3, 2)
    assert finding.says.startswith("missing: 1. Usage was lost")
    finding = the_finding(await calls.balances(inquiry))
    assert (finding.scope, finding.left, finding.right) == ("run run", 3, 2)


# What runs left behind


async def test_the_books_of_runs_that_ended_agree_with_the_ledger(database, tmp_path):
    await database.write(record, [event(0), event(1, requests=2, outcome=Outcome.THROTTLED, status=429)])
    unknown = {"source": "run", "number": 5, "time": NOW, "tenant": "acme", "model": "iris", "version": 1}
    await plant(database, insert(sources), run_row())
    await plant(database, insert(unknown_calls), unknown | {"request_id": "u"})
    inquiry = asking(database, tmp_path)
    assert pairs(await calls.balances(inquiry)) == (Verdict.EQUAL, 5, 5, 0, 1)
    assert pairs(await calls.completed(inquiry)) == (Verdict.EQUAL, 3, 3, 0, 1)
    assert pairs(await calls.unknown(inquiry)) == (Verdict.EQUAL, 1, 1, 0, 1)
    assert pairs(await calls.sequences(inquiry)) == (Verdict.EQUAL, 2, 2, 0, 1)


@pytest.mark.sqlite
@pytest.mark.parametrize(
    "row",
    [
        run_row(closed_at=None, opened=0),  # it still runs: nothing is written down yet
        run_row(closed_at=NOVEMBER - timedelta(days=1), completed=1),  # before the period
        run_row(started_at=DECEMBER, completed=1),  # after it
    ],
)
async def test_runs_that_go_on_or_lived_at_another_time_are_left_out(database, tmp_path, row):
    await plant(database, insert(sources), row)
    inquiry = asking(database, tmp_path)
    for check in (calls.balances, calls.completed, calls.unknown):
        assert pairs(await check(inquiry)) == (Verdict.EQUAL, 0, 0, 0, 0)


async def test_a_row_that_was_deleted_from_the_ledger_is_missed(database, tmp_path):
    await database.write(record, [event(number) for number in range(6)])
    await plant(database, insert(sources), run_row(opened=6, completed=6, unstored=0, unknown=0))
    await plant(database, delete(usage_events).where(usage_events.c.sequence.in_([2, 3, 5])))
    inquiry = asking(database, tmp_path)
    finding = the_finding(await calls.completed(inquiry))
    assert (finding.scope, finding.left, finding.right, finding.difference) == ("run run", 6, 3, 3)
    assert finding.says == "the ledger held 6 calls when the run was closed, now it holds 3: it lacks 3 calls"
    finding = the_finding(await calls.sequences(inquiry))
    assert (finding.left, finding.right) == (5, 3)  # that the last one is gone, only the books know
    assert finding.says.startswith("missing: 2 to 3. ")


@pytest.mark.sqlite
async def test_a_call_that_was_added_to_a_closed_run_is_one_too_many(database, tmp_path):
    await database.write(record, [event(number) for number in range(4)])
    await plant(database, insert(sources), run_row())
    assert the_finding(await calls.completed(asking(database, tmp_path))).says.endswith("it has 1 call too many")


async def test_gaps_are_looked_for_in_runs_with_events_in_the_period(database, tmp_path):
    october, december = NOVEMBER - timedelta(days=1), DECEMBER
    await database.write(record, [event(1, source="old", time=october), event(1, source="new", time=december)])
    await database.write(record, [event(1, source="late", time=october), event(2, source="late", time=december)])
    finding = the_finding(await calls.sequences(asking(database, tmp_path)))
    assert (finding.scope, finding.left, finding.right) == ("run late", 3, 2)


@pytest.mark.sqlite
async def test_a_balance_that_does_not_add_up_is_named(database, tmp_path):
    await plant(database, insert(sources), run_row(opened=7))
    finding = the_finding(await calls.balances(asking(database, tmp_path)))
    assert (finding.scope, finding.left, finding.right) == ("run run", 7, 5)
    assert finding.says.startswith("7 calls were opened, but 3 completed + 1 not stored + 1 unknown are 5")


@pytest.mark.sqlite
async def test_an_unknown_call_that_nobody_wrote_down_is_named(database, tmp_path):
    await plant(database, insert(sources), run_row())
    finding = the_finding(await calls.unknown(asking(database, tmp_path)))
    assert (finding.left, finding.right) == (1, 0)
    assert finding.says == "the run left 1 unknown call, but 0 are listed"


async def test_events_that_came_again_with_other_content_are_told_of(database, tmp_path):
    conflict = {"id": "7", "content_hash": "x", "content": "{}"}
    rows = [("run", NOVEMBER), ("other", NOVEMBER - timedelta(microseconds=1)), ("later", DECEMBER)]
    await plant(database, insert(ledger_conflicts), *({"source": s, "seen_at": at} | conflict for s, at in rows))
    check = await calls.conflicts(asking(database, tmp_path))
    assert pairs(check) == (Verdict.DIFFERS, 1, 0, 1, 1)
    assert the_finding(check).says.startswith("1 event came again with other content; the first counts")
