"""The ledger's questions: what was used, and is anything missing."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from metering_parts import event, ledger_in, request_ids
from roost_platform.domain.errors import InvalidRequest
from roost_platform.domain.usage import Outcome
from roost_platform.metering.ledger import UsageFigures, gaps, record, usage_report

pytestmark = pytest.mark.usefixtures("each_database")

NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)


@pytest.fixture
def database(tmp_path):
    with ledger_in(tmp_path) as database:
        yield database


def _report(connection, **changes):
    return usage_report(connection, **({"tenant": "acme", "start": NOVEMBER, "end": DECEMBER} | changes))


async def test_an_event_is_recorded_once_for_ever(database):
    events = [event(i) for i in range(3)]
    assert await database.write(record, events) == 3
    assert await database.write(record, events) == 0
    assert await database.write(record, [*events, event(3)]) == 1
    assert await database.write(record, []) == 0
    assert await database.read(request_ids) == ["r0", "r1", "r2", "r3"]


@pytest.mark.parametrize(
    ("present", "missing"),
    [
        ([], ()),
        ([0], ()),
        ([0, 1, 2], ()),
        ([2], (range(2),)),
        ([0, 3, 4, 9], (range(1, 3), range(5, 9))),
    ],
)
async def test_missing_sequence_numbers_are_found(database, present, missing):
    await database.write(record, [event(i) for i in present])
    await database.write(record, [event(i, source="other") for i in range(5)])
    assert await database.read(gaps, "run") == missing


async def test_a_report_sums_every_figure(database):
    await database.write(
        record,
        [
            event(0, rows=3, compute_us=10, queue_us=1, bytes_in=5, bytes_out=7),
            event(1, rows=4, compute_us=20, queue_us=2, cold_start_us=900, bytes_in=50, bytes_out=70),
            event(
                2, outcome=Outcome.MODEL_ERROR, status=422, rows=1, compute_us=5, queue_us=0, bytes_in=1, bytes_out=1
            ),
            event(3, outcome=Outcome.THROTTLED, status=429, rows=0, compute_us=0, queue_us=0, bytes_in=0, bytes_out=9),
            event(4, tenant="other"),
        ],
    )
    report = await database.read(_report)
    assert report.to_json() == {
        "tenant": "acme",
        "from": "2026-11-01T00:00:00+00:00",
        "to": "2026-12-01T00:00:00+00:00",
        "group_by": ["model"],
        "rows": [
            {
                "model": "iris",
                "requests": 4,
                "billed_requests": 3,
                "rows": 8,
                "compute_us": 35,
                "queue_us": 3,
                "cold_starts": 1,
                "cold_start_us": 900,
                "bytes_in": 56,
                "bytes_out": 87,
                "errors": 2,
                "shadow_requests": 0,
            }
        ],
        "total": report.rows[0].figures.to_json(),
    }


async def test_groups_are_ordered_and_add_up_to_the_total(database):
    events = [
        event(
            i,
            model=f"m{i % 3}",
            version=1 + i % 2,
            outcome=list(Outcome)[i % len(Outcome)],
            time=NOVEMBER + timedelta(hours=7 * i),
        )
        for i in range(60)
    ]
    await database.write(record, events)
    whole = await database.read(lambda c: _report(c, group_by=()))
    assert [row.keys for row in whole.rows] == [{}]
    assert whole.total.requests == 60
    for group_by in (("model",), ("version", "model"), ("outcome",), ("day",), ("hour", "model", "version", "outcome")):
        report = await database.read(lambda c, by=group_by: _report(c, group_by=by))
        assert report.total == whole.total
        assert sum((row.figures for row in report.rows), UsageFigures()) == whole.total
        keys = [tuple(row.keys.values()) for row in report.rows]
        assert keys == sorted(set(keys))
        assert all(tuple(row.keys) == group_by for row in report.rows)


async def test_midnight_belongs_to_the_day_that_begins(database):
    midnight = datetime(2026, 11, 2, tzinfo=UTC)
    zone = datetime.fromisoformat("2026-11-02T01:30:00+02:00")  # 23:30 UTC the day before
    times = [midnight - INSTANT, midnight, zone]
    await database.write(record, [event(i, time=time) for i, time in enumerate(times)])
    days = await database.read(lambda c: _report(c, group_by=("day",)))
    assert [(row.keys["day"], row.figures.requests) for row in days.rows] == [("2026-11-01", 2), ("2026-11-02", 1)]
    hours = await database.read(lambda c: _report(c, group_by=("hour",)))
    assert [row.keys["hour"] for row in hours.rows] == ["2026-11-01T23:00:00+00:00", "2026-11-02T00:00:00+00:00"]


async def test_an_event_at_a_month_edge_is_in_exactly_one_month(database):
    times = [NOVEMBER - INSTANT, NOVEMBER, DECEMBER - INSTANT, DECEMBER]
    await database.write(record, [event(i, time=time) for i, time in enumerate(times)])
    october = datetime(2026, 10, 1, tzinfo=UTC)
    january = datetime(2027, 1, 1, tzinfo=UTC)
    edges = [october, NOVEMBER, DECEMBER, january]
    counts = [
        (await database.read(lambda c, s=start, e=end: _report(c, start=s, end=e))).total.requests
        for start, end in pairwise(edges)
    ]
    assert counts == [1, 2, 1]


async def test_a_report_can_be_of_one_model_and_of_nothing(database):
    await database.write(record, [event(0, model="a"), event(1, model="b")])
    assert (await database.read(lambda c: _report(c, model="a"))).total.requests == 1
    empty = await database.read(lambda c: _report(c, model="c", group_by=()))
    assert empty.rows == ()
    assert empty.total == UsageFigures()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"group_by": ("request_id",)}, "group_by"),
        ({"group_by": ("model; drop table usage_events",)}, "group_by"),
        ({"start": DECEMBER}, "to"),
        ({"start": datetime(2026, 11, 1)}, "from"),  # noqa: DTZ001 (naive on purpose)
    ],
)
async def test_a_report_that_makes_no_sense_is_refused(database, changes, field):
    with pytest.raises(InvalidRequest) as caught:
        await database.read(lambda c: _report(c, **changes))
    assert caught.value.field == field
