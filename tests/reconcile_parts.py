"""What the tests of reconciling share: what checks look at, and how a difference is planted."""

from dataclasses import replace
from datetime import UTC, datetime

from roost_gateway.money.checks.check import Inquiry, ThisRun
from roost_platform.billing.price_file import default_price_books

NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 23, tzinfo=UTC)
NOBODY = ThisRun(source="run", opened=lambda: 0, unstored=lambda: 0, in_flight=lambda: 0, answered=dict)


def asking(database, folder, **changes):
    """What checks look at; without a shipper nothing is brought to the ledger meanwhile."""

    async def nothing():
        pass

    (folder / "journal").mkdir(exist_ok=True)
    (folder / "outbox").mkdir(exist_ok=True)
    inquiry = Inquiry(
        database=database,
        start=NOVEMBER,
        end=DECEMBER,
        begin=NOVEMBER,
        now=NOW,
        journal=folder / "journal",
        outbox=folder / "outbox",
        books=default_price_books(),
        run=NOBODY,
        drain=nothing,
    )
    return replace(inquiry, **changes)


def pairs(check):
    return check.verdict, check.left, check.right, check.difference, check.compared


def the_finding(check):
    """The only one."""
    assert (len(check.findings), check.more_findings) == (1, 0), check.findings
    return check.findings[0]


async def plant(database, statement, *rows):
    await database.write(lambda connection: connection.execute(statement, *([list(rows)] if rows else [])))
