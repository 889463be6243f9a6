"""Calls, late calls, refunds, changes of prices, month ends, notes, lost roll-ups, in any order: against a rater of thirty lines.

Whatever is final never changes, and in the end what was billed of each month is what all its usage costs. Prices are whole
cents, so that nothing is rounded here; rounding is in test_billing_rating.py and test_billing_late.py.
"""

import asyncio
import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import delete, insert

from closing_parts import DAY, HOUR, Closer
from metering_parts import event
from roost_platform.billing.lines import Category
from roost_platform.billing.months import month_of
from roost_platform.billing.notes import Note
from roost_platform.billing.price_file import load_price_books
from roost_platform.billing.statement_store import documents_of
from roost_platform.billing.statements import Kind
from roost_platform.database.connection import Database, sqlite_url
from roost_platform.database.money_tables import call_hours, resource_hours
from roost_platform.database.tables import metadata, tenants
from roost_platform.domain.errors import Conflict, NotFound
from roost_platform.domain.resources import ResourceKind, ResourceUsage
from roost_platform.domain.usage import BILLED_OUTCOMES, Outcome
from roost_platform.metering.corrections import Correction, record_corrections
from roost_platform.metering.hours import rebuild, refresh
from roost_platform.metering.recording import record
from roost_platform.metering.resources import record_resources

START = datetime(2027, 12, 5, tzinfo=UTC)  # a year's end and a leap day are near
AGES = st.builds(timedelta, hours=st.integers(0, 35 * 24))
MODELS = st.sampled_from(["a", "b"])


def costs(uses, books):
    """The reference: cents of one month's usage, unit by unit. `uses`: (time, model, charged calls, held seconds)."""

    def book_at(time):
        return max((book for book in books if book["from"] <= time), key=lambda book: book["from"])

    periods = sorted({book_at(time)["from"] for time, *_ in uses})
    cents = unit = 0
    for period in periods:
        book = book_at(period)
        mine = [use for use in uses if book_at(use[0]) is book]
        for model in sorted({model for _, model, *_ in mine}):
            for _ in range(sum(calls for _, name, calls, _ in mine if name == model)):
                unit += 1
                price = book["first"] if unit <= book["up_to"] else book["rest"]
                cents += 0 if unit <= book["free"] else price
        cents += sum(seconds for *_, seconds in mine) * book["active"]
    return cents


def price_file(books):
    parts = ['currency = "USD"']
    for number, book in enumerate(books):
        tiers = f'[{{ up_to = {book["up_to"]}, price = "{book["first"]}0000" }}, {{ price = "{book["rest"]}0000" }}]'
        parts += [
            "[[book]]",
            f'version = "v{number}"',
            f"effective_from = {book['from'].isoformat()}",
            "[book.prices]",
            f'requests = {{ mode = "graduated", tiers = {tiers} }}',
            f'active_seconds = "{Decimal(book["active"]) / 100}"',
            "[book.free]",
            f"requests = {book['free']}",
        ]
    return "\n".join(parts)


_PRICES = st.fixed_dictionaries(
    {"first": st.integers(1, 9), "rest": st.integers(0, 9), "up_to": st.integers(1, 9)}
    | {"free": st.integers(0, 4), "active": st.integers(0, 3)}
)


