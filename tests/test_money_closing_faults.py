"""M9: the billing job fails at every statement, is killed, runs twice and beside itself: one document, always the same.

And whatever order the events come in, and however often, the document is the same.
"""

import asyncio
import itertools
import random
import re
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta

import pytest
from sqlalchemy import event as events

from closing_killed import close_and_be_killed, job
from closing_parts import BOOKS, DAY, DECEMBER, HOUR, NOVEMBER, OCTOBER, Closer, kept
from databases import url_of
from metering_parts import event, ledger_in
from roost_platform.billing.lines import Category
from roost_platform.billing.months import parse_month
from roost_platform.billing.statements import Status
from roost_platform.database.connection import Database
from roost_platform.domain.errors import Unavailable
from roost_platform.domain.resources import ResourceKind, ResourceUsage
from roost_platform.domain.usage import Outcome
from roost_platform.metering.recording import record
from roost_platform.metering.resources import record_resources

pytestmark = pytest.mark.usefixtures("each_database")

SEPTEMBER = datetime.fromisoformat("2026-09-10T00:00:00+00:00")
AT = NOVEMBER + HOUR


@pytest.fixture
def database(tmp_path):
    with ledger_in(tmp_path) as database:
        yield database


async def prepare(database: Database, tenant: str) -> None:
    """A final September with usage that came later, and an October to be closed."""
    closer = Closer(database, source=tenant, now=OCTOBER)
    await closer.use(SEPTEMBER, tenant=tenant)
    await closer.statements.finalize(tenant, parse_month("2026-09"))
    late = [event(number, source=tenant, tenant=tenant, time=SEPTEMBER) for number in (1, 2)]
    calls = [
        event(3 + number, source=tenant, tenant=tenant, time=OCTOBER, outcome=outcome)
        for number, outcome in enumerate([Outcome.OK, Outcome.MODEL_ERROR, Outcome.THROTTLED])
    ]
    await database.write(record, late + calls)


async def documents(database: Database, tenant: str) -> list[str]:
    """As they are kept, but for the tenant's name and the hash that it goes into."""
    found = (await database.read(kept)).items()
    mine = [text.replace(f'"{tenant}', '"acme') for name, text in found if name.startswith(f"{tenant}-2026")]
    return [re.sub('"inputs_hash":"[0-9a-f]{64}"', "", text) for text in mine]


@contextmanager
def failing(database: Database, number: int, *, lost: bool):
    """The statement of this number fails. `lost`: it is done all the same, and nobody hears; COMMITs are statements, too."""
    count = itertools.count(1)

    def before_statement(*_):
        if not lost and next(count) == number:
            raise Unavailable("the database is away")

    def after_statement(*_):
        if lost and next(count) == number:
            raise Unavailable("the answer is lost")

    def at_commit(connection):
        if next(count) == number:
            connection.connection.driver_connection.execute("COMMIT" if lost else "ROLLBACK")
            raise Unavailable("the connection is lost")

    hooks = (
        ("before_cursor_execute", before_statement),
        ("after_cursor_execute", after_statement),
        ("commit", at_commit),
    )
    for name, hook in hooks:
        events.listen(database.engine, name, hook)
    yield
    for name, hook in hooks:
        events.remove(database.engine, name, hook)
    failing.reached = next(count) > number  # type: ignore[attr-defined]


@pytest.mark.parametrize("lost", [False, True], ids=["refused", "done and not heard"])
async def test_m9_whichever_statement_fails_there_is_one_document_and_always_the_same(database, lost):
    await prepare(database, "sound")
    await job(database, "sound", AT)
    expected = await documents(database, "sound")
    assert len(expected) == 2
    for number in itertools.count(1):
        tenant = f"t{number}"
        await prepare(database, tenant)
        with failing(database, number, lost=lost), suppress(Unavailable):
            await job(database, tenant, AT)
        assert len(await documents(database, tenant)) in (1, 2)
        await job(database, tenant, AT)
        assert await documents(database, tenant) == expected, f"after a failure of statement {number}"
        if not failing.reached:
            break
    assert number > 20


