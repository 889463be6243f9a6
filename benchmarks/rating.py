"""How long it takes to bill a month of many calls: rolling them up by the hour, holding the roll-ups against the events, rating.

    python benchmarks/rating.py [--events 10000000] [--tenants 1] [--keep FILE]

The ledger is a SQLite file of its own, made by the database itself; what is made is not timed with what is measured. The aim
is 60 seconds for 10 million events, from the bare ledger to the final statements.
"""

import argparse
import asyncio
import sqlite3
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from roost_gateway.money.statements import Statements
from roost_platform.billing.months import parse_month
from roost_platform.billing.price_file import default_price_books
from roost_platform.database.connection import Database, sqlite_url
from roost_platform.database.migrations import migrate
from roost_platform.metering.hours import refresh

MONTH = parse_month("2026-10")
NOW = datetime(2026, 11, 2, tzinfo=UTC)
AIM_S = 60.0

_FILL = """
WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :events)
INSERT INTO usage_events (source, sequence, time, tenant, model, version, outcome, status, compute_us, queue_us,
                          cold_start_us, bytes_in, bytes_out, rows, request_id, requests)
SELECT 'run', n,
       strftime('%Y-%m-%d %H:%M:%S', :start + n * :seconds / :events, 'unixepoch') || printf('.%06d', n % 1000000),
       'tenant-' || (n % :tenants), 'model-' || (n % 7), 1 + n % 3,
       CASE WHEN n % 50 = 0 THEN 'model_error' WHEN n % 31 = 0 THEN 'throttled' ELSE 'ok' END,
       200, 1500 + n % 977, 20, 0, 400, 60, 1 + n % 8, 'request-' || n, 1
FROM numbers
"""
_MARK = """
INSERT INTO dirty_hours (kind, tenant, hour, marks)
SELECT DISTINCT 'calls', tenant, strftime('%Y-%m-%d %H:00:00.000000', time), 1 FROM usage_events
"""


def fill(path: Path, *, events: int, tenants: int) -> None:
    """A month of calls, in the order in which they came, and the marks that their shipper would have left."""
    connection = sqlite3.connect(path)
    for pragma in ("synchronous=OFF", "cache_size=-400000"):
        connection.execute(f"PRAGMA {pragma}")
    seconds = int((MONTH.end - MONTH.start).total_seconds())
    values = {"events": events, "tenants": tenants, "start": int(MONTH.start.timestamp()), "seconds": seconds}
    connection.execute(_FILL, values)
    connection.execute(_MARK)
    connection.commit()
    connection.close()


async def bill(database: Database, *, tenants: int) -> dict[str, float]:
    """Seconds by step."""

    async def nothing() -> None:
        pass

    statements = Statements(database=database, books=default_price_books(), drain=nothing, clock=lambda: NOW)
    names = [f"tenant-{number}" for number in range(tenants)]
    took: dict[str, float] = {}
    began = time.perf_counter()
    while await database.write(refresh, 4, before=NOW):
        pass
    took["roll up"] = time.perf_counter() - began
    began = time.perf_counter()
    for name in names:
        await statements.current(name, MONTH)
    took["rate from roll-ups (a draft)"] = time.perf_counter() - began
    began = time.perf_counter()
    made = [await statements.finalize(name, MONTH) for name in names]
    took["check against events, rate, make final"] = time.perf_counter() - began
    calls = sum(sum(each.calls.values()) for each in made)
    print(f"{len(made)} statements of {calls:,} calls, {sum(each.total for each in made)} {made[0].currency}")
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--tenants", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a file to keep the ledger in, and to use again")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = chosen.keep or Path(folder) / "roost.db"
        made = path.exists()
        database = Database(sqlite_url(path))
        migrate(database.engine)
        if not made:
            began = time.perf_counter()
            fill(path, events=chosen.events, tenants=chosen.tenants)
            print(f"{chosen.events:,} events made in {time.perf_counter() - began:.1f} s (not counted)")
        took = asyncio.run(bill(database, tenants=chosen.tenants))
        database.close()
    for step, seconds in took.items():
        print(f"{seconds:8.1f} s  {step}")
    print(f"{sum(took.values()):8.1f} s  in all; the aim is {AIM_S:.0f} s for 10,000,000 events")


if __name__ == "__main__":
    main()