class Billing(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.database = Database(sqlite_url(Path(self.folder.name) / "roost.db"))
        metadata.create_all(self.database.engine)
        self.uses = []
        self.refundable = []
        self.number = 0
        self.final = {}

    def wait(self, awaitable):
        return self.runner.run(awaitable)

    def write(self, work, *args, **kwargs):
        return self.wait(self.database.write(work, *args, **kwargs))

    @initialize(prices=_PRICES)
    def begin(self, prices):
        self.books = [prices | {"from": START - 400 * DAY}]
        self.closer = Closer(self.database, now=START, books=load_price_books(price_file(self.books)))
        row = {"name": "acme", "quota": {}, "created_at": START}
        self.write(lambda connection: connection.execute(insert(tenants).values(row)))

    @rule(age=AGES, model=MODELS, outcome=st.sampled_from(Outcome), calls=st.integers(1, 4), again=st.booleans())
    def call(self, age, model, outcome, calls, again):
        time = self.closer.now - age
        made = []
        for _ in range(calls):
            made.append(event(self.number, time=time, model=model, outcome=outcome))
            self.number += 1
        for _ in range(1 + again):
            self.write(record, made)
        if outcome in BILLED_OUTCOMES:
            self.uses.append((time, model, calls, 0))
            self.refundable += made

    @rule(age=AGES, model=MODELS, seconds=st.integers(1, 5))
    def hold(self, age, model, seconds):
        start = self.closer.now - age
        self.number += 1
        held = ResourceUsage(
            source="run", id=str(self.number), kind=ResourceKind.REPLICA, start=start, end=start, tenant="acme", model=model,
            version=1, resource_class="cpu-1", active_us=seconds * 10**6,
        )  # fmt: skip
        self.write(record_resources, [held])
        self.uses.append((start, model, 0, seconds))

    @precondition(lambda self: self.refundable)
    @rule(data=st.data(), again=st.booleans())
    def refund(self, data, again):
        found = self.refundable.pop(data.draw(st.integers(0, len(self.refundable) - 1)))
        if found.time < self.closer.now - 35 * DAY:
            return
        correction = Correction(
            source="/desk", id=f"{found.sequence}", time=found.time, tenant="acme", model=found.model, version=found.version,
            outcome=found.outcome, requests=-1, rows=0, compute_us=0, bytes_in=0, bytes_out=0,
            corrects_source=found.source, corrects_sequence=found.sequence, reason="x",
        )  # fmt: skip
        for _ in range(1 + again):
            self.write(record_corrections, [correction], self.closer.now)
        self.uses.append((found.time, found.model, -1, 0))

    @rule(prices=_PRICES, ahead=st.builds(timedelta, minutes=st.integers(1, 30 * 24 * 60)))
    def new_prices(self, prices, ahead):
        moment = self.closer.now + ahead
        if moment > self.books[-1]["from"]:
            self.books.append(prices | {"from": moment})
            closing = self.closer.closing
            self.closer = Closer(self.database, now=self.closer.now, books=load_price_books(price_file(self.books)))
            self.closer.closing.figures = closing.figures

    @rule(hours=st.one_of(st.integers(1, 48), st.integers(1, 12 * 24)))
    def pass_time(self, hours):
        self.wait(self.closer.step_at(self.closer.now + hours * HOUR))

    @rule()
    def to_the_months_end(self):
        """From the last moment of the month over its end; in steps, for somebody always leads."""
        end = month_of(self.closer.now).end
        while self.closer.now < end + HOUR:
            self.wait(self.closer.step_at(min(self.closer.now + 12 * DAY, end + HOUR)))

    @rule()
    def finalize_by_hand(self):
        month = month_of(month_of(self.closer.now).start - HOUR)
        first = self.wait(self.closer.statements.finalize("acme", month))
        assert self.wait(self.closer.statements.finalize("acme", month)) == first

    @rule(limit=st.integers(1, 3))
    def roll_up(self, limit):
        self.write(refresh, limit)

    @rule()
    def lose_roll_ups(self):
        for table in (call_hours, resource_hours):
            self.write(lambda connection, gone=table: connection.execute(delete(gone)))
        self.write(rebuild, START - 60 * DAY, self.closer.now + DAY)

    @precondition(lambda self: self.final)
    @rule(data=st.data(), kind=st.sampled_from([Kind.CREDIT_NOTE, Kind.DEBIT_NOTE]), cents=st.integers(1, 50))
    def note(self, data, kind, cents):
        of = data.draw(st.sampled_from(sorted(self.final)))
        wanted = Note(kind, Decimal(cents) / 100, "x")
        try:
            first = self.wait(self.closer.statements.note(of, wanted))
        except (Conflict, NotFound):  # of a note, or more than is left
            return
        assert self.wait(self.closer.statements.note(of, wanted)) == first

    @invariant()
    def what_is_final_stays(self):
        if hasattr(self, "closer"):
            found = self.wait(self.closer.documents())
            assert {name: found[name] for name in self.final} == self.final
            self.final = found

    def teardown(self):
        try:
            if hasattr(self, "closer"):
                for _ in range(3):  # what came late is taken up within two months
                    self.to_the_months_end()
                    self.what_is_final_stays()
                self.all_is_billed()
        finally:
            self.runner.close()
            self.database.close()
            self.folder.cleanup()

    def all_is_billed(self):
        billed = Counter()
        for document in self.wait(self.database.read(documents_of, "acme")):
            if document.kind is Kind.STATEMENT:
                for line in document.lines:
                    month = line.month if line.category is Category.CORRECTION else str(document.month)
                    billed[month] += int(line.amount * 100)
        months = {str(month_of(time)) for time, *_ in self.uses}
        expected = Counter(
            {month: costs([use for use in self.uses if str(month_of(use[0])) == month], self.books) for month in months}
        )
        assert {k: v for k, v in billed.items() if v} == {k: v for k, v in expected.items() if v}


TestBilling = Billing.TestCase
TestBilling.settings = settings(max_examples=12, stateful_step_count=20, deadline=None)