@pytest.mark.parametrize(
    ("at", "after"),
    [
        ("DELETE FROM dirty_hours", False),
        ("INSERT INTO call_hours", True),
        ("SELECT statements.document", True),
        ("INSERT INTO statements", False),
        ("INSERT INTO statements", True),
        ("COMMIT", False),
        ("COMMIT", True),
    ],
)
async def test_m9_killed_at_any_step_there_is_one_document_and_always_the_same(tmp_path, database, at, after):
    await prepare(database, "sound")
    await job(database, "sound", AT)
    await prepare(database, "acme")
    await asyncio.to_thread(close_and_be_killed, url_of(tmp_path), "acme", at=at, after=after, now=AT)
    assert len(await documents(database, "acme")) == 1 + (at == "COMMIT" and after)
    await job(database, "acme", AT)
    assert await documents(database, "acme") == await documents(database, "sound")


async def test_m9_run_twice_and_two_at_once_make_one_document(tmp_path, database):
    await prepare(database, "acme")
    other = Database(url_of(tmp_path))
    closers = [Closer(each, now=AT + number * HOUR) for number, each in enumerate([database, other] * 3)]
    made = await asyncio.gather(*(each.statements.finalize("acme", parse_month("2026-10")) for each in closers))
    assert len({statement.made_at for statement in made}) == 1
    assert {statement.status for statement in made} == {Status.FINAL}
    assert len(await documents(database, "acme")) == 2
    other.close()


async def test_m9_two_months_closed_at_once_bill_what_came_late_once(tmp_path, database):
    await prepare(database, "acme")
    closer = Closer(database, source="acme", now=DECEMBER + HOUR, sequence=6)
    await closer.use(NOVEMBER)
    other = Database(url_of(tmp_path))
    closers = [closer, Closer(other, now=DECEMBER + HOUR)]
    months = [parse_month(month) for month in ("2026-10", "2026-11")]
    made = await asyncio.gather(
        *(each.statements.finalize("acme", month) for each, month in zip(closers, months, strict=True))
    )
    late = [line for statement in made for line in statement.lines if line.category is Category.CORRECTION]
    assert [(line.month, line.quantity) for line in late if line.sku == "requests"] == [("2026-09", 1)]
    other.close()


def mixed(tenant: str):
    """A month of everything that is billed, with what must not be."""
    order = random.Random(7)
    calls = [
        event(
            number,
            source=tenant,
            tenant=tenant,
            time=OCTOBER + order.random() * 31 * DAY,
            model=order.choice(["a", "b"]),
            outcome=order.choice(list(Outcome)),
            compute_us=order.randrange(10**7),
        )
        for number in range(60)
    ]
    about = {"kind": ResourceKind.REPLICA, "tenant": tenant, "model": "a", "version": 1, "resource_class": "cpu-1"}
    stretches = [
        ResourceUsage(
            source=tenant,
            id=str(number),
            start=(start := OCTOBER + order.random() * 31 * DAY),
            end=start + timedelta(microseconds=1),
            active_us=order.randrange(10**6),
            **about,
        )
        for number in range(20)
    ]
    return calls, stretches


async def test_order_and_repetition_of_events_change_nothing(database):
    seen = []
    for seed in range(3):
        tenant, order = f"t{seed}", random.Random(seed)
        calls, stretches = mixed(tenant)
        calls += order.choices(calls, k=30 * seed)
        stretches += order.choices(stretches, k=10 * seed)
        order.shuffle(calls)
        order.shuffle(stretches)
        parts = [database.write(record, calls[start::4]) for start in range(4)]
        parts += [database.write(record_resources, stretches[start::2]) for start in range(2)]
        await asyncio.gather(*parts)
        await job(database, tenant, AT)
        seen.append(await documents(database, tenant))
    assert seen == [seen[0]] * 3
    assert len(seen[0]) == 1
    assert BOOKS.currency in seen[0][0]
